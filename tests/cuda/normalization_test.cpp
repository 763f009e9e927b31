// Batch normalisation against the CPU's, which its own tests hold against the definition.
#include <fmt/format.h>

#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::RandomTensors;
using testing::sum_tolerance;

// S of 1 and more than that; channels below and above a warp; sums of one block and of several parts.
const Shape kShapes[] = {{1, 1},          {7, 5},       {128, 200},     {700, 3},      {2, 3, 1, 1}, {3, 4, 5, 7},
                         {16, 6, 12, 12}, {1, 3, 9, 4}, {4, 1, 70, 70}, {3, 40, 2, 2}, {5, 3, 300}};

Call call_of(const Shape& shape, DType dtype, const char* what) {
  return {.inputs = {}, .outputs = {}, .what = fmt::format("{} of {} {}", what, name_of(dtype), shape)};
}

TEST(CudaBatchNorm, Statistics) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (double mean : {0.5, 1e4}) {
        Call call = call_of(shape, dtype, "statistics");
        call.inputs = {RandomTensors(dtype)(shape, mean, 2)};
        for (int i = 0; i < 3; ++i) call.outputs.push_back(Tensor::empty({shape[1]}, dtype));
        // Both sum in double; what remains is the rounding of the result, and of double for f64.
        call.absolute = sum_tolerance(DType::f64, shape.numel(), 64);
        call.relative = 2 * testing::epsilon(dtype);
        expect_same(call, [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
          kernels.batch_norm_stats(in[0], 1, out[0], out[1], out[2]);
        });
      }
    }
  }
}

TEST(CudaBatchNorm, RunningStatisticsTakeInABatch) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (int64_t channels : {1, 3, 700}) {
      RandomTensors random(dtype);
      Call call = call_of({channels}, dtype, "running statistics");
      call.inputs = {random({channels}), random({channels}, 1.5, 0.1)};
      call.outputs = {random({channels}), random({channels}, 1.5, 0.1), Tensor::full({}, 41, DType::i64)};
      call.absolute = sum_tolerance(dtype, 2, 4);
      call.accumulates = true;
      expect_same(call, [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
        kernels.batch_norm_track(in[0], in[1], 0.1, 1.25, out[0], out[1], out[2]);
      });
    }
  }
}

TEST(CudaBatchNorm, NormalisesScalesAndShifts) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (bool affine : {false, true}) {
        RandomTensors random(dtype);
        const Shape channels{shape[1]};
        Call call = call_of(shape, dtype, "values");
        call.inputs = {random(shape), random(channels), random(channels, 1.5, 0.1),
                       affine ? random(channels) : Tensor(), affine ? random(channels) : Tensor()};
        call.outputs = {Tensor::empty(shape, dtype)};
        call.absolute = sum_tolerance(dtype, 4, 8);
        expect_same(call, [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
          kernels.batch_norm(in[0], in[1], in[2], in[3], in[4], out[0]);
        });
      }
    }
  }
}

TEST(CudaBatchNorm, GradientsAndTheirBits) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (bool affine : {false, true}) {
        RandomTensors random(dtype);
        const Shape channels{shape[1]};
        Call call = call_of(shape, dtype, "gradients");
        call.inputs = {random(shape), random(shape), random(channels, 0, 0.1), random(channels, 1, 0.1),
                       affine ? random(channels) : Tensor()};
        call.outputs = {Tensor::empty(shape, dtype), Tensor::empty(channels, dtype), Tensor::empty(channels, dtype)};
        call.absolute = sum_tolerance(dtype, shape.numel() / shape[1], 8);
        std::vector<std::vector<double>> results;
        for (int run = 0; run < 2; ++run) {
          expect_same(call, [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
            kernels.batch_norm_grad(in[0], in[1], in[2], in[3], in[4], out[0], out[1], out[2]);
            if (&kernels == &testing::cuda())
              for (const Tensor& x : out) results.push_back(x.to_vector<double>());
          });
        }
        for (size_t i = 0; i < 3; ++i) EXPECT_EQ(results[i], results[i + 3]) << call.what;
      }
    }
  }
}

TEST(CudaBatchNorm, EmptyBatches) {
  const Tensor one = Tensor::ones({3});
  for (const Shape& shape : {Shape{0, 3}, Shape{0, 3, 4, 4}, Shape{2, 3, 0}}) {
    expect_same(
        {.inputs = {Tensor::empty(shape)}, .outputs = {Tensor::empty({3}), Tensor::empty({3}), Tensor::empty({3})}},
        [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
          kernels.batch_norm_stats(in[0], 1, out[0], out[1], out[2]);
        });
    expect_same({.inputs = {Tensor::empty(shape), one},
                 .outputs = {Tensor::empty(shape), Tensor::empty({3}), Tensor::empty({3})}},
                [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                  kernels.batch_norm(in[0], in[1], in[1], Tensor(), Tensor(), out[0]);
                  kernels.batch_norm_grad(in[0], in[0], in[1], in[1], Tensor(), out[0], out[1], out[2]);
                });
  }
}

}  // namespace
}  // namespace espalier
