#include "autograd/ops.h"

namespace espalier {

Variable dropout(const Variable& x, double p, Generator& generator) {
  check(p >= 0 && p < 1, "dropout", "expected a probability in [0,1), got {}", p);
  if (p == 0) return x;
  Tensor kept = Tensor::empty(x.shape(), x.dtype(), x.device());
  bernoulli_(kept, 1 - p, generator);
  return x * Variable(kept * (1 / (1 - p)));
}

}  // namespace espalier
