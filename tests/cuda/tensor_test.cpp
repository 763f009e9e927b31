// Tensors on the device: copies there and back, memory, and the errors that users meet.
#include <cstdlib>

#include <gtest/gtest.h>

#include "core/kernels.h"
#include "core/ops.h"
#include "core/precision.h"
#include "core/random.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

const Device kCuda = Device::cuda();

using testing_support::expect_contains;
using testing_support::message_of;

TEST(CudaTensor, CopiesThereAndBackKeepEveryBit) {
  Generator generator(3);
  // The last one passes through several pieces of pinned memory.
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{7, 3}, Shape{1000, 1001}, Shape{3, 1'500'001}}) {
    const Tensor values = rand(shape, generator) * 200.0 - 100.0;
    for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean}) {
      if (shape.numel() > 2'000'000 && dtype != DType::f32) continue;
      const Tensor host = dtype == DType::u8 ? (values + 100.0).to(dtype) : values.to(dtype);
      const Tensor there = host.to(kCuda);
      EXPECT_EQ(there.device(), kCuda);
      EXPECT_TRUE(identical(there.to(Device::cpu()), host)) << name_of(dtype) << " " << shape.to_string();
    }
  }
}

TEST(CudaTensor, TheSourceOfACopyMayChangeAtOnce) {
  Tensor host = Tensor::ones({1 << 20});
  std::vector<Tensor> copies;
  for (int i = 0; i < 8; ++i) {
    host.fill_(i);
    copies.push_back(host.to(kCuda));
  }
  for (int i = 0; i < 8; ++i) EXPECT_EQ(min(copies[static_cast<size_t>(i)]).item(), i);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(max(copies[static_cast<size_t>(i)]).item(), i);
}

TEST(CudaTensor, CopyBetweenDevicesConvertsAndBroadcasts) {
  Tensor there = Tensor::zeros({2, 3}, DType::f64, kCuda);
  there.copy_(Tensor::from<int64_t>({1, 2, 3}, {3}).to(DType::f64));
  EXPECT_EQ(there.to_vector<double>(), (std::vector<double>{1, 2, 3, 1, 2, 3}));
  Tensor here = Tensor::zeros({3, 2});
  here.copy_(there.transpose(0, 1).to(DType::f32));
  EXPECT_EQ(here.to_vector<float>(), (std::vector<float>{1, 1, 2, 2, 3, 3}));
  EXPECT_EQ(there.select(1, 2).to_vector<double>(), (std::vector<double>{3, 3}));
  EXPECT_EQ(there.to_string(), "[[1, 2, 3], [1, 2, 3]]");
}

TEST(CudaMemory, IsCountedAndReused) {
  const char* const cache = std::getenv("ESPALIER_CUDA_CACHE");
  const bool caches = !cache || cache != std::string("0");
  const size_t bytes = caches ? 4096 : 4000;
  const MemoryStats before = memory_stats(kCuda);
  reset_peak_memory(kCuda);
  {
    const Tensor x = Tensor::zeros({1000}, DType::f32, kCuda);
    EXPECT_EQ(memory_stats(kCuda).current, before.current + bytes);
  }
  EXPECT_EQ(memory_stats(kCuda).current, before.current);
  EXPECT_EQ(memory_stats(kCuda).peak, before.current + bytes);
  const uint64_t calls = memory_stats(kCuda).system_calls;
  for (int i = 0; i < 10; ++i) Tensor::zeros({1000}, DType::f32, kCuda);
  EXPECT_EQ(memory_stats(kCuda).system_calls, calls + (caches ? 0 : 10));
  // A pool gives back whole pieces only: one may stay for what is in use.
  release_cached_memory(kCuda);
  EXPECT_LE(memory_stats(kCuda).cached, size_t{64} << 20);
}

TEST(CudaMemory, OutOfMemorySaysSizesAndLeavesTheDeviceUsable) {
  const Tensor kept = Tensor::ones({10}, DType::f32, kCuda);
  const std::string message = message_of<Error>([] { Tensor::empty({int64_t{1} << 44}, DType::f32, kCuda); });
  expect_contains(message, {"[allocate]", "out of memory on cuda", "70368744177664 bytes", "in use", "free", "batch"});
  EXPECT_EQ(sum(kept).item(), 10);
  EXPECT_EQ(sum(Tensor::ones({10}, DType::f32, kCuda)).item(), 10);
}

TEST(CudaErrors, TensorsOnDifferentDevicesAreNamed) {
  const Tensor here = Tensor::ones({2}), there = Tensor::ones({2}, DType::f32, kCuda);
  expect_contains(message_of<Error>([&] { here + there; }), {"[add]", "on cpu", "on cuda", ".to(device)"});
  expect_contains(message_of<Error>([&] { matmul(here.reshape({1, 2}), there.reshape({2, 1})); }), {"cpu", "cuda"});
  expect_contains(message_of<Error>([&] { Mask::all({2}).apply(there); }), {"[mask]", "cpu", "cuda"});
}

TEST(CudaErrors, UnknownDevice) {
  expect_contains(message_of<Error>([] { Tensor::ones({2}, DType::f32, Device::cuda(100)); }),
                  {"[cuda]", "cuda:100", "cuda:0"});
}

TEST(CudaErrors, IndexOutOfRangeIsReportedByTheNextCopy) {
  const Tensor x = Tensor::ones({3, 4}, DType::f32, kCuda);
  const Tensor index = Tensor::from<int64_t>({0, 3}, {2}).to(kCuda);
  const Tensor picked = index_select(x, 0, index);
  expect_contains(message_of<Error>([&] { picked.to_vector<float>(); }),
                  {"[index_select]", "from 0 to below 3", "axis 0", "got 3"});
  EXPECT_EQ(sum(x).item(), 12);  // reported once
}

TEST(CudaErrors, SynchronizeReportsToo) {
  const Tensor x = Tensor::ones({3}, DType::f32, kCuda);
  gather(x, 0, Tensor::from<int64_t>({-1}, {1}).to(kCuda));
  EXPECT_THROW(synchronize(kCuda), ArgumentError);
  synchronize(kCuda);
}

TEST(CudaPrecision, RoundsFactorsOnlyWhenAsked) {
  Generator generator(5);
  const Tensor a = rand({64, 128}, generator), b = rand({128, 32}, generator);
  const Tensor exact = matmul(a.to(DType::f64), b.to(DType::f64)).to(DType::f32);
  const auto error = [&](MatmulPrecision precision) {
    set_matmul_precision(precision);
    const Tensor got = matmul(a.to(kCuda), b.to(kCuda)).to(Device::cpu());
    set_matmul_precision(MatmulPrecision::f32);
    return max(abs(got - exact)).item() / max(abs(exact)).item();
  };
  EXPECT_LT(error(MatmulPrecision::f32), 2e-6);
  EXPECT_LT(error(MatmulPrecision::tf32), 2e-3);
  EXPECT_GT(error(MatmulPrecision::tf32), 2e-6);
  EXPECT_LT(error(MatmulPrecision::bf16), 2e-2);
  EXPECT_GT(error(MatmulPrecision::bf16), 2e-6);  // cuBLAS may take TF32 all the same, and does on an H200
}

}  // namespace
}  // namespace espalier
