// The arithmetic of sparse variational dropout, one pass over the memory for each operation.
//
// A weight has a mean w and a variance sigma^2 = alpha w^2; log alpha = log sigma^2 - log(w^2 + 1e-8), clipped to
// [-8, 8]. Molchanov, Ashukha & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
// f32 or f64; first derivatives only.
#pragma once

#include "autograd/variable.h"

namespace espalier {

/// log alpha of every weight, clipped to [-8, 8], in the weights' shape.
Tensor log_alpha_of(const Tensor& weight, const Tensor& log_sigma2);

/// The variance alpha w^2 of every weight. Where log alpha is clipped, log sigma^2 has no gradient.
Variable variational_variance(const Variable& weight, const Variable& log_sigma2);

/// A draw from N(mean, variance), elementwise, differentiable in both (Kingma, Salimans & Welling 2015).
/// The noise comes from the default generator.
Variable gaussian_sample(const Variable& mean, const Variable& variance);

/// The sum over the weights of KL(q || log-uniform prior) in the approximation of Molchanov et al. 2017:
/// -KL = k1 sigmoid(k2 + k3 log alpha) - log(1 + 1/alpha)/2 - k1. A scalar of the weights' type.
Variable variational_kl(const Variable& weight, const Variable& log_sigma2);

/// Adds scale * the gradients of variational_kl to the gradients of two leaves, without building a graph.
void add_variational_kl_gradient(Variable weight, Variable log_sigma2, double scale);

}  // namespace espalier
