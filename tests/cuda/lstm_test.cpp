// The LSTM cell and its gradient against the CPU's.
#include <fmt/format.h>

#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::RandomTensors;

const Shape kShapes[] = {{1, 1}, {3, 5}, {7, 64}, {2, 333}, {0, 4}};

TEST(CudaLstmCell, Step) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      RandomTensors random(dtype);
      // Gates saturate on both sides. They are read and written: the call copies them into the first output.
      expect_same({.inputs = {random({shape[0], 4 * shape[1]}, 0, 8), random(shape)},
                   .outputs = {Tensor::empty({shape[0], 4 * shape[1]}, dtype), Tensor::empty(shape, dtype),
                               Tensor::empty(shape, dtype)},
                   .absolute = 32 * testing::epsilon(dtype),
                   .relative = 16 * testing::epsilon(dtype),
                   .what = fmt::format("{} {}", name_of(dtype), shape)},
                  [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                    out[0].copy_(in[0]);
                    kernels.lstm_cell(out[0], in[1], out[1], out[2]);
                  });
    }
  }
}

TEST(CudaLstmCell, Gradient) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      RandomTensors random(dtype);
      const Shape gate_shape{shape[0], 4 * shape[1]};
      Tensor gates = random(gate_shape, 0, 2), c = Tensor::empty(shape, dtype), h = Tensor::empty(shape, dtype);
      const Tensor c_prev = random(shape);
      testing::cpu().lstm_cell(gates, c_prev, c, h);
      expect_same({.inputs = {gates, c_prev, c, random(shape), random(shape)},
                   .outputs = {Tensor::empty(gate_shape, dtype), Tensor::empty(shape, dtype)},
                   .absolute = 32 * testing::epsilon(dtype),
                   .relative = 16 * testing::epsilon(dtype),
                   .what = fmt::format("gradient of {} {}", name_of(dtype), shape)},
                  [](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                    kernels.lstm_cell_grad(in[0], in[1], in[2], in[3], in[4], out[0], out[1]);
                  });
    }
  }
}

}  // namespace
}  // namespace espalier
