#include "pruning/learned/movement.h"

#include <nlohmann/json.hpp>

#include "core/ops.h"

namespace espalier {

MovementCriterion::MovementCriterion(std::vector<Parameter> parameters) : were_given_(!parameters.empty()) {
  watch(std::move(parameters));
}

void MovementCriterion::attach(const Module& module) {
  if (!were_given_) watch(module.parameters());
}

void MovementCriterion::watch(std::vector<Parameter> parameters) {
  parameters_ = std::move(parameters);
  scores_.clear();
  for (const Parameter& parameter : parameters_) scores_.push_back(Tensor::zeros_like(parameter.data()));
  steps_ = 0;
}

Saliencies MovementCriterion::score(const std::vector<Parameter>& parameters, const CriterionInput&) {
  check(steps_ > 0, "movement",
        "no gradient was seen yet; list this criterion among the callbacks of the training, before the schedule that "
        "prunes, and let that begin after the first step");
  Saliencies result;
  for (const Parameter& wanted : parameters) {
    size_t i = 0;
    while (i < parameters_.size() && parameters_[i].id() != wanted.id()) ++i;
    check(i < parameters_.size(), "movement", "'{}' is not one of the watched parameters", wanted.name());
    result[wanted.id()] = scores_[i].clone();
  }
  return result;
}

nlohmann::json MovementCriterion::config() const {
  return {{"type", "MovementCriterion"}, {"parameters", parameters_.size()}};
}

void MovementCriterion::on_gradients(Trainer&, const StepRecord& record) {
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (const Tensor gradient = parameters_[i].grad(); gradient.defined()) {
      scores_[i] = scores_[i].to(gradient.device());  // the network may have moved
      axpy_(-record.lr, gradient * parameters_[i].data(), scores_[i]);
    }
  ++steps_;
}

std::vector<std::pair<std::string, Tensor>> MovementCriterion::state() const {
  std::vector<std::pair<std::string, Tensor>> result = {
      {"steps", Tensor::scalar(static_cast<double>(steps_), DType::i64)}};
  for (size_t i = 0; i < scores_.size(); ++i) result.emplace_back(fmt::format("score/{}", i), scores_[i]);
  return result;
}

void MovementCriterion::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  size_t found = 0;
  for (const auto& [name, tensor] : state) {
    if (name == "steps") steps_ = static_cast<int64_t>(tensor.item());
    for (size_t i = 0; i < scores_.size(); ++i)
      if (name == fmt::format("score/{}", i) && tensor.shape() == scores_[i].shape()) {
        scores_[i] = tensor.clone();
        ++found;
      }
  }
  if (found != scores_.size())
    fail<FileError>("movement",
                    "the checkpoint has scores for {} of {} parameters; is it of a training with the same "
                    "callbacks?",
                    found, scores_.size());
}

}  // namespace espalier
