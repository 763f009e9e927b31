#include "pruning/recovery/regrow.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "pruning/recovery/layer_data.h"

namespace espalier {

namespace {
/// Dense gradients while alive.
class DenseFlow {
 public:
  explicit DenseFlow(const std::vector<Parameter>& parameters) {
    for (const Parameter& parameter : parameters) {
      if (!parameter.mask().defined() || parameter.gradient_flow() == GradientFlow::dense) continue;
      changed_.push_back(parameter);
      changed_.back().set_mask(parameter.mask(), GradientFlow::dense);
    }
  }
  ~DenseFlow() {
    for (Parameter& parameter : changed_) parameter.set_mask(parameter.mask(), GradientFlow::masked);
  }
  DenseFlow(const DenseFlow&) = delete;
  DenseFlow& operator=(const DenseFlow&) = delete;

 private:
  std::vector<Parameter> changed_;
};
}  // namespace

Saliencies dense_gradients(Module& module, const std::vector<Site>& sites, const Dataset& data,
                           const DenseGradientOptions& options) {
  std::vector<Parameter> parameters;
  Variables leaves;
  std::unordered_set<const void*> seen;
  for (const Site& site : sites)
    for (const SiteMember& member : site.members)
      if (member.parameter.requires_grad() && seen.insert(member.parameter.id()).second) {
        parameters.push_back(member.parameter);
        leaves.push_back(member.parameter.variable());
      }
  const DenseFlow flow(parameters);
  const EvalMode mode(module);
  Saliencies gradients;
  int64_t examples = 0;
  recovery::for_batches("dense_gradients", data, options.batch_size, options.batches, options.seed, module.device(),
                        [&](const Batch& batch) {
                          const Bundle outputs = outputs_of(module, batch);
                          const Variable loss =
                              options.loss ? options.loss(outputs, batch) : batch_loss(outputs, batch);
                          const Variables found = grad({loss}, leaves, {.allow_unused = true});
                          for (size_t i = 0; i < parameters.size(); ++i) {
                            Tensor& sum = gradients[parameters[i].id()];
                            if (!sum.defined()) sum = Tensor::zeros_like(parameters[i].data());
                            if (found[i].defined()) axpy_(static_cast<double>(batch.size()), found[i].data(), sum);
                          }
                          examples += batch.size();
                        });
  for (auto& [id, sum] : gradients) sum = sum * (1.0 / static_cast<double>(examples));
  return gradients;
}

std::vector<int64_t> regrow(const std::vector<Site>& sites, const Saliencies& gradients, int64_t count,
                            const RegrowOptions& options) {
  check(count >= 0, "regrow", "expected a count of at least 0, got {}", count);
  Saliencies sizes;
  for (const auto& [id, gradient] : gradients) sizes.emplace(id, abs(gradient));

  struct Candidate {
    double score;
    size_t site;
    int64_t unit;
  };
  std::vector<Candidate> candidates;
  std::vector<std::vector<bool>> exists;
  for (size_t s = 0; s < sites.size(); ++s) {
    exists.push_back(existing_units(sites[s]));
    const std::vector<double> scores = unit_scores(sites[s], sizes);
    for (size_t unit = 0; unit < scores.size(); ++unit) {
      if (exists[s][unit]) continue;
      if (std::isnan(scores[unit]))
        fail<NumericError>("regrow", "the gradient of unit {} of '{}' is NaN", unit, sites[s].name);
      candidates.push_back({scores[unit], s, static_cast<int64_t>(unit)});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  candidates.resize(std::min(candidates.size(), static_cast<size_t>(count)));
  std::vector<int64_t> grown(sites.size(), 0);
  for (const Candidate& candidate : candidates) {
    exists[candidate.site][static_cast<size_t>(candidate.unit)] = true;
    ++grown[candidate.site];
  }
  for (size_t s = 0; s < sites.size(); ++s)
    if (grown[s] > 0) set_existing_units(sites[s], exists[s], options.flow);
  return grown;
}

std::vector<int64_t> regrow_share(const std::vector<Site>& sites, const Saliencies& gradients, double share,
                                  const RegrowOptions& options) {
  check(share >= 0 && share <= 1, "regrow", "expected a share in [0,1], got {}", share);
  int64_t removed = 0;
  for (const Site& site : sites) {
    const std::vector<bool> exists = existing_units(site);
    removed += std::count(exists.begin(), exists.end(), false);
  }
  return regrow(sites, gradients, std::llround(share * static_cast<double>(removed)), options);
}

int64_t regrow(const Site& site, const Saliencies& gradients, int64_t count, const RegrowOptions& options) {
  return regrow(std::vector<Site>{site}, gradients, count, options).front();
}

}  // namespace espalier
