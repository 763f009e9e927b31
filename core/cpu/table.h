// Every CPU kernel by name, one function for each field of Kernels (core/kernels.h holds their contracts).
// table.cpp lists them; the comment above a group names the file that implements it.
#pragma once

#include "core/kernels.h"

namespace espalier::cpu {

// copy.cpp
void fill(Tensor& out, double value);
void copy(const Tensor& x, Tensor& out);
void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out);

// elementwise.cpp
void unary(UnaryOp op, const Tensor& x, Tensor& out);
void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out);
void binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out);
void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out);
void clamp(const Tensor& x, double low, double high, Tensor& out);
void axpy(double alpha, const Tensor& x, Tensor& out);

// reduce.cpp
void reduce(ReduceOp op, const Tensor& x, const std::vector<bool>& axes, Tensor& out);
void arg_reduce(bool maximum, const Tensor& x, int axis, Tensor& out);

// gemm.cpp
void matmul(const Tensor& a, const Tensor& b, bool accumulate, Tensor& out);

// indexing.cpp
void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out);
void scatter(Tensor& out, int axis, const Tensor& index, const Tensor& values);
void scatter_add(Tensor& out, int axis, const Tensor& index, const Tensor& values);
void index_select(const Tensor& x, int axis, const Tensor& index, Tensor& out);
void index_add(Tensor& out, int axis, const Tensor& index, const Tensor& values);

// sort.cpp
void sort(const Tensor& x, int axis, bool descending, Tensor& values, Tensor& index);
void topk(const Tensor& x, int axis, int64_t k, bool largest, Tensor& values, Tensor& index);

// random.cpp
void uniform(const PhiloxState& state, double low, double high, Tensor& out);
void normal(const PhiloxState& state, double mean, double stddev, Tensor& out);
void bernoulli(const PhiloxState& state, double p, Tensor& out);

// conv2d.cpp
void conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dShape& shape, Tensor& y);
void conv2d_input_grad(const Tensor& dy, const Tensor& w, const Conv2dShape& shape, Tensor& dx);
void conv2d_weight_grad(const Tensor& dy, const Tensor& x, const Conv2dShape& shape, Tensor& dw);

// pool2d.cpp
void max_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y, Tensor& index);
void max_pool2d_grad(const Tensor& dy, const Tensor& index, Tensor& dx);
void avg_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y);
void avg_pool2d_grad(const Tensor& dy, const Pool2dShape& shape, Tensor& dx);
void adaptive_avg_pool2d(const Tensor& x, Tensor& y);
void adaptive_avg_pool2d_grad(const Tensor& dy, Tensor& dx);

// normalization.cpp
void batch_norm_stats(const Tensor& x, double epsilon, Tensor& mean, Tensor& variance, Tensor& inv_std);
void batch_norm_track(const Tensor& mean, const Tensor& variance, double momentum, double unbias, Tensor& running_mean,
                      Tensor& running_var, Tensor& batches);
void batch_norm(const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight, const Tensor& bias,
                Tensor& y);
void batch_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight,
                     Tensor& dx, Tensor& dweight, Tensor& dbias);

// softmax.cpp
void softmax(const Tensor& x, bool log, Tensor& y);
void softmax_grad(const Tensor& dy, const Tensor& y, bool log, Tensor& dx);

// lstm.cpp
void lstm_cell(Tensor& gates, const Tensor& c_prev, Tensor& c, Tensor& h);
void lstm_cell_grad(const Tensor& gates, const Tensor& c_prev, const Tensor& c, const Tensor& dh, const Tensor& dc,
                    Tensor& dgates, Tensor& dc_prev);

// optimizer.cpp
void sgd(const SgdUpdate& update, std::span<const ParameterStep> parameters);
void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters);
void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters);

// mask.cpp
void apply_mask(const MaskLayout& layout, const Tensor& words, Tensor& x);

}  // namespace espalier::cpu
