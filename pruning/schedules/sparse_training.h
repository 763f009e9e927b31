// Dynamic sparse training: a network that is sparse from the first step, whose connections move while it trains.
#pragma once

#include "pruning/allocation.h"
#include "training/trainer.h"

namespace espalier {

class FieldVisitor;

/// What grows where others were dropped.
enum class Growth : uint8_t {
  random,    ///< SET: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse
             ///< connectivity"
  gradient,  ///< RigL: the largest gradients of weights that don't exist, Evci et al. 2020, "Rigging the lottery"
};
/// "random", "gradient".
const char* name_of(Growth growth);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
Growth parse_growth(const std::string& text);
EnumNames names_of(Growth);

struct SparseTrainingOptions {
  Growth growth = Growth::gradient;
  double sparsity = 0.9;
  /// The first masks are random with these densities: Scope::erk or Scope::layer (uniform).
  AllocationOptions allocation = {.scope = Scope::erk};
  double fraction = 0.3;  ///< of a site's existing units that are dropped in the first update; then cosine-decayed to 0
  int64_t every = 100;    ///< steps between updates
  double end = 0.75;      ///< share of the training after which connections stay
  uint64_t seed = 0;      ///< of the first masks and of random growth
};
/// All but the seed; of the allocation the scope.
void fields(FieldVisitor& f, SparseTrainingOptions& o);

/// A callback that gives a network random masks before its first step and then, every few steps, drops the units with
/// the smallest |w| (sum over the unit) and lets as many others exist, starting from 0: the number of units of each
/// site never changes. Updates take place between the gradient and the step, so a new weight's first value is its first
/// step. A dropped unit may be chosen again, and goes on with its weights then. Evci et al. 2020, its
/// algorithm.
///
/// With Growth::gradient the gradients of weights that don't exist are computed in the steps of an update only. It is a
/// function of the step and the masks: a resumed training gives the same bits.
class SparseTraining : public Callback {
 public:
  /// Throws on options that make no sense, on n-of-m patterns, on masks of another pattern than the sites' (nothing
  /// can grow inside of those), and when there is no site. With masks of the same pattern the first masks are a part of
  /// them; what they removed may grow like the rest.
  SparseTraining(std::vector<Site> sites, const SparseTrainingOptions& options = {});

  /// The first masks. on_epoch_begin calls it before the first step.
  void start();
  /// One update in step `step` of `total`; the gradients of that step are there.
  void update(int64_t step, int64_t total);
  /// The share of units dropped at a step: fraction/2 * (1 + cos(pi * step/end)), Dettmers & Zettlemoyer 2019.
  double fraction_at(int64_t step, int64_t total) const;
  /// Whether step `step` updates the masks.
  bool updates_in(int64_t step, int64_t total) const;

  const std::vector<Site>& sites() const { return sites_; }
  double sparsity() const { return count_sparsity(sites_).sparsity(); }

  nlohmann::json config() const override;
  void on_epoch_begin(Trainer& trainer, int64_t epoch) override;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;
  void on_step_end(Trainer& trainer, const StepRecord& record) override;
  /// The first epochs count: the masks have their final sparsity all the time.
  bool is_settled(const Trainer&, const EpochRecord&) const override { return true; }

 private:
  int64_t end_step(int64_t total) const;
  /// By which the absent units of site i grow, the highest first.
  Tensor growth_scores(size_t i, const Tensor& absent, int64_t step) const;
  void set_flow(GradientFlow flow);

  std::vector<Site> sites_;
  SparseTrainingOptions options_;
};

}  // namespace espalier
