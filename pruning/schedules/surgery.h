// Dynamic network surgery: weights are cut when they get small, and spliced back when they turn out to matter.
#pragma once

#include <map>
#include <string>

#include "pruning/learned/transforms.h"
#include "pruning/site.h"
#include "training/trainer.h"

namespace espalier {

class FieldVisitor;

struct SurgeryOptions {
  /// c of the thresholds a = low * max(mean + c*stddev, 0) and b = high * max(mean + c*stddev, 0) of each site: the
  /// higher, the fewer weights stay.
  double c = 1;
  std::map<std::string, double> c_of = {};  ///< of single sites; names may end in '*'
  double low = 0.9, high = 1.1;
  int64_t min_units = 1;  ///< what every site keeps, if it had as many, whatever its threshold
  /// The masks are updated in step i with the probability (1 + gamma*i)^-power.
  double gamma = 1e-4, power = 1;
  double begin = 0;     ///< share of the training after which surgery begins
  double harden = 0.7;  ///< share after which the masks are final; the rest trains the remaining weights
  uint64_t seed = 0;    ///< of the choice of steps
};
/// All but the seed and min_units.
void fields(FieldVisitor& f, SurgeryOptions& o);

/// Cuts units whose |w| (mean over the unit) is below a and splices those above b, while all weights, the cut ones too,
/// go on learning from the gradient of what the network computes with the remaining ones. Mean and standard deviation
/// are those of the |w| of the units that exist when surgery begins; weights masked before count in no mean. Guo, Yao &
/// Chen 2016, "Dynamic network surgery for efficient DNNs", with its probability of updates and its two thresholds.
///
/// Until the masks are final the parameters hold all weights and have no masks, the network computes with the masked
/// ones. Checkpoints hold masks and thresholds: a resumed training gives the same bits. No epoch before the final masks
/// counts as best.
class NetworkSurgery : public Callback {
 public:
  /// Throws on options that make no sense, on n-of-m patterns, and when a parameter belongs to two sites.
  explicit NetworkSurgery(std::vector<Site> sites, const SurgeryOptions& options = {});
  NetworkSurgery(const NetworkSurgery&) = delete;
  NetworkSurgery& operator=(const NetworkSurgery&) = delete;

  /// One update of all masks by the current weights.
  void update();
  /// Sets the parameters' masks to the current ones and lets operations see the parameters again.
  void harden();
  bool is_hard() const { return hard_; }

  /// Which units of each site the forward pass sees.
  const std::vector<std::vector<bool>>& exists() const { return exists_; }
  /// Of the sites' weights, as the forward pass sees them.
  double sparsity() const;
  /// mean + c*stddev of each site, at least 0; empty before surgery began.
  const std::vector<double>& thresholds() const { return thresholds_; }

  nlohmann::json config() const override;
  void on_step_end(Trainer& trainer, const StepRecord& record) override;
  bool is_settled(const Trainer&, const EpochRecord&) const override { return hard_; }
  std::vector<std::pair<std::string, Tensor>> state() const override;
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state) override;

 private:
  /// Mean |w| of each unit of a site, over its weights that exist; 0 for a unit without any.
  std::vector<double> magnitudes(const Site& site) const;
  /// max(mean + c*stddev, 0) of a site's existing units; `values`: its magnitudes.
  double threshold_of(const Site& site, const std::vector<double>& values) const;
  void set_exists(std::vector<std::vector<bool>> exists);
  void attach();

  std::vector<Site> sites_;
  SurgeryOptions options_;
  std::vector<double> thresholds_;
  std::vector<std::vector<bool>> exists_;
  std::vector<std::vector<Mask>> masks_;  ///< by site and member; undefined where a member is not masked
  MemberTransforms<StraightThroughMask> transforms_;
  bool hard_ = false;
};

}  // namespace espalier
