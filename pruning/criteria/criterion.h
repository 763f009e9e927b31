// Criterion: how much each weight is worth. One interface; units of any pattern get the sum over their weights.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pruning/site.h"
#include "training/evaluate.h"

namespace espalier {

/// What a criterion may look at besides the weights.
struct CriterionInput {
  Module& module;
  const Dataset* data = nullptr;  ///< labelled examples, for criteria that need data or gradients
  LossFunction loss = {};         ///< default: cross-entropy
  int64_t batch_size = 128;
  int64_t batches = 8;  ///< at most; the examples are drawn in an order that depends on the seed
  uint64_t seed = 0;
  /// What will be pruned, for criteria that score whole units (their saliency is spread over the unit's weights).
  const std::vector<Site>* sites = nullptr;
};

/// Base of the criteria. Stateless unless its comment says otherwise.
class Criterion {
 public:
  virtual ~Criterion() = default;
  /// The name that make_criterion knows: "magnitude".
  virtual std::string name() const = 0;
  virtual bool needs_data() const { return false; }
  /// A saliency for every weight of `parameters`, in their shapes: higher is more worth keeping. Masked weights score 0
  /// unless the criterion says what they would be worth. Leaves weights, gradients, masks and modes as they were.
  /// Throws when it needs data and got none.
  virtual Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) = 0;
};

using CriterionPtr = std::shared_ptr<Criterion>;

/// Calls f with each batch of input.data, up to input.batches. Throws, naming the criterion, when there is no data.
void for_each_batch(const Criterion& criterion, const CriterionInput& input,
                    const std::function<void(const Batch&)>& f);

/// The mean loss of a batch, as the input defines it.
Variable loss_of(const CriterionInput& input, const Batch& batch);

/// By name; criterion_names() lists them. Throws on an unknown name, naming the nearest.
CriterionPtr make_criterion(const std::string& name);
std::vector<std::string> criterion_names();

/// Uniform random scores. The baseline that every other criterion has to beat.
CriterionPtr random_criterion();
/// |w|, so that a unit has its L1 norm. Han et al. 2015, "Learning both weights and connections"; for filters Li et al.
/// 2017.
CriterionPtr magnitude_criterion();
/// w^2, so that a unit has its squared L2 norm: twice the weight energy 1/2*sum(w^2).
CriterionPtr magnitude_l2_criterion();

}  // namespace espalier
