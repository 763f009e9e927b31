#include "core/sparse/sparse_linear.h"

#include "core/sparse/place.h"
#include "core/sparse/sddmm.h"
#include "core/threads.h"

namespace espalier {
namespace {

void check_operand(const char* what, const Tensor& x) {
  check(x.defined() && x.dtype() == DType::f32 && x.device().is_cpu() && x.is_contiguous(), "SparseLinear",
        "expected {} to be f32, contiguous and on the CPU, got {}", what,
        x.defined() ? describe(x) : "an undefined tensor");
}

/// values[i] = all[at[i]].
void gather(const std::vector<int32_t>& at, const float* all, std::vector<float>& values) {
  values.resize(at.size());
  parallel_for(static_cast<int64_t>(at.size()), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] = all[at[static_cast<size_t>(i)]];
  });
}

/// rows (N, columns of the plan's matrix) -> (N, its rows).
Tensor product(const SpmmPlan& plan, const Tensor& rows, const Tensor& bias) {
  check_operand("a batch", rows);
  check(rows.rank() == 2 && rows.size(1) == plan.columns(), "SparseLinear", "expected a batch (N,{}), got {}",
        plan.columns(), rows.shape());
  const int64_t n = rows.size(0);
  Tensor y = Tensor::empty({n, plan.rows()});
  const Tensor packed = Tensor::empty({plan.packed_floats(n)});
  plan.pack_batch(rows.data<float>(), n, plan.columns(), packed.data<float>());
  plan.run_batch(packed.data<float>(), n, bias.defined() ? bias.data<float>() : nullptr, y.data<float>(), plan.rows());
  return y;
}

}  // namespace

SparseLinear::SparseLinear(const Mask& mask, const Tensor& weight)
    : structure_(csr_of(mask, weight)), forward_(structure_) {
  check(weight.rank() == 2, "SparseLinear", "expected a weight (O,I), got {}", weight.shape());
  values_ = std::move(structure_.value);
  structure_.value = {};
  places_.reserve(structure_.column.size());
  for (int64_t i = 0; i < structure_.rows; ++i)
    for (int64_t e = structure_.row_offsets[static_cast<size_t>(i)];
         e < structure_.row_offsets[static_cast<size_t>(i) + 1]; ++e)
      places_.push_back(static_cast<int32_t>(i * structure_.columns + structure_.column[static_cast<size_t>(e)]));
}

void SparseLinear::refill(const Tensor& weight) {
  check_operand("the weight", weight);
  check(weight.shape() == Shape({structure_.rows, structure_.columns}), "SparseLinear",
        "expected a weight ({},{}), got {}", structure_.rows, structure_.columns, weight.shape());
  gather(places_, weight.data<float>(), values_);
  forward_.set_values(values_);
  backward_is_stale_ = backward_.has_value();
}

Tensor SparseLinear::forward(const Tensor& x, const Tensor& bias) const {
  if (bias.defined()) {
    check_operand("a bias", bias);
    check(bias.shape() == Shape{structure_.rows}, "SparseLinear", "expected a bias ({}), got {}", structure_.rows,
          bias.shape());
  }
  return product(forward_, x, bias);
}

Tensor SparseLinear::input_gradient(const Tensor& dy) {
  if (!backward_) {
    structure_.value = values_;
    Transposed t = transposed(structure_);
    structure_.value = {};
    from_ = std::move(t.from);
    backward_.emplace(t.matrix);
  } else if (backward_is_stale_) {
    std::vector<float> values;
    gather(from_, values_.data(), values);
    backward_->set_values(values);
  }
  backward_is_stale_ = false;
  return product(*backward_, dy, {});
}

Tensor SparseLinear::weight_gradient(const Tensor& dy, const Tensor& x) const {
  check_operand("a gradient", dy);
  check_operand("a batch", x);
  check(dy.rank() == 2 && x.rank() == 2 && dy.size(0) == x.size(0) && dy.size(1) == structure_.rows &&
            x.size(1) == structure_.columns,
        "SparseLinear", "expected (N,{}) and (N,{}), got {} and {}", structure_.rows, structure_.columns, dy.shape(),
        x.shape());
  std::vector<float> values(places_.size());
  sddmm_batch(structure_, dy.data<float>(), structure_.rows, x.data<float>(), structure_.columns, x.size(0),
              values.data());
  Tensor gradient = Tensor::zeros({structure_.rows, structure_.columns});
  auto* to = gradient.data<float>();
  parallel_for(static_cast<int64_t>(values.size()), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) to[places_[static_cast<size_t>(e)]] = values[static_cast<size_t>(e)];
  });
  return gradient;
}

}  // namespace espalier
