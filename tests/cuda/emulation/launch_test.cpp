// What cuda/launch.h and cuda/context.h make of launches that fail: errors that name kernel, shape and stream.
#include "cuda/launch.h"

#include <gtest/gtest.h>

#include "core/ops.h"
#include "tests/expect_error.h"

namespace espalier::cuda {
namespace {

__global__ void write_beyond(int* values, int64_t n) { values[n + threadIdx.x] = 1; }

using testing_support::expect_contains;
using testing_support::message_of;

TEST(Launch, AFailureNamesKernelShapeAndStreamAndLeavesTheDeviceUsable) {
  const Device device = Device::cuda();
  Context& context = Context::of(device);
  const Tensor values = Tensor::zeros({64}, DType::i32, device);
  expect_contains(
      message_of<Error>([&] {
        launch(context, {"test.beyond", dim3(2, 3), dim3(32)}, write_beyond, values.data<int32_t>(), values.numel());
      }),
      {"[cuda]", "kernel test.beyond", "on cuda", "grid (2,3,1)", "block (32,1,1)", "stream 0x", "past the end",
       "256 bytes"});
  EXPECT_EQ(sum(Tensor::ones({64}, DType::f32, device)).item(), 64);
}

TEST(Launch, GridsAndBlocksBeyondTheLimitsAreErrors) {
  Context& context = Context::of(Device::cuda());
  const auto try_launch = [&](dim3 grid, dim3 block) {
    launch(context, {"test.huge", grid, block}, write_beyond, static_cast<int*>(nullptr), int64_t{0});
  };
  expect_contains(message_of<Error>([&] { try_launch(dim3(1, 65536), 32); }), {"test.huge", "65535", "(1,65536,1)"});
  expect_contains(message_of<Error>([&] { try_launch(0, 32); }), {"test.huge", "(0,1,1)"});
  expect_contains(message_of<Error>([&] { try_launch(1, dim3(64, 32)); }), {"test.huge", "1024 threads", "(64,32,1)"});
}

TEST(Launch, MemoryThatIsMissingForAKernelIsAnError) {
  Context& context = Context::of(Device::cuda());
  expect_contains(message_of<Error>([&] { Scratch(context, size_t{1} << 50); }),
                  {"[allocate]", "out of memory on cuda", "1125899906842624 bytes", "in use", "free", "smaller batch"});
  EXPECT_EQ(Scratch(context, 0).data(), nullptr);
}

}  // namespace
}  // namespace espalier::cuda
