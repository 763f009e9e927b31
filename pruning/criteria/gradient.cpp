// Criteria from first derivatives of a trained network's loss.
#include "pruning/criteria/scoring.h"

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

}  // namespace

CriterionPtr gradient_criterion() { return std::make_shared<GradientMagnitude>(); }
CriterionPtr taylor_criterion(const TaylorOptions& options) { return std::make_shared<Taylor>(options); }

}  // namespace espalier
