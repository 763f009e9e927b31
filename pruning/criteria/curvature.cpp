// Criteria from the diagonal of the Hessian.
#include "pruning/criteria/scoring.h"

namespace espalier {
namespace {

class OptimalBrainDamage : public Criterion {
 public:
  explicit OptimalBrainDamage(const ObdOptions& options) : options_(options) {
    check(options.probes > 0, "obd", "expected at least one probe, got {}", options.probes);
  }
  void fields(FieldVisitor& f) override {
    if (options_.diagonal == HessianDiagonal::hutchinson)
      f("probes", options_.probes, at_least(1), "Random signs of each batch");
  }
  std::string name() const override { return options_.diagonal == HessianDiagonal::hutchinson ? "obd" : "fisher"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const Scoring scoring(*this, parameters, input);
    const std::vector<Tensor> diagonal =
        options_.diagonal == HessianDiagonal::hutchinson ? hutchinson(scoring, input.seed) : fisher(scoring);
    return scoring.combine(diagonal, [](const Tensor& h, const Tensor& weight) { return h * square(weight) * 0.5; });
  }

 private:
  /// New signs for every batch and probe: E[z_i (Hz)_i] = h_ii, as E[z_i z_j] = 0.
  std::vector<Tensor> hutchinson(const Scoring& scoring, uint64_t seed) const {
    constexpr uint64_t kStream = 0x487574636869;
    Generator generator(seed, kStream);
    std::vector<Tensor> total = scoring.zeros();
    scoring.for_each([&](const Batch& batch, double share) {
      const Variables gradients = scoring.gradients(batch, true);
      for (int64_t probe = 0; probe < options_.probes; ++probe) {
        std::vector<Tensor> signs = scoring.zeros();
        for (Tensor& z : signs) {
          bernoulli_(z, 0.5, generator);
          z = z * 2.0 - 1.0;
        }
        const std::vector<Tensor> product = scoring.hessian_product(gradients, signs);
        for (size_t i = 0; i < total.size(); ++i)
          axpy_(share / static_cast<double>(options_.probes), signs[i] * product[i], total[i]);
      }
    });
    return total;
  }

  std::vector<Tensor> fisher(const Scoring& scoring) const {
    std::vector<Tensor> total = scoring.zeros();
    scoring.for_each_piece(1, [&](const Batch& example, double share) {
      const Variables g = scoring.gradients(example);
      for (size_t i = 0; i < total.size(); ++i) axpy_(share, square(g[i].data()), total[i]);
    });
    return total;
  }

  ObdOptions options_;
};

}  // namespace

CriterionPtr obd_criterion(const ObdOptions& options) { return std::make_shared<OptimalBrainDamage>(options); }

}  // namespace espalier
