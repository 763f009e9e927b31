// Criterion: how much each weight is worth. One interface; units of any pattern get the sum over their weights.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/registry.h"
#include "pruning/site.h"
#include "training/evaluate.h"

namespace espalier {

class Callback;

/// What a criterion may look at besides the weights.
struct CriterionInput {
  Module& module;
  const Dataset* data = nullptr;  ///< examples and what they ask for, for criteria that need data or gradients
  LossFunction loss = {};         ///< default: batch_loss, that of the data's targets
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
  /// Its options, for recipes: core/fields.h.
  virtual void fields(FieldVisitor&) {}
  /// Throws where the criterion has nothing to say about such units of this network, naming what to use. A Pruner calls
  /// it when it is made.
  virtual void check_fits(const Module& /*module*/, const std::vector<Site>& /*sites*/) const {}
  /// The same for what only a look at the data tells; score() calls it.
  virtual void check_state(const CriterionInput& /*input*/) const {}
  /// A Pruner calls it when it is made: the network that will be scored.
  virtual void attach(const Module& /*module*/) {}
  /// The callback by which it watches a training, without which it has nothing to say; null: it scores any network as
  /// that is.
  virtual Callback* watcher() { return nullptr; }
  /// Whether update() moves weights.
  virtual bool has_update() const { return false; }
  /// Moves the weights that are left to make up for those that were masked since score(). Throws without has_update().
  virtual void update();
  /// A saliency for every weight of `parameters`, in their shapes: higher is more worth keeping. Masked weights score 0
  /// unless the criterion says what they would be worth. Leaves weights, gradients, masks and modes as they were.
  /// Throws when it needs data and got none.
  virtual Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) = 0;
};

using CriterionPtr = std::shared_ptr<Criterion>;

/// Calls f with each batch of input.data, up to input.batches. Throws, naming the criterion, when there is no data.
void for_each_batch(const Criterion& criterion, const CriterionInput& input,
                    const std::function<void(const Batch&)>& f);

/// What the network makes of a batch: its inputs in the dtype and on the device of the network's parameters.
Bundle forward_of(const CriterionInput& input, const Batch& batch);
/// The mean loss of a batch, as the input defines it.
Variable loss_of(const CriterionInput& input, const Batch& batch);

/// The criteria by name: add() your own before you name it.
Registry<CriterionPtr()>& criterion_registry();
/// By name; criterion_names() lists them. Throws on an unknown name, naming the nearest.
CriterionPtr make_criterion(const std::string& name);
/// With options: {.name = "taylor", .options = R"({"squared": false})"}. Throws on options that it doesn't have.
CriterionPtr make_criterion(const PartChoice& chosen);
/// A criterion as an option of something, with options of its own.
void criterion_field(FieldVisitor& f, PartChoice& chosen);
std::vector<std::string> criterion_names();

// --- the values of the weights (magnitude.cpp) -----------------------------------------------------------------------
/// Uniform random scores, of masked weights too. The baseline that every other criterion has to beat.
CriterionPtr random_criterion();
/// |w|, so that a unit has its L1 norm. Han et al. 2015, "Learning both weights and connections"; for filters Li et al.
/// 2017.
CriterionPtr magnitude_criterion();
/// w^2, so that a unit has its squared L2 norm: twice the weight energy 1/2*sum(w^2).
CriterionPtr magnitude_l2_criterion();
/// 1/2*w^2, so that a unit has its weight energy: the loss it costs when the Hessian is the identity.
CriterionPtr energy_criterion();
/// |w| - t with t = sigma_threshold(w, k) of the parameter: what scores below 0 lies below its layer's threshold, and
/// layers of different scale can be compared. Masked weights score 0 and don't count in t.
CriterionPtr sigma_criterion(double k = 1);
/// The threshold mean(|w|) - k*stddev(|w|) over the weights that exist (all, without a mask); stddev divides by their
/// number. k may be negative: the "quality parameter" times the standard deviation of Han et al. 2015, "Learning both
/// weights and connections", measured from the mean. Throws when there is no weight. Gives a mask directly:
/// Mask::from_threshold(w.shape(), Pattern::element(), abs(w), t).
double sigma_threshold(const Tensor& weight, double k, const Mask& mask = {});
/// 1 for each weight of a matrix or filter that exists, 0 for masked ones, biases and scales: a unit has its number of
/// connections, those of its row and, in a site with readers, of the columns that read it. Throws for sites of single
/// weights, of which each is one connection.
CriterionPtr connections_criterion();
/// w^2 / (sum of v^2 over the parameter's weights v that are at least as large): in every layer the largest weight has
/// 1, so that global pruning can't empty a layer. Of equal weights those of higher index count as larger. Lee et al.
/// 2021, "Layer-adaptive sparsity for the magnitude-based pruning", the LAMP score.
CriterionPtr lamp_criterion();

// --- gradients (gradient.cpp) ----------------------------------------------------------------------------------------
// All criteria that differentiate run the network in evaluation mode: BatchNorm uses its running statistics, dropout
// does nothing. They average over all examples drawn. Of parameters that the loss doesn't depend on the gradient is 0.

/// |g|, g the gradient of the mean loss. With GradientFlow::dense masked weights score what they would be worth to
/// have back: the growth criterion of RigL, Evci et al. 2020.
CriterionPtr gradient_criterion();

struct TaylorOptions {
  /// (g*w)^2, Molchanov et al. 2019; else |g*w|, Molchanov et al. 2017.
  bool squared = true;
};
/// First-order Taylor expansion of the loss change, with the gradient g of one batch, averaged over the batches:
/// (g*w)^2, Molchanov et al. 2019, "Importance estimation for neural network pruning", to first order; or |g*w|,
/// Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", here for weights
/// where the paper has feature maps. A unit has the sum over its weights.
CriterionPtr taylor_criterion(const TaylorOptions& options = {});

// --- at initialisation (initialization.cpp) --------------------------------------------------------------------------
/// |g*w| with the gradient g of the mean loss over all examples drawn, divided by the sum over all parameters. Lee et
/// al. 2019, "SNIP: single-shot network pruning based on connection sensitivity".
CriterionPtr snip_criterion();
/// w*(H g), H the Hessian and g the gradient of the mean loss: the paper scores -w*(H g) and removes the highest, here
/// the sign is turned, so that the lowest goes, as everywhere. To first order removing w adds -2*w*(H g) to |g|^2: low
/// (negative) scores are weights whose removal makes the gradient flow more. Without the paper's temperature. Wang et
/// al. 2020, "Picking winning tickets before training by preserving gradient flow" (GraSP). Where a training has ended
/// the gradient is next to nothing and has no flow to preserve: throws for a network whose loss on the examples is
/// below half of that of guessing: of the cross-entropy ln(classes), of squared errors the variance of the targets.
CriterionPtr grasp_criterion();
/// |w| * dR/d|w|, with R the sum of all outputs for an input of ones when every weight is replaced by its absolute
/// value, biases are 0 and BatchNorm only scales by |weight|. No example is looked at: the shape of an input, such as
/// an `image` (C,H,W), is all it needs; left empty, it is taken from the data, whose inputs must be floats (lengths are
/// the longest). Works in double precision on a copy of the module (so the module must be one
/// that clone() can copy) and gives f64. Prune in many rounds, or layers collapse. Tanaka et al. 2020, "Pruning neural
/// networks without any data by iteratively conserving synaptic flow". Throws NumericError on overflow.
CriterionPtr synflow_criterion(const Shape& image = {});

// --- curvature (curvature.cpp; woodfisher.h has the criterion that also updates weights)
// ------------------------------
enum class HessianDiagonal : uint8_t {
  hutchinson,        ///< mean of z*(Hz) over random signs z with exact Hessian-vector products, Bekas et al. 2007
  empirical_fisher,  ///< mean of the squared gradients of single examples, with their true labels
};
struct ObdOptions {
  HessianDiagonal diagonal = HessianDiagonal::hutchinson;
  int64_t probes = 8;  ///< of each batch; Hutchinson only
};
/// 1/2*h*w^2, h the diagonal of the Hessian of the mean loss: the loss that removing w costs at a minimum. Estimates by
/// Hutchinson may be negative (saddle points, few probes); they are left as they are. LeCun et al. 1990, "Optimal brain
/// damage". "obd", and with the empirical Fisher "fisher": Theis et al. 2018, "Faster gaze prediction with dense
/// networks and Fisher pruning".
CriterionPtr obd_criterion(const ObdOptions& options = {});

struct WoodFisherOptions {
  int64_t block_size = 32;     ///< weights, in row-major order, whose interactions count
  double damping = 1e-5;       ///< lambda: F = lambda*I + mean of g g^T
  int64_t gradient_batch = 1;  ///< examples averaged in one gradient g: more is faster and less exact
};
/// w^2 / (2*[F^-1]_ww) with the empirical Fisher F in blocks: see BrainSurgeon in woodfisher.h, which this makes.
CriterionPtr woodfisher_criterion(const WoodFisherOptions& options = {});

// --- activations (activation.cpp, feature_rank.cpp) ------------------------------------------------------------------
struct WandaOptions {
  /// In place of the score its rank in its row, in (0,1]: the same share of every row goes, as in the paper.
  bool per_row = false;
};
/// |w| * ||x||_2, x all values of the input feature (convolution: input channel, over all pixels) that w is multiplied
/// with. Sees inputs of Linear, Conv2d and LSTM (for weight_hh the hidden states; initial states are taken to be 0, and
/// all sequences full). Biases and scales score 0; throws for other weights, and for layers that aren't called with ().
/// Sun et al. 2024, "A simple and effective pruning approach for large language models" (Wanda).
CriterionPtr wanda_criterion(const WandaOptions& options = {});

// --- whole units -----------------------------------------------------------------------------------------------------
// These judge a unit (a filter or neuron: a row of a weight) by what it is as a whole. Its score is laid on weights so
// that their sum gives it back. Without sites: evenly on the existing weights of each row of each weight. With sites,
// for each site: the producing members (masked, pattern channel 0, two axes or more) are judged and a unit has the sum;
// it lies on the unit's bias or BatchNorm weight where the site has one (all other members score 0), because the rows
// of one site are the readers of another, which would count them; else on the producers' rows. They throw for a site
// without a producing member, and for sites of single weights, blocks or kernels: in a filter all would score the same.

/// |weight| of BatchNorm: a unit has the sum over the BatchNorms in its site. Other parameters score 0; throws for a
/// site without one. Liu et al. 2017, "Learning efficient convolutional networks through network slimming";
/// SlimmingPenalty in slimming.h makes the scales sparse in training.
CriterionPtr bn_scale_criterion();
/// The sum of the Euclidean distances from a filter to all others of its layer that exist: small near the geometric
/// median, where others can stand in for it. An LSTM's unit is judged by its rows of weight_ih. He et al. 2019, "Filter
/// pruning via geometric median".
CriterionPtr fpgm_criterion();
/// 1 - APoZ: the share of a unit's activations that are above 0, over examples and pixels. The activation is max(0, z),
/// z the output of the Linear or Conv2d, or of the BatchNorm that is called on this output. Hu et al. 2016, "Network
/// trimming", the average percentage of zeros. Throws for LSTMs, which have no ReLU.
CriterionPtr apoz_criterion();
struct HRankOptions {
  double tolerance = 1e-6;  ///< relative, for each row or column of a map: see matrix_rank (core/linalg.h)
};
/// How strongly the loss reacts to a unit: the sum over examples and positions of |dL/dz|, L the loss of the example, z
/// the unit's output before its activation (that of the BatchNorm where one is called on the layer). Throws for LSTMs.
CriterionPtr unit_gradient_criterion();
/// The mean rank of the feature maps max(0, z) (z as for apoz) over the examples; 1 x 1 maps of a Linear have rank 0 or
/// 1. Lin et al. 2020, "HRank: filter pruning using high-rank feature map".
CriterionPtr hrank_criterion(const HRankOptions& options = {});

}  // namespace espalier
