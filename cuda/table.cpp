// The explicit table of the CUDA backend: every kernel is assigned here by name, nothing registers itself.
#include "cuda/table.h"

namespace espalier::cuda {

const Kernels& table() {
  if (!is_available()) fail<UnavailableError>("cuda", "{}; use Device::cpu()", why_unavailable());
  static constexpr Kernels kTable{
      .name = "cuda",
      .fill = &cuda::fill,
      .copy = &cuda::copy,
      .unary = &cuda::unary,
      .binary = &cuda::binary,
      .binary_scalar = &cuda::binary_scalar,
      .compare = &cuda::compare,
      .where = &cuda::where,
      .clamp = &cuda::clamp,
      .axpy = &cuda::axpy,
      .reduce = &cuda::reduce,
      .arg_reduce = &cuda::arg_reduce,
      .matmul = &cuda::matmul,
      .gather = &cuda::gather,
      .scatter = &cuda::scatter,
      .scatter_add = &cuda::scatter_add,
      .index_select = &cuda::index_select,
      .index_add = &cuda::index_add,
      .sort = &cuda::sort,
      .topk = &cuda::topk,
      .uniform = &cuda::uniform,
      .normal = &cuda::normal,
      .bernoulli = &cuda::bernoulli,
      .conv2d = &cuda::conv2d,
      .conv2d_input_grad = &cuda::conv2d_input_grad,
      .conv2d_weight_grad = &cuda::conv2d_weight_grad,
      .max_pool2d = &cuda::max_pool2d,
      .max_pool2d_grad = &cuda::max_pool2d_grad,
      .avg_pool2d = &cuda::avg_pool2d,
      .avg_pool2d_grad = &cuda::avg_pool2d_grad,
      .adaptive_avg_pool2d = &cuda::adaptive_avg_pool2d,
      .adaptive_avg_pool2d_grad = &cuda::adaptive_avg_pool2d_grad,
      .batch_norm_stats = &cuda::batch_norm_stats,
      .batch_norm_track = &cuda::batch_norm_track,
      .batch_norm = &cuda::batch_norm,
      .batch_norm_grad = &cuda::batch_norm_grad,
      .softmax = &cuda::softmax,
      .softmax_grad = &cuda::softmax_grad,
      .lstm_cell = &cuda::lstm_cell,
      .lstm_cell_grad = &cuda::lstm_cell_grad,
      .sgd = &cuda::sgd,
      .adam = &cuda::adam,
      .rmsprop = &cuda::rmsprop,
      .apply_mask = &cuda::apply_mask,
  };
  return kTable;
}

}  // namespace espalier::cuda
