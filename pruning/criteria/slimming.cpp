#include "pruning/criteria/slimming.h"

#include <algorithm>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "pruning/criteria/criterion.h"
#include "training/trainer.h"

namespace espalier {
namespace {

/// Every BatchNorm with a weight, by name.
std::vector<std::pair<std::string, Parameter>> batch_norm_weights(const Module& module) {
  std::vector<std::pair<std::string, Parameter>> result;
  for (const auto& [name, norm] : batch_norms(module))
    if (norm->weight().defined()) result.emplace_back(name, norm->weight());
  return result;
}

class BatchNormScale : public Criterion {
 public:
  std::string name() const override { return "bn-scale"; }
  void check_fits(const Module& module, const std::vector<Site>& sites) const override {
    const std::unordered_set<const void*> scales = scales_of(module);
    for (const Site& site : sites)
      check(std::any_of(site.members.begin(), site.members.end(),
                        [&](const SiteMember& member) { return scales.contains(member.parameter.id()); }),
            name(),
            "site '{}' has no BatchNorm weight to judge its units by; prune channels (channel_sites) that pass a "
            "BatchNorm, or use another criterion",
            site.name);
  }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const std::unordered_set<const void*> scales = scales_of(input.module);
    if (input.sites) check_fits(input.module, *input.sites);
    Saliencies result;
    bool found = false;
    for (const Parameter& p : parameters) {
      const bool is_scale = scales.contains(p.id());
      found = found || is_scale;
      result[p.id()] = is_scale ? abs(p.data()) : Tensor::zeros_like(p.data());
    }
    check(found, name(), "no BatchNorm weight is among the {} parameters to score; this {} has {}", parameters.size(),
          input.module.type(), scales.size());
    return result;
  }

 private:
  static std::unordered_set<const void*> scales_of(const Module& module) {
    std::unordered_set<const void*> scales;
    for (const auto& [name, weight] : batch_norm_weights(module)) scales.insert(weight.id());
    return scales;
  }
};

}  // namespace

SlimmingPenalty::SlimmingPenalty(const SlimmingOptions& options) : options_(options) {
  check(options.strength >= 0, "SlimmingPenalty", "expected a strength of at least 0, got {}", options.strength);
}

std::vector<Parameter> SlimmingPenalty::scales(const Module& module) const {
  std::vector<Parameter> result;
  for (const auto& [name, weight] : batch_norm_weights(module))
    if (!names_include(options_.exclude, name)) result.push_back(weight);
  return result;
}

nlohmann::json SlimmingPenalty::config() const {
  return {{"type", "SlimmingPenalty"}, {"strength", options_.strength}, {"exclude", options_.exclude}};
}

void SlimmingPenalty::on_train_begin(Trainer& trainer) { check_fits(*trainer.module()); }

void SlimmingPenalty::check_fits(const Module& module) const {
  const auto weights = batch_norm_weights(module);
  check(!weights.empty(), "SlimmingPenalty", "this {} has no BatchNorm with a weight to make sparse", module.type());
  std::vector<std::string> names;
  for (const auto& [name, weight] : weights) names.push_back(name);
  for (const std::string& pattern : options_.exclude)
    check(std::any_of(names.begin(), names.end(), [&](const std::string& name) { return fits_name(pattern, name); }),
          "SlimmingPenalty", "there is no BatchNorm '{}' to exclude{}", pattern, did_you_mean(pattern, names));
}

void SlimmingPenalty::on_gradients(Trainer& trainer, const StepRecord&) {
  for (const Parameter& scale : scales(*trainer.module())) {
    Tensor gradient = scale.grad();
    if (gradient.defined()) axpy_(options_.strength, unary(UnaryOp::sign, scale.data()), gradient);
  }
}

double SlimmingPenalty::penalty(const Module& module) const {
  double total = 0;
  for (const Parameter& scale : scales(module)) total += sum(abs(scale.data().to(DType::f64))).item();
  return options_.strength * total;
}

CriterionPtr bn_scale_criterion() { return std::make_shared<BatchNormScale>(); }

}  // namespace espalier
