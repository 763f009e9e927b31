#include "tests/op_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace espalier::op_cases {
namespace {

/// Uniform in [0, 1), the same with every standard library.
double uniform(std::mt19937& engine) { return static_cast<double>(engine() >> 8) / (1 << 24); }

std::vector<double> draw(const OpInput& input, std::mt19937& engine) {
  const auto n = static_cast<size_t>(input.shape.numel());
  std::vector<double> values(n);
  if (input.distinct) {
    std::iota(values.begin(), values.end(), 0.0);
    for (size_t i = n; i > 1; --i) std::swap(values[i - 1], values[engine() % i]);
    for (double& v : values) v = input.low + (input.high - input.low) * (v + 0.5) / static_cast<double>(n);
  } else {
    for (double& v : values) {
      do v = input.low + (input.high - input.low) * uniform(engine);
      while (std::fabs(v) < input.away_from_zero);
    }
  }
  for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  return values;
}

}  // namespace

size_t Array::offset(const Index& index) const {
  size_t at = 0;
  for (int i = 0; i < shape.rank(); ++i) at = at * static_cast<size_t>(shape[i]) + static_cast<size_t>(index[i]);
  return at;
}

double Array::broadcast(const Index& index) const {
  Index own(index.end() - shape.rank(), index.end());
  for (int i = 0; i < shape.rank(); ++i)
    if (shape[i] == 1) own[static_cast<size_t>(i)] = 0;
  return (*this)(own);
}

void for_each(const Shape& shape, const std::function<void(const Index&)>& f) {
  if (shape.numel() == 0) return;
  Index index(static_cast<size_t>(shape.rank()), 0);
  while (true) {
    f(index);
    int axis = shape.rank() - 1;
    while (axis >= 0 && ++index[static_cast<size_t>(axis)] == shape[axis]) index[static_cast<size_t>(axis--)] = 0;
    if (axis < 0) return;
  }
}

Array fill(const Shape& shape, const std::function<double(const Index&)>& f) {
  Array out(shape);
  size_t at = 0;
  for_each(shape, [&](const Index& index) { out.values[at++] = f(index); });
  return out;
}

double tolerance(DType dtype, int64_t terms, double scale) {
  const double epsilon =
      dtype == DType::f32 ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
  return epsilon * static_cast<double>(4 + terms) * scale;
}

const std::vector<OpCase>& all() {
  static const std::vector<OpCase>& cases = *[] {
    auto* list = new std::vector<OpCase>;
    for (auto add : {&add_elementwise, &add_reductions, &add_shape, &add_indexing, &add_matmul, &add_conv2d,
                     &add_pooling, &add_normalization, &add_losses, &add_lstm})
      add(*list);
    return list;
  }();
  return cases;
}

Variables make_inputs(const OpCase& op_case, DType dtype, Device device) {
  std::mt19937 engine(12345);
  Variables inputs;
  for (const OpInput& input : op_case.inputs)
    inputs.emplace_back(Tensor::from(draw(input, engine), input.shape).to(dtype).to(device), input.requires_grad);
  return inputs;
}

Variables make_output_gradients(const Variables& outputs) {
  std::mt19937 engine(54321);
  Variables gradients;
  for (const Variable& output : outputs) {
    const OpInput weights{.shape = output.shape(), .low = 0.5, .high = 1.5};
    gradients.emplace_back(Tensor::from(draw(weights, engine), weights.shape).to(output.dtype()).to(output.device()));
  }
  return gradients;
}

Arrays to_arrays(const Variables& variables) {
  Arrays arrays;
  for (const Variable& variable : variables) {
    Array& array = arrays.emplace_back();
    array.shape = variable.shape();
    array.values = variable.data().to_vector<double>();
  }
  return arrays;
}

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace espalier::op_cases
