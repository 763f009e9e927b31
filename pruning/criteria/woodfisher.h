// BrainSurgeon: scores by the inverse empirical Fisher, and the update of the weights that remain.
#pragma once

#include "pruning/criteria/criterion.h"

namespace espalier {

/// Optimal brain surgeon with the empirical Fisher in blocks. F = lambda*I + sum of g g^T / N over the gradients g of
/// single examples; its inverse is kept as it grows by Sherman-Morrison: A -= (A g)(A g)^T / (N + g^T A g), from
/// A = I/lambda, for blocks of block_size neighbouring weights of one parameter. A weight scores w^2 / (2 A_ww), what
/// removing it costs when the others of its block then move to their best.
/// Singh & Alistarh 2020, "WoodFisher"; Hassibi & Stork 1992, "Second order derivatives for network pruning:
/// optimal brain surgeon".
///
/// Not stateless: score() remembers A (8 bytes * block_size for each weight) and the weights, for update():
///   auto surgeon = std::make_shared<BrainSurgeon>();
///   Pruner pruner(net, weight_sites(*net), {.criterion = surgeon, .data = data});
///   pruner.prune(0.5);
///   surgeon->update();
class BrainSurgeon : public Criterion {
 public:
  explicit BrainSurgeon(const WoodFisherOptions& options = {});
  void fields(FieldVisitor& f) override;
  std::string name() const override { return "woodfisher"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override;

  /// Moves the weights that still exist to the minimum of the quadratic model, given that those masked since score()
  /// are 0: w_K -= A_KQ (A_QQ)^-1 w_Q in each block, Q the masked ones, all together (Kurtic et al. 2022, "The optimal
  /// BERT surgeon"), not one by one. Once for each score(), before any training: throws when the existing
  /// weights are not those that were scored, and then changes nothing. NumericError when a block is singular to
  /// rounding: take more damping.
  void update() override;
  bool has_update() const override { return true; }

 private:
  struct Scored {
    Parameter parameter;
    std::vector<double> weights;
    std::vector<double> inverse;  ///< blocks of size s x s, one after the other
  };
  void add_gradient(Scored& scored, const std::vector<double>& gradient, double share) const;
  std::vector<double> updated(const Scored& scored) const;

  WoodFisherOptions options_;
  std::vector<Scored> scored_;
};

/// Sets masks[i] on parameters[i] (an undefined one leaves it as it is) and updates the remaining weights as
/// BrainSurgeon does, with F at the weights before. Throws on a mask of another shape, and then changes nothing.
void obs_update(const std::vector<Parameter>& parameters, const std::vector<Mask>& masks, const CriterionInput& input,
                const WoodFisherOptions& options = {}, GradientFlow flow = GradientFlow::masked);

}  // namespace espalier
