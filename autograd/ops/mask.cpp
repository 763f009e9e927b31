#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier {

Variable apply_mask(const Variable& x, const Mask& mask) {
  return record("apply_mask", mask.apply(x.data().contiguous()), {x},
                [mask](const BackwardContext& c) -> Variables { return {apply_mask(c.grad(), mask)}; });
}

Variable mask_gradient(const Variable& x, const Mask& mask) {
  check(x.shape() == mask.shape(), "mask_gradient", "expected the mask's shape {}, got {}", mask.shape(), x.shape());
  return record("mask_gradient", x.data(), {x}, [mask](const BackwardContext& c) -> Variables {
    if (grad_enabled()) return {apply_mask(c.grad(), mask)};
    Tensor gradient = c.take_grad();
    mask.apply_(gradient);
    return {gradient};
  });
}

}  // namespace espalier
