// Learned masks: a score for every unit, trained together with the weights; the forward pass sees the units with the
// best scores.
#pragma once

#include "core/selection.h"
#include "pruning/allocation.h"
#include "pruning/learned/transforms.h"
#include "pruning/schedules/gradual.h"
#include "training/optimizer.h"
#include "training/trainer.h"

namespace espalier {

/// Which units exist, given their scores.
enum class Selection : uint8_t {
  top_k,      ///< the best ones, as many as a sparsity leaves
  threshold,  ///< those whose score is at least a threshold
};
EnumNames names_of(Selection);
/// Scores at the start.
enum class InitialScores : uint8_t {
  zero,       ///< as movement pruning starts
  magnitude,  ///< the sum of |w| over the unit: the first masks are those of magnitude pruning
};

EnumNames names_of(InitialScores);

struct LearnedMaskOptions {
  Selection selection = Selection::top_k;
  InitialScores initial = InitialScores::zero;

  double sparsity = 0.9;  ///< top_k: at the end
  SparsityCurve curve = SparsityCurve::cubic;
  double begin = 0, end = 0.5;        ///< in which share of the training the sparsity rises
  AllocationOptions allocation = {};  ///< scope, protected sites, least number of units; threshold: the last two

  double threshold = 0;
  double penalty = 0;  ///< times the mean of sigmoid(score) is added to the loss: what makes thresholds remove anything

  /// Which weights get gradients: all (dense), as straight-through wants, or those that exist.
  GradientFlow flow = GradientFlow::dense;
  int64_t every = 10;  ///< steps between two selections
  /// The share of the training after which the masks become final (harden); the rest trains the remaining weights.
  double harden = 0.8;
};
/// All but the flow; of the allocation the scope.
void fields(FieldVisitor& f, LearnedMaskOptions& o);

/// Trains the masks of sites. While it lives, the network computes with the masked weights but the parameters keep all
/// of them; harden() makes the masks real. Give the optimiser scores() besides the network's parameters:
///
///   auto masks = std::make_shared<LearnedMasks>(net, weight_sites(*net));
///   NamedParameters all = net->named_parameters();
///   for (auto& score : masks->scores()) all.push_back(score);
///   auto optimizer = std::make_shared<Sgd>(all, SgdOptions{.lr = 0.1});
///
/// With SGD without momentum, initial zero and top_k this is movement pruning, Sanh, Wolf & Rush 2020, "Movement
/// pruning" (S = -sum of lr*g*w, for weights outside the mask too); with threshold and penalty its
/// soft variant. Frozen weights and magnitude-free scores: Ramanujan et al. 2020.
///
/// Checkpoints hold scores and masks: a resumed training gives the same bits. No epoch before hardening counts as best.
class LearnedMasks : public Callback {
 public:
  /// Throws on options that make no sense (a threshold with n of m is one).
  LearnedMasks(ModulePtr module, std::vector<Site> sites, const LearnedMaskOptions& options = {});
  LearnedMasks(const LearnedMasks&) = delete;
  LearnedMasks& operator=(const LearnedMasks&) = delete;

  /// "scores.SITE" (units) for each site.
  const NamedParameters& scores() const { return scores_; }
  /// Which units of each site the forward pass sees.
  const std::vector<std::vector<bool>>& exists() const { return exists_; }
  /// Of the sites' weights, as the forward pass sees them.
  double sparsity() const;

  /// Chooses units anew from the scores. `sparsity` counts for top_k only.
  void select(double sparsity);
  /// Sets the parameters' masks to the current ones and lets operations see the parameters again.
  void harden();
  bool is_hard() const { return hard_; }

  nlohmann::json config() const override;
  void on_epoch_begin(Trainer& trainer, int64_t epoch) override;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;
  void on_step_end(Trainer& trainer, const StepRecord& record) override;
  bool is_settled(const Trainer&, const EpochRecord&) const override { return hard_; }
  std::vector<std::pair<std::string, Tensor>> state() const override;
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state) override;

 private:
  /// Chooses and hardens as the schedule has it after `step` of `total` steps.
  void follow(int64_t step, int64_t total);
  void set_exists(std::vector<std::vector<bool>> exists);
  /// The candidates with at least the threshold, or as many of the best as have to stay; of a protected site all.
  Tensor above_threshold(const Site& site, const Candidates& candidates) const;
  void attach();

  ModulePtr module_;
  std::vector<Site> sites_;
  LearnedMaskOptions options_;
  NamedParameters scores_;
  int64_t units_ = 0;  ///< that exist, of all sites
  std::vector<std::vector<bool>> exists_;
  std::vector<std::vector<Mask>> masks_;  ///< by site and member; undefined where a member is not masked
  MemberTransforms<StraightThroughMask> transforms_;
  bool hard_ = false;
};

}  // namespace espalier
