// Criteria from first derivatives of a trained network's loss.
#include <unordered_map>

#include "pruning/criteria/scoring.h"
#include "pruning/criteria/units.h"

namespace espalier {
namespace {

class GradientMagnitude : public Criterion {
 public:
  std::string name() const override { return "gradient"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const Scoring scoring(*this, parameters, input);
    return scoring.combine(scoring.mean_gradients(), [](const Tensor& g, const Tensor&) { return abs(g); });
  }
};

class Taylor : public Criterion {
 public:
  explicit Taylor(const TaylorOptions& options) : options_(options) {}
  void fields(FieldVisitor& f) override { f("squared", options_.squared, "(g*w)^2, else |g*w|"); }
  std::string name() const override { return options_.squared ? "taylor" : "taylor-abs"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const Scoring scoring(*this, parameters, input);
    std::vector<Tensor> total = scoring.zeros();
    scoring.for_each([&](const Batch& batch, double share) {
      const Variables g = scoring.gradients(batch);
      for (size_t i = 0; i < g.size(); ++i) {
        const Tensor change = g[i].data() * parameters[i].data();
        axpy_(share, options_.squared ? square(change) : abs(change), total[i]);
      }
    });
    return scoring.combine(total, [](const Tensor& score, const Tensor&) { return score; });
  }

 private:
  TaylorOptions options_;
};

class UnitGradient : public Criterion {
 public:
  std::string name() const override { return "unit-gradient"; }
  bool needs_data() const override { return true; }
  void check_fits(const Module&, const std::vector<Site>& sites) const override { check_whole_units(*this, sites); }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    if (input.sites) check_fits(input.module, *input.sites);  // before the network runs
    std::unordered_map<const void*, std::vector<double>> totals;
    const Scoring scoring(*this, parameters, input);
    scoring.for_each([&](const Batch& batch, double) {
      Variable loss;
      const std::vector<UnitOutputs> units = observe_units(input.module, [&] { loss = loss_of(input, batch); });
      add_gradients(loss, units, static_cast<double>(batch.size()), totals);
    });
    return spread_over_units(*this, parameters, input, [&](const Parameter& weight, int64_t) {
      const auto found = totals.find(weight.id());
      check(found != totals.end(), name(),
            "saw no output of '{}': it is no weight of a Linear or Conv2d that the network calls with (); "
            "choose by taylor, magnitude or wanda",
            weight.name());
      return found->second;
    });
  }

 private:
  /// `examples` turns the gradients of a batch's mean loss into those of each example's own.
  static void add_gradients(const Variable& loss, const std::vector<UnitOutputs>& units, double examples,
                            std::unordered_map<const void*, std::vector<double>>& totals) {
    Variables outputs;
    for (const UnitOutputs& unit : units) outputs.push_back(unit.output);
    const Variables gradients = grad({loss}, outputs, {.allow_unused = true});
    for (size_t i = 0; i < units.size(); ++i) {
      std::vector<double>& total = totals[units[i].weight.id()];
      total.resize(static_cast<size_t>(units[i].output.size(units[i].channel_axis)), 0.0);
      if (!gradients[i].defined()) continue;  // the loss doesn't depend on it
      Axes others;
      for (int axis = 0; axis < gradients[i].rank(); ++axis)
        if (axis != units[i].channel_axis) others.push_back(axis);
      const std::vector<double> sums = sum(abs(gradients[i].data().to(DType::f64)), others).to_vector<double>();
      for (size_t u = 0; u < sums.size(); ++u) total[u] += examples * sums[u];
    }
  }
};

}  // namespace

CriterionPtr unit_gradient_criterion() { return std::make_shared<UnitGradient>(); }
CriterionPtr gradient_criterion() { return std::make_shared<GradientMagnitude>(); }
CriterionPtr taylor_criterion(const TaylorOptions& options) { return std::make_shared<Taylor>(options); }

}  // namespace espalier
