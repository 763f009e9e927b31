#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// As matrices: rank 1 is a row on the left of a product.
Variable as_row(const Variable& x) { return x.rank() == 1 ? unsqueeze(x, 0) : x; }
Variable as_column(const Variable& x) { return x.rank() == 1 ? unsqueeze(x, 1) : x; }

}  // namespace

Variable matmul(const Variable& a, const Variable& b) {
  return record("matmul", matmul(a.data(), b.data()), {a, b}, [x = Saved(a), y = Saved(b)](const BackwardContext& c) {
    const Variable &u = x.unpack(c), &v = y.unpack(c);
    const Variable left = as_row(u), right = as_column(v);  // (...,M,K) (...,K,N)
    Variable dy = c.grad();                                 // (...,M,N)
    if (v.rank() == 1) dy = unsqueeze(dy, -1);
    if (u.rank() == 1) dy = unsqueeze(dy, -2);
    Variables grads(2);
    // (...,M,N)(...,K,N)^T -> (...,M,K)
    if (c.needs(0)) {
      grads[0] = reshape(sum_to(matmul(dy, transpose(right, -1, -2)), left.shape()), u.shape());
    }
    // (...,M,K)^T(...,M,N) -> (...,K,N)
    if (c.needs(1)) {
      grads[1] = reshape(sum_to(matmul(transpose(left, -1, -2), dy), right.shape()), v.shape());
    }
    return grads;
  });
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  check(weight.rank() == 2, "linear", "expected a weight (O,I), got shape {}", weight.shape());
  check(x.rank() >= 1 && x.size(-1) == weight.size(1), "linear",
        "expected {} input features as in the weight, got {}: shapes {} and {}", weight.size(1),
        x.rank() ? x.size(-1) : 0, x.shape(), weight.shape());
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)}, "linear", "expected a bias of shape ({}), got {}",
        weight.size(0), bias.defined() ? bias.shape() : Shape{});
  Shape shape = x.shape();
  shape[shape.rank() - 1] = weight.size(0);
  // As one product of matrices: (N,I)(O,I)^T -> (N,O).
  const Variable y = matmul(reshape(x, {-1, weight.size(1)}), transpose(weight, 0, 1));
  return reshape(bias.defined() ? y + bias : y, shape);
}

}  // namespace espalier
