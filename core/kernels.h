// The kernel contract: what a backend provides. Each device has one explicit table of these functions
// (core/cpu/table.cpp, cuda/table.cpp); everything above core/ reaches kernels only through kernels(device).
//
// What holds for every kernel:
//  - The caller has checked shapes, dtypes and devices, and has allocated `out`.
//  - `out` may hold anything on entry (NaN in tests) and is assigned completely, unless the comment says
//    "accumulates". `out` never overlaps an input, except that elementwise kernels may work in place.
//  - Inputs may have any strides, unless the comment says "contiguous"; then all tensors of the call are.
//  - f32 is the fast path, f64 the reference; other dtypes where the comment lists them.
//  - Sums have a fixed order: the same inputs and thread count give the same bits.
//
// A kernel is added in four places: its field in Kernels, its name in ESPALIER_KERNELS, core/cpu/x.cpp and cuda/x.cu.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "core/mask.h"
#include "core/random.h"
#include "core/ranks.h"
#include "core/tensor.h"

namespace espalier {

enum class UnaryOp : uint8_t {
  neg,
  abs,
  sign,
  square,
  sqrt,
  rsqrt,
  reciprocal,
  exp,
  log,
  log1p,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  relu,
  floor,
  round,
  logical_not,  ///< bool -> bool
  isnan,        ///< -> bool
};

enum class BinaryOp : uint8_t {
  add,
  sub,
  mul,
  div,
  pow,
  maximum,
  minimum,
  relu_grad,  ///< a > 0 ? b : 0, with a the input (or output) of relu and b its output's gradient
  logical_and,
  logical_or,
  logical_xor,  ///< bool x bool -> bool
};

enum class CompareOp : uint8_t { eq, ne, lt, le, gt, ge };

enum class ReduceOp : uint8_t { sum, prod, max, min, any, all };

/// Geometry of a 2-D convolution. x (N,C,H,W), w (F,C/groups,KH,KW), y (N,F,OH,OW).
struct Conv2dShape {
  int64_t stride_h = 1, stride_w = 1;
  int64_t padding_h = 0, padding_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
};

/// Geometry of a 2-D pooling window. x (N,C,H,W), y (N,C,OH,OW).
struct Pool2dShape {
  int64_t kernel_h = 2, kernel_w = 2;
  int64_t stride_h = 2, stride_w = 2;
  int64_t padding_h = 0, padding_w = 0;
};

/// Update rules of the optimisers.
struct SgdUpdate {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, first_step;  ///< first_step: the velocity starts as the gradient, as in PyTorch
};
struct AdamUpdate {
  double lr, beta1, beta2, epsilon, weight_decay;
  bool decoupled;  ///< AdamW: the decay multiplies the weight instead of joining the gradient
  int64_t step;    ///< 1 for the first step
};
struct RmspropUpdate {
  double lr, alpha, epsilon, weight_decay, momentum;
};

/// The approximation of KL(q || log-uniform prior) of sparse variational dropout (Molchanov et al. 2017, equation 14):
/// -KL = k1 sigmoid(k2 + k3 log alpha) - log(1 + 1/alpha)/2 - k1.
struct KlApproximation {
  static constexpr double kK1 = 0.63576, kK2 = 1.87320, kK3 = 1.48695;
};

/// What an optimiser's step does to one parameter. All tensors are contiguous and of one shape, dtype and device.
/// `grad` is never written: weight decay goes into the update, so that saliency read later is that of the loss.
struct ParameterStep {
  Tensor grad, weight;
  Tensor first, second;  ///< state, undefined where the rule keeps none: velocity; m, v; or v, velocity
  Mask mask;             ///< if defined: the weights it masks are 0 after the step, their gradients count as 0
};

struct Kernels {
  const char* name;  ///< "cpu", "cuda"

  // --- elementwise (elementwise). All operands have out's shape (broadcast by stride 0). -----------------------
  void (*fill)(Tensor& out, double value);                  ///< any dtype
  void (*copy)(const Tensor& x, Tensor& out);               ///< any dtype to any dtype; nonzero -> true
  void (*unary)(UnaryOp op, const Tensor& x, Tensor& out);  ///< f32, f64; neg abs sign square relu: i64, i32 too
  void (*binary)(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out);                 ///< f32 f64 i64 i32
  void (*binary_scalar)(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out);  ///< reversed: b op a
  void (*compare)(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out);               ///< any dtype -> bool
  void (*where)(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out);      ///< any dtype
  void (*clamp)(const Tensor& x, double low, double high, Tensor& out);  ///< f32 f64 i64 i32; NaN stays NaN
  void (*axpy)(double alpha, const Tensor& x, Tensor& out);              ///< accumulates: out += alpha * x; f32 f64

  // --- reductions (reduce). out has x's rank, with size 1 on the reduced axes. ---------------------------------
  void (*reduce)(ReduceOp op, const Tensor& x, const std::vector<bool>& axes, Tensor& out);  ///< any: any, all: bool
  void (*arg_reduce)(bool maximum, const Tensor& x, int axis, Tensor& out);  ///< i64 index of the first; NaN wins

  // --- matrix products (gemm) ----------------------------------------------------------------------------------
  /// (B,M,K)(B,K,N) -> (B,M,N), out contiguous. The last two axes of a, b may be transposed views; batch
  /// strides may be 0. accumulate: out += a b.
  void (*matmul)(const Tensor& a, const Tensor& b, bool accumulate, Tensor& out);

  // --- indexing (indexing). index is i64; any dtype for values; out of range throws and names the index. -------
  void (*gather)(const Tensor& x, int axis, const Tensor& index, Tensor& out);            ///< out, index: one shape
  void (*scatter)(Tensor& out, int axis, const Tensor& index, const Tensor& values);      ///< assigns; last one wins
  void (*scatter_add)(Tensor& out, int axis, const Tensor& index, const Tensor& values);  ///< accumulates, in order
  void (*index_select)(const Tensor& x, int axis, const Tensor& index, Tensor& out);      ///< index of rank 1
  void (*index_add)(Tensor& out, int axis, const Tensor& index, const Tensor& values);    ///< accumulates, in order

  // --- order (sort). Along one axis; stable; NaN counts as the largest value. f32 f64 i64 i32 ------------------
  void (*sort)(const Tensor& x, int axis, bool descending, Tensor& values, Tensor& index);
  /// The k largest (or smallest), in order; ties: the lower index first.
  void (*topk)(const Tensor& x, int axis, int64_t k, bool largest, Tensor& values, Tensor& index);

  // --- random numbers (random). Value i comes from word i%4 of block state.offset + i/4, in row-major order. ---
  void (*uniform)(const PhiloxState& state, double low, double high, Tensor& out);
  void (*normal)(const PhiloxState& state, double mean, double stddev, Tensor& out);
  void (*bernoulli)(const PhiloxState& state, double p, Tensor& out);

  // --- convolution (conv2d). Contiguous. bias may be undefined. ------------------------------------------------
  void (*conv2d)(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dShape& shape, Tensor& y);
  void (*conv2d_input_grad)(const Tensor& dy, const Tensor& w, const Conv2dShape& shape, Tensor& dx);
  void (*conv2d_weight_grad)(const Tensor& dy, const Tensor& x, const Conv2dShape& shape, Tensor& dw);

  // --- pooling (pool2d). Contiguous. index (i64, y's shape): h*W + w of the winner; the first on ties. ---------
  void (*max_pool2d)(const Tensor& x, const Pool2dShape& shape, Tensor& y, Tensor& index);
  void (*max_pool2d_grad)(const Tensor& dy, const Tensor& index, Tensor& dx);  ///< dx (N,C,H,W)
  void (*avg_pool2d)(const Tensor& x, const Pool2dShape& shape, Tensor& y);    ///< padding counts as zeros
  void (*avg_pool2d_grad)(const Tensor& dy, const Pool2dShape& shape, Tensor& dx);
  /// Window i of O covers floor(i*H/O) .. ceil((i+1)*H/O); O is y's size.
  void (*adaptive_avg_pool2d)(const Tensor& x, Tensor& y);
  void (*adaptive_avg_pool2d_grad)(const Tensor& dy, Tensor& dx);

  // --- normalisation (normalization). Contiguous. x is seen as (N,C,S): statistics over N and S for each C. ----
  /// mean, variance (C): biased batch statistics. inv_std (C): 1/sqrt(variance + epsilon).
  void (*batch_norm_stats)(const Tensor& x, double epsilon, Tensor& mean, Tensor& variance, Tensor& inv_std);
  /// Running statistics take in a batch's, in place: running += momentum*(batch - running), where the variance counts
  /// `unbias` times; batches (i64 scalar) += 1. All others (C).
  void (*batch_norm_track)(const Tensor& mean, const Tensor& variance, double momentum, double unbias,
                           Tensor& running_mean, Tensor& running_var, Tensor& batches);
  /// y = (x - mean) * inv_std * weight + bias; weight, bias may be undefined (1, 0). All of them (C).
  void (*batch_norm)(const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight,
                     const Tensor& bias, Tensor& y);
  /// Gradients through the batch statistics (Ioffe & Szegedy 2015, section 3); dweight, dbias (C) are always written.
  void (*batch_norm_grad)(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& inv_std,
                          const Tensor& weight, Tensor& dx, Tensor& dweight, Tensor& dbias);

  // --- softmax (softmax). Contiguous, over the last axis. ------------------------------------------------------
  void (*softmax)(const Tensor& x, bool log, Tensor& y);
  /// From the output y: softmax: y*(dy - sum(dy*y)); log-softmax: dy - exp(y)*sum(dy).
  void (*softmax_grad)(const Tensor& dy, const Tensor& y, bool log, Tensor& dx);

  // --- LSTM (lstm). Contiguous; gate order i, f, g, o as in PyTorch. -------------------------------------------
  /// One step, pointwise: gates (B,4H) before activation on entry, after activation on return (in place);
  /// c = f*c_prev + i*g; h = o*tanh(c). c_prev, c, h (B,H).
  void (*lstm_cell)(Tensor& gates, const Tensor& c_prev, Tensor& c, Tensor& h);
  /// gates: activated. dh, dc: gradients of h and c. dgates: of the gates before activation. dc_prev (B,H).
  void (*lstm_cell_grad)(const Tensor& gates, const Tensor& c_prev, const Tensor& c, const Tensor& dh, const Tensor& dc,
                         Tensor& dgates, Tensor& dc_prev);

  // --- optimisers (optimizer). Accumulate into weight and state of many parameters in one call. ----------------
  void (*sgd)(const SgdUpdate& update, std::span<const ParameterStep> parameters);  ///< velocity: with momentum
  void (*adam)(const AdamUpdate& update, std::span<const ParameterStep> parameters);
  void (*rmsprop)(const RmspropUpdate& update, std::span<const ParameterStep> parameters);

  // --- sparse variational dropout (variational). Contiguous, of one shape. -------------------------------------------
  /// log sigma^2 - log(weight^2 + 1e-8), clipped to [-8, 8].
  void (*log_alpha)(const Tensor& weight, const Tensor& log_sigma2, Tensor& out);
  /// Gradients of the weight and of log sigma^2, of variance = exp(log_alpha) weight^2, whose gradient is dy.
  void (*variance_grad)(const Tensor& dy, const Tensor& weight, const Tensor& log_alpha, const Tensor& variance,
                        Tensor& dw, Tensor& ds);
  /// sample = mean + sqrt(variance + 1e-8) * noise; noise becomes d(sample)/d(variance).
  void (*gaussian_sample)(const Tensor& mean, const Tensor& variance, Tensor& noise, Tensor& sample);
  /// Accumulates scale * the gradients of the sum of KlApproximation.
  void (*variational_kl_grad)(double scale, const Tensor& weight, const Tensor& log_alpha, Tensor& dw, Tensor& ds);

  // --- masks (mask). Contiguous. x f32, f64 in the layout's shape; words: i64, one bit for each unit, 64 a word, the
  // --- lowest bit first; bits behind the last unit are 0. ------------------------------------------------------------
  /// In place: x = 0 where the weight's unit does not exist.
  void (*apply_mask)(const MaskLayout& layout, const Tensor& words, Tensor& x);
  /// sums (f64, one for each unit): of its elements in row-major order, the first to the last.
  void (*sum_over_units)(const MaskLayout& layout, const Tensor& x, Tensor& sums);
  void (*combine_bits)(BitOp op, const Tensor& a, const Tensor& b, Tensor& out);  ///< words; may work in place
  void (*count_bits)(const Tensor& words, Tensor& count);                         ///< count: i64, one element

  // --- selection (selection). Contiguous. scores: f32, f64, one for each bit of `words`. -------------------------
  /// words: whether ranks(score) op rank. A NaN compares as it does in C++.
  void (*compare_ranks)(CompareOp op, const Tensor& scores, const Ranks& ranks, double rank, Tensor& words);
  /// counts (i64, RankBins::kCount): the ranks in each bin, of the units whose bit is set.
  void (*count_ranks)(const Tensor& scores, const Tensor& words, const Ranks& ranks, const RankBins& bins,
                      Tensor& counts);
  /// words: the n highest of every m scores; of equal ones the lower index. No NaN.
  void (*best_of_groups)(const Tensor& scores, int64_t n, int64_t m, Tensor& words);
  /// sums (f64, one for each word): of |score| where the bit is set. 64 terms become 32 by adding term i + 32 to term
  /// i, these become 16, and so on.
  void (*sum_sizes)(const Tensor& scores, const Tensor& words, Tensor& sums);
};

/// All kernels in their order above, for what treats them alike: each backend's declarations and its table.
// clang-format off
#define ESPALIER_KERNELS(KERNEL) \
  KERNEL(fill) KERNEL(copy) KERNEL(unary) KERNEL(binary) KERNEL(binary_scalar) KERNEL(compare) KERNEL(where) \
  KERNEL(clamp) KERNEL(axpy) \
  KERNEL(reduce) KERNEL(arg_reduce) KERNEL(matmul) \
  KERNEL(gather) KERNEL(scatter) KERNEL(scatter_add) KERNEL(index_select) KERNEL(index_add) KERNEL(sort) \
  KERNEL(topk) \
  KERNEL(uniform) KERNEL(normal) KERNEL(bernoulli) \
  KERNEL(conv2d) KERNEL(conv2d_input_grad) KERNEL(conv2d_weight_grad) \
  KERNEL(max_pool2d) KERNEL(max_pool2d_grad) KERNEL(avg_pool2d) KERNEL(avg_pool2d_grad) \
  KERNEL(adaptive_avg_pool2d) KERNEL(adaptive_avg_pool2d_grad) \
  KERNEL(batch_norm_stats) KERNEL(batch_norm_track) KERNEL(batch_norm) KERNEL(batch_norm_grad) \
  KERNEL(softmax) KERNEL(softmax_grad) KERNEL(lstm_cell) KERNEL(lstm_cell_grad) \
  KERNEL(sgd) KERNEL(adam) KERNEL(rmsprop) \
  KERNEL(log_alpha) KERNEL(variance_grad) KERNEL(gaussian_sample) KERNEL(variational_kl_grad) \
  KERNEL(apply_mask) KERNEL(sum_over_units) KERNEL(combine_bits) KERNEL(count_bits) \
  KERNEL(compare_ranks) KERNEL(count_ranks) KERNEL(best_of_groups) KERNEL(sum_sizes)
// clang-format on

/// The function that implements a kernel: `KernelFunction<decltype(Kernels::fill)> fill;` declares one.
template <class Pointer>
using KernelFunction = std::remove_pointer_t<Pointer>;

/// The kernels of a device. Throws UnavailableError when the build or the machine has no such backend.
const Kernels& kernels(Device device);

/// Waits until the device has done all it was asked for, for timing; throws what its kernels could not say earlier.
void synchronize(Device device);
/// Copies between devices or within one. `from` may change once this returns; what `to` holds is seen by later kernels
/// of its device, and by the host at once.
void device_copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
/// What device_copy has brought from devices to the host so far: each copy makes the host wait for the device.
uint64_t bytes_copied_to_host();

namespace cpu {
const Kernels& table();
}
namespace cuda {
// Implemented by the CUDA backend, or by cuda/unavailable.cpp, whose functions throw a clear error.
const Kernels& table();
bool is_available();
std::string why_unavailable();
/// Lines about the backend for people: versions, and each device with its memory.
std::vector<std::string> describe_devices();

/// Memory from a device's stream-ordered pool; nullptr when there is none left.
void* allocate(int index, size_t bytes);
void deallocate(int index, void* pointer);
/// Gives what the pool keeps for reuse back to the driver.
void release(int index);
struct PoolStats {
  uint64_t used = 0, reserved = 0;  ///< bytes handed out, bytes taken from the driver
  size_t device_free = 0, device_total = 0;
};
PoolStats pool_stats(int index);

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
/// Waits for the device and throws what its kernels could not.
void synchronize(int index);
}  // namespace cuda

}  // namespace espalier
