#include "pruning/criteria/scoring.h"

#include <algorithm>

namespace espalier {

Scoring::Scoring(const Criterion& criterion, const std::vector<Parameter>& parameters, const CriterionInput& input)
    : criterion_(criterion),
      input_(input),
      parameters_(parameters),
      mode_(input.module),
      generator_before_(default_generator()) {
  check(input.data != nullptr && input.data->size() > 0, criterion.name(),
        "this criterion looks at examples and got none; give it labelled data");
  examples_ = std::min(input.data->size(), std::min(input.batch_size, input.data->size()) * input.batches);
  for (const Parameter& p : parameters_) {
    leaves_.push_back(p.variable());
    requires_grad_before_.push_back(p.requires_grad());
    leaves_.back().set_requires_grad(true);
  }
}

Scoring::~Scoring() {
  // Backwards: a parameter that is listed twice gets its first state.
  for (size_t i = leaves_.size(); i-- > 0;) leaves_[i].set_requires_grad(requires_grad_before_[i]);
  default_generator() = generator_before_;
}

void Scoring::for_each(const std::function<void(const Batch&, double)>& f) const {
  for_each_batch(criterion_, input_, [&](const Batch& batch) {
    f(batch, static_cast<double>(batch.size()) / static_cast<double>(examples_));
  });
}

void Scoring::for_each_piece(int64_t examples, const std::function<void(const Batch&, double)>& f) const {
  for_each_batch(criterion_, input_, [&](const Batch& batch) {
    for (int64_t begin = 0; begin < batch.size(); begin += examples) {
      const int64_t end = std::min(batch.size(), begin + examples);
      f(batch.slice(begin, end), static_cast<double>(end - begin) / static_cast<double>(examples_));
    }
  });
}

Variables Scoring::gradients(const Batch& batch, bool create_graph) const {
  const Variable loss = loss_of(input_, batch);
  Variables result(leaves_.size());
  if (loss.requires_grad()) result = grad({loss}, leaves_, {.create_graph = create_graph, .allow_unused = true});
  for (size_t i = 0; i < result.size(); ++i)
    if (!result[i].defined()) result[i] = Tensor::zeros_like(leaves_[i].data());
  return result;
}

std::vector<Tensor> Scoring::mean_gradients() const {
  std::vector<Tensor> total = zeros();
  for_each([&](const Batch& batch, double share) {
    const Variables g = gradients(batch);
    for (size_t i = 0; i < g.size(); ++i) axpy_(share, g[i].data(), total[i]);
  });
  return total;
}

std::vector<Tensor> Scoring::hessian_product(const Variables& gradients, const std::vector<Tensor>& v) const {
  Variable product;  // g . v
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].requires_grad()) continue;  // constant in the weights
    const Variable term = sum(gradients[i] * v[i]);
    product = product.defined() ? product + term : term;
  }
  std::vector<Tensor> result = zeros();
  if (!product.defined()) return result;
  const Variables second = grad({product}, leaves_, {.retain_graph = true, .allow_unused = true});
  for (size_t i = 0; i < second.size(); ++i)
    if (second[i].defined()) result[i] = second[i].data();
  return result;
}

std::vector<Tensor> Scoring::zeros() const {
  std::vector<Tensor> result;
  for (const Variable& leaf : leaves_) result.push_back(Tensor::zeros(leaf.shape(), leaf.dtype(), leaf.device()));
  return result;
}

Saliencies Scoring::combine(const std::vector<Tensor>& values,
                            const std::function<Tensor(const Tensor&, const Tensor&)>& f) const {
  Saliencies result;
  for (size_t i = 0; i < parameters_.size(); ++i)
    result[parameters_[i].id()] = f(values[i], parameters_[i].data()).contiguous();
  return result;
}

Tensor like(const Parameter& parameter, const std::vector<double>& values) {
  return Tensor::from(values, parameter.shape()).to(parameter.data().dtype()).to(parameter.data().device());
}

}  // namespace espalier
