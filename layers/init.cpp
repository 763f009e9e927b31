#include "layers/init.h"

#include <cmath>
#include <vector>

#include "core/linalg.h"
#include "core/ops.h"
#include "layers/size_budget.h"

namespace espalier {

Fans fans_of(const Shape& shape) {
  check(shape.rank() >= 2, "init", "fans need a weight of at least 2 axes, such as (out,in) or (F,C,KH,KW); got {}",
        shape);
  int64_t window = 1;
  for (int axis = 2; axis < shape.rank(); ++axis) window *= shape[axis];
  return {shape[1] * window, shape[0] * window};
}

namespace {
double kaiming_deviation(const Tensor& out, const KaimingOptions& options) {
  const Fans fans = fans_of(out.shape());
  const int64_t fan = options.fan == FanMode::in ? fans.in : fans.out;
  check(fan > 0, "init", "expected positive sizes, got {}", out.shape());
  return std::sqrt(2 / (1 + options.negative_slope * options.negative_slope) / static_cast<double>(fan));
}

double xavier_deviation(const Tensor& out, double gain) {
  const Fans fans = fans_of(out.shape());
  check(fans.in + fans.out > 0, "init", "expected positive sizes, got {}", out.shape());
  return gain * std::sqrt(2 / static_cast<double>(fans.in + fans.out));
}

/// A uniform distribution of deviation s spans +-sqrt(3) s.
Tensor uniform_of_deviation(Tensor out, double deviation, Generator& generator) {
  const double bound = std::sqrt(3.0) * deviation;
  uniform_(out, -bound, bound, generator);
  return out;
}

}  // namespace

Tensor kaiming_uniform_(Tensor out, const KaimingOptions& options, Generator& generator) {
  return uniform_of_deviation(out, kaiming_deviation(out, options), generator);
}

Tensor kaiming_normal_(Tensor out, const KaimingOptions& options, Generator& generator) {
  normal_(out, 0, kaiming_deviation(out, options), generator);
  return out;
}

Tensor xavier_uniform_(Tensor out, double gain, Generator& generator) {
  return uniform_of_deviation(out, xavier_deviation(out, gain), generator);
}

Tensor xavier_normal_(Tensor out, double gain, Generator& generator) {
  normal_(out, 0, xavier_deviation(out, gain), generator);
  return out;
}

Tensor orthogonal_(Tensor out, double gain, Generator& generator) {
  check(out.rank() >= 2, "orthogonal_", "expected at least 2 axes, got {}", out.shape());
  check(out.numel() > 0, "orthogonal_", "expected positive sizes, got {}", out.shape());
  const int64_t rows = out.size(0), columns = out.numel() / rows;
  const int64_t count = std::min(rows, columns), n = std::max(rows, columns);
  Tensor normal = Tensor::empty({count, n}, DType::f64);
  normal_(normal, 0, 1, generator);
  std::vector<double> values = normal.to_vector<double>();
  check(orthonormalize(values, count, n), "orthogonal_", "the random rows are dependent; use another seed");
  Tensor q = Tensor::from(values, {count, n});
  if (rows > columns) q = q.transpose(0, 1);
  out.copy_((q * gain).reshape(out.shape()));
  return out;
}

Tensor checked_empty(const char* operation, const Shape& shape) {
  SizeBudget::claim(operation, shape);
  return Tensor::empty(shape);
}

Tensor constant_tensor(const char* operation, const Shape& shape, double value) {
  Tensor out = checked_empty(operation, shape);
  out.fill_(value);
  return out;
}

Tensor default_weight(const char* operation, const Shape& shape) {
  return kaiming_uniform_(checked_empty(operation, shape), {.negative_slope = std::sqrt(5.0)});
}

Tensor uniform_tensor(const char* operation, const Shape& shape, double bound) {
  Tensor out = checked_empty(operation, shape);
  uniform_(out, -bound, bound);
  return out;
}

}  // namespace espalier
