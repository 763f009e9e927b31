#include "pruning/sensitivity.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "layers/snapshot.h"

namespace espalier {

namespace {

int64_t weights_of(const Site& site) { return count_sparsity({site}).weights; }

/// The highest sparsity of a curve whose loss is at most `limit`.
double highest_within(const SensitivityCurve& curve, double start, double limit) {
  double sparsity = 0, loss = start;
  for (const SensitivityPoint& point : curve.points) {
    if (point.loss > limit) {
      const double share = point.loss > loss ? (limit - loss) / (point.loss - loss) : 0;
      return sparsity + std::clamp(share, 0.0, 1.0) * (point.sparsity - sparsity);
    }
    sparsity = point.sparsity;
    loss = point.loss;
  }
  return sparsity;
}

/// The share of all weights that these sparsities remove.
double joint_sparsity(const Sensitivity& sensitivity, const std::map<std::string, double>& sparsities) {
  double total = 0, removed = 0;
  for (const SensitivityCurve& curve : sensitivity.curves) {
    total += static_cast<double>(curve.weights);
    removed += static_cast<double>(curve.weights) * sparsities.at(curve.site);
  }
  return total > 0 ? removed / total : 0;
}

}  // namespace

std::string Sensitivity::to_string() const {
  size_t width = 4;
  for (const SensitivityCurve& curve : curves) width = std::max(width, curve.site.size());
  std::string text = fmt::format("loss {:.4f}{}; change of the loss when one site alone is pruned\n", loss,
                                 accuracy ? fmt::format(", accuracy {:.2f} %", 100 * *accuracy) : "");
  text += fmt::format("{:<{}} {:>9}", "site", width, "weights");
  if (!curves.empty())
    for (const SensitivityPoint& point : curves.front().points)
      text += fmt::format(" {:>9}", fmt::format("{:.4g} %", 100 * point.wanted));
  text += "\n";
  for (const SensitivityCurve& curve : curves) {
    text += fmt::format("{:<{}} {:>9}", curve.site, width, curve.weights);
    for (const SensitivityPoint& point : curve.points) text += fmt::format(" {:>+9.4f}", point.loss - loss);
    text += "\n";
  }
  return text;
}

nlohmann::json Sensitivity::to_json() const {
  nlohmann::json sites = nlohmann::json::array();
  for (const SensitivityCurve& curve : curves) {
    nlohmann::json points = nlohmann::json::array();
    for (const SensitivityPoint& point : curve.points)
      points.push_back({{"wanted", point.wanted},
                        {"sparsity", point.sparsity},
                        {"loss", point.loss},
                        {"accuracy", json_or_null(point.accuracy)}});
    sites.push_back({{"site", curve.site}, {"weights", curve.weights}, {"points", std::move(points)}});
  }
  return {{"loss", loss}, {"accuracy", json_or_null(accuracy)}, {"sites", std::move(sites)}};
}

Sensitivity measure_sensitivity(const Pruner& pruner, const Dataset& dataset, const SensitivityOptions& options) {
  check(dataset.size() > 0, "measure_sensitivity", "expected labelled examples to evaluate on, got none");
  check(!options.sparsities.empty(), "measure_sensitivity", "expected at least one sparsity, got none");
  double last = 0;
  for (double sparsity : options.sparsities) {
    check(sparsity > last && sparsity < 1, "measure_sensitivity", "expected sparsities that rise in (0,1), got {}",
          fmt::join(options.sparsities, ", "));
    last = sparsity;
  }
  Module& module = *pruner.module();
  const auto measure = [&] {
    return evaluate(module, dataset, {.batch_size = options.batch_size, .loss = pruner.options().loss});
  };
  const Evaluation whole = measure();
  Sensitivity result{.loss = whole.loss, .accuracy = whole.maybe_accuracy(), .curves = {}};

  const Snapshot before(module);
  const auto scores = pruner.scores();
  AllocationOptions allocation{.scope = Scope::layer,
                               .min_units = pruner.options().allocation.min_units,
                               .round_to = pruner.options().allocation.round_to};
  try {
    for (size_t s = 0; s < pruner.sites().size(); ++s) {
      const Site& site = pruner.sites()[s];
      const std::vector<bool> candidates = existing_units(site);
      SensitivityCurve curve{.site = site.name, .weights = weights_of(site), .points = {}};
      for (double wanted : options.sparsities) {
        // By hand, a sparsity that least numbers of units forbid is cut off, where a common one is an error.
        allocation.sparsity_of = {{site.name, wanted}};
        const auto exists = allocate({site}, {scores[s]}, {candidates}, 0, allocation);
        set_existing_units(site, exists.front());
        const Evaluation pruned = measure();
        curve.points.push_back({.wanted = wanted,
                                .sparsity = count_sparsity({site}).sparsity(),
                                .loss = pruned.loss,
                                .accuracy = pruned.maybe_accuracy()});
        before.restore();
      }
      result.curves.push_back(std::move(curve));
    }
  } catch (...) {
    before.restore();
    throw;
  }
  return result;
}

std::map<std::string, double> sparsities_within(const Sensitivity& sensitivity, double tolerance) {
  check(tolerance >= 0, "sparsities_within", "expected a tolerance of at least 0, got {}", tolerance);
  std::map<std::string, double> result;
  for (const SensitivityCurve& curve : sensitivity.curves)
    result[curve.site] = highest_within(curve, sensitivity.loss, sensitivity.loss + tolerance);
  return result;
}

std::map<std::string, double> sparsities_for(const Sensitivity& sensitivity, double sparsity) {
  check(sparsity >= 0 && sparsity < 1, "sparsities_for", "expected a sparsity in [0,1), got {}", sparsity);
  double low = 0, high = 0;
  for (const SensitivityCurve& curve : sensitivity.curves)
    for (const SensitivityPoint& point : curve.points) high = std::max(high, point.loss - sensitivity.loss);
  const double reach = joint_sparsity(sensitivity, sparsities_within(sensitivity, high));
  check(reach >= sparsity, "sparsities_for",
        "the curves go up to a joint sparsity of {:.4f}, got {}; measure them at higher sparsities", reach, sparsity);
  if (joint_sparsity(sensitivity, sparsities_within(sensitivity, 0)) >= sparsity) high = 0;
  // The joint sparsity rises with the tolerance.
  for (int i = 0; i < 100 && high - low > 1e-12 * (1 + high); ++i) {
    const double middle = (low + high) / 2;
    if (joint_sparsity(sensitivity, sparsities_within(sensitivity, middle)) >= sparsity)
      high = middle;
    else
      low = middle;
  }
  std::map<std::string, double> result = sparsities_within(sensitivity, high);
  // Without any loss more than that may go: all lose a little less then.
  const double joint = joint_sparsity(sensitivity, result);
  if (joint > sparsity)
    for (auto& [name, value] : result) value *= sparsity / joint;
  return result;
}

}  // namespace espalier
