#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

constexpr Operation kApplyMask{"apply_mask", axes::elementwise}, kMaskGradient{"mask_gradient", axes::elementwise};

bool is_masked_by(const Variable& x, const Mask& mask) {
  const WeightViewPtr& view = x.weight_view();
  return view && view->mask.version() == mask.version();
}

}  // namespace

Variable apply_mask(const Variable& x, const Mask& mask) {
  return record(kApplyMask, mask.apply(x.data().contiguous()), {x},
                [mask](const BackwardContext& c) -> Variables { return {apply_mask(c.grad(), mask)}; });
}

Variable apply_mask(const Variable& x, const WeightViewPtr& view) {
  const Mask& mask = view->mask;
  const bool is_dense = view->flow == GradientFlow::dense;
  Variable y = record(kApplyMask, mask.apply(x.data().contiguous()), {x},
                      [mask, is_dense](const BackwardContext& c) -> Variables {
                        if (is_dense || is_masked_by(c.grad(), mask)) return {c.pass_grad()};
                        return {apply_mask(c.grad(), mask)};
                      });
  y.set_weight_view(view);
  return y;
}

Variable mask_gradient(const Variable& x, const WeightViewPtr& view) {
  const Mask& mask = view->mask;
  check(x.shape() == mask.shape(), "mask_gradient", "expected the mask's shape {}, got {}", mask.shape(), x.shape());
  Variable y = record(kMaskGradient, x.data(), {x}, [mask](const BackwardContext& c) -> Variables {
    if (is_masked_by(c.grad(), mask)) return {c.pass_grad()};  // the operation has done it
    if (grad_enabled()) return {apply_mask(c.grad(), mask)};
    Tensor gradient = c.take_grad();
    mask.apply_(gradient);
    return {gradient};
  });
  y.set_weight_view(view);
  return y;
}

Variable mask_gradient(const Variable& x, const Mask& mask) {
  return mask_gradient(x, std::make_shared<const WeightView>(WeightView{mask}));
}

}  // namespace espalier
