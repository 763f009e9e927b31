// Differentiable operations on Variables. Same names and rules as core/ops.h. Forward and backward stand side by
// side in autograd/ops/; every operation has second derivatives unless its comment says otherwise.
#pragma once

#include "autograd/variable.h"
#include "autograd/weight_view.h"
#include "core/mask.h"
#include "core/ops.h"

namespace espalier {

// --- elementwise (ops/elementwise.cpp); broadcasting ---------------------------------------------------------------
Variable operator+(const Variable& a, const Variable& b);
Variable operator-(const Variable& a, const Variable& b);
Variable operator*(const Variable& a, const Variable& b);
Variable operator/(const Variable& a, const Variable& b);
Variable operator+(const Variable& a, double b);
Variable operator-(const Variable& a, double b);
Variable operator*(const Variable& a, double b);
Variable operator/(const Variable& a, double b);
Variable operator+(double a, const Variable& b);
Variable operator-(double a, const Variable& b);
Variable operator*(double a, const Variable& b);
Variable operator/(double a, const Variable& b);
Variable operator-(const Variable& x);
Variable abs(const Variable& x);  ///< derivative 0 at 0
Variable square(const Variable& x);
Variable sqrt(const Variable& x);
Variable exp(const Variable& x);
Variable log(const Variable& x);
Variable log1p(const Variable& x);
Variable sin(const Variable& x);
Variable cos(const Variable& x);
Variable tanh(const Variable& x);
Variable sigmoid(const Variable& x);
Variable erf(const Variable& x);
Variable pow(const Variable& x, double exponent);
Variable relu(const Variable& x);  ///< derivative 0 at 0
Variable leaky_relu(const Variable& x, double slope = 0.01);
Variable gelu(const Variable& x);                        ///< x * Phi(x), exact (erf)
Variable silu(const Variable& x);                        ///< x * sigmoid(x)
Variable softplus(const Variable& x);                    ///< log(1 + exp(x)), stable
Variable maximum(const Variable& a, const Variable& b);  ///< ties: the gradient goes to a
Variable minimum(const Variable& a, const Variable& b);
Variable clamp(const Variable& x, double low, double high);  ///< gradient 1 inside, bounds included
Variable where(const Tensor& condition, const Variable& a, const Variable& b);
/// The values of `dtype`; gradients are converted back.
Variable to(const Variable& x, DType dtype);
Variable to(const Variable& x, Device device);

// --- reductions (ops/reduce.cpp) -----------------------------------------------------------------------------------
Variable sum(const Variable& x, const Axes& axes = {}, bool keep_axes = false);
Variable mean(const Variable& x, const Axes& axes = {}, bool keep_axes = false);
Variable variance(const Variable& x, const Axes& axes = {}, bool keep_axes = false, int correction = 1);
Variable max(const Variable& x, const Axes& axes = {}, bool keep_axes = false);  ///< ties share the gradient evenly
Variable min(const Variable& x, const Axes& axes = {}, bool keep_axes = false);
Variable sum_to(const Variable& x, const Shape& shape);
Variable logsumexp(const Variable& x, int axis, bool keep_axis = false);

// --- shape (ops/shape.cpp) -----------------------------------------------------------------------------------------
Variable reshape(const Variable& x, const Shape& shape);
Variable flatten(const Variable& x, int first = 1, int last = -1);
Variable permute(const Variable& x, const std::vector<int>& axes);
Variable transpose(const Variable& x, int axis0, int axis1);
Variable slice(const Variable& x, int axis, int64_t start, int64_t end, int64_t step = 1);
Variable select(const Variable& x, int axis, int64_t index);
Variable expand(const Variable& x, const Shape& shape);
Variable squeeze(const Variable& x, int axis);
Variable unsqueeze(const Variable& x, int axis);
Variable cat(const Variables& parts, int axis);
Variable stack(const Variables& parts, int axis);
Variable pad(const Variable& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value = 0);

// --- indexing (ops/indexing.cpp) -----------------------------------------------------------------------------------
Variable gather(const Variable& x, int axis, const Tensor& index);
Variable scatter_add(const Variable& x, int axis, const Tensor& index, const Variable& values);
/// The index may be on the CPU whatever device x is on; then the graph knows which elements go where.
Variable index_select(const Variable& x, int axis, const Tensor& index);
Variable index_add(const Variable& x, int axis, const Tensor& index, const Variable& values);
/// Rows of table (V,D) for i64 ids of any shape S: (S...,D).
Variable embedding(const Variable& table, const Tensor& ids);

// --- matrix products (ops/matmul.cpp) ------------------------------------------------------------------------------
Variable matmul(const Variable& a, const Variable& b);
/// x (...,I), weight (O,I), bias (O) or undefined: x weight^T + bias, (...,O).
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

// --- convolution (ops/conv2d.cpp) ----------------------------------------------------------------------------------
/// x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F) or undefined -> (N,F,OH,OW),
/// OH = (H + 2*padding - dilation*(KH-1) - 1)/stride + 1.
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias = {}, const Conv2dShape& shape = {});
/// The gradient of conv2d with respect to x, of shape x_shape; itself differentiable.
Variable conv2d_input_grad(const Variable& dy, const Variable& weight, const Shape& x_shape, const Conv2dShape& shape);
/// The gradient of conv2d with respect to the weight, of shape weight_shape; itself differentiable. Of a weight with a
/// view it is 0 where no weights exist (weight_gradient).
Variable conv2d_weight_grad(const Variable& dy, const Variable& x, const Shape& weight_shape, const Conv2dShape& shape,
                            const WeightViewPtr& view = nullptr);

// --- pooling (ops/pool2d.cpp) --------------------------------------------------------------------------------------
Variable max_pool2d(const Variable& x, const Pool2dShape& shape);
Variable avg_pool2d(const Variable& x, const Pool2dShape& shape);
Variable adaptive_avg_pool2d(const Variable& x, int64_t out_h, int64_t out_w);

// --- normalisation (ops/normalization.cpp) -------------------------------------------------------------------------
struct BatchStats {
  Tensor mean, variance;  ///< (C), biased variance
};
/// x (N,C) or (N,C,H,W), normalised by its own batch statistics for each channel; they are stored in *stats.
Variable batch_norm(const Variable& x, const Variable& weight, const Variable& bias, double epsilon, BatchStats* stats);
/// The same with given statistics (evaluation).
Variable batch_norm_eval(const Variable& x, const Tensor& mean, const Tensor& variance, const Variable& weight,
                         const Variable& bias, double epsilon);
/// Over the last `axes` axes; weight, bias have their shape, or are undefined.
Variable layer_norm(const Variable& x, int axes, const Variable& weight, const Variable& bias, double epsilon);

// --- softmax and losses (ops/softmax.cpp, ops/losses.cpp) ----------------------------------------------------------
Variable softmax(const Variable& x, int axis = -1);
Variable log_softmax(const Variable& x, int axis = -1);

enum class Reduction : uint8_t { none, mean, sum };
struct CrossEntropyOptions {
  double label_smoothing = 0;
  Tensor class_weights = {};    ///< (C) or undefined; mean divides by the sum of the targets' weights
  int64_t ignore_index = -100;  ///< targets of this value do not count
  Reduction reduction = Reduction::mean;
};
/// logits (N,C), targets i64 (N). Throws on a target outside [0,C) that is not ignored.
Variable cross_entropy(const Variable& logits, const Tensor& targets, const CrossEntropyOptions& options = {});
/// As cross_entropy without smoothing, from log-probabilities.
Variable nll_loss(const Variable& log_probabilities, const Tensor& targets, const CrossEntropyOptions& options = {});
Variable bce_with_logits(const Variable& logits, const Variable& targets, Reduction reduction = Reduction::mean);
Variable mse_loss(const Variable& x, const Variable& y, Reduction reduction = Reduction::mean);
Variable l1_loss(const Variable& x, const Variable& y, Reduction reduction = Reduction::mean);
/// KL(p || q) = sum p (log p - log q) from log_q and log_p (N,C): summed over classes, averaged over examples.
Variable kl_divergence(const Variable& log_q, const Variable& log_p);

// --- regularisation and recurrence (ops/dropout.cpp, ops/lstm.cpp) -------------------------------------------------
/// Zeroes elements with probability p and scales the rest by 1/(1-p).
Variable dropout(const Variable& x, double p, Generator& generator = default_generator());

struct LstmStates {
  Variable output;  ///< (T,B,H)
  Variable h, c;    ///< (B,H), after each sequence's last step
};
/// One direction of one layer. x (T,B,I), h0, c0 (B,H), w_ih (4H,I), w_hh (4H,H), biases (4H) or undefined; gates
/// i,f,g,o. lengths: i64 (B) on the CPU or undefined: steps past a sequence's length leave its state and give output 0.
/// reverse: runs each sequence from its last step to its first.
LstmStates lstm(const Variable& x, const Variable& h0, const Variable& c0, const Variable& w_ih, const Variable& w_hh,
                const Variable& b_ih, const Variable& b_hh, const Tensor& lengths = {}, bool reverse = false);

// --- masks (ops/mask.cpp) ------------------------------------------------------------------------------------------
/// x where the mask's weights exist, else 0; so is its gradient. x has the mask's shape.
Variable apply_mask(const Variable& x, const Mask& mask);
/// The same with a view, which the result carries; with GradientFlow::dense x has its whole gradient.
Variable apply_mask(const Variable& x, const WeightViewPtr& view);
/// x itself, whose masked elements are 0 already, with a view that tells operations so; its gradient is 0 there too.
Variable mask_gradient(const Variable& x, const WeightViewPtr& view);
Variable mask_gradient(const Variable& x, const Mask& mask);

// --- checks (gradcheck.cpp) ----------------------------------------------------------------------------------------
struct GradcheckOptions {
  double step = 1e-6;
  double relative = 1e-5, absolute = 1e-7;
};
/// Compares backward with central differences for every element of every f64 input that requires a gradient.
/// Throws NumericError with the first disagreement (input, element, analytic, numeric); returns true otherwise.
bool gradcheck(const std::function<Variables(const Variables&)>& function, const Variables& inputs,
               const GradcheckOptions& options = {});
/// gradcheck of the gradients: checks second derivatives.
bool gradgradcheck(const std::function<Variables(const Variables&)>& function, const Variables& inputs,
                   const GradcheckOptions& options = {});

}  // namespace espalier
