// The explicit table of the CPU backend: every kernel is assigned here by name, nothing registers itself.
#include "core/cpu/table.h"

namespace espalier::cpu {

const Kernels& table() {
  static constexpr Kernels kTable{
      .name = "cpu",
      .fill = &cpu::fill,
      .copy = &cpu::copy,
      .unary = &cpu::unary,
      .binary = &cpu::binary,
      .binary_scalar = &cpu::binary_scalar,
      .compare = &cpu::compare,
      .where = &cpu::where,
      .clamp = &cpu::clamp,
      .axpy = &cpu::axpy,
      .reduce = &cpu::reduce,
      .arg_reduce = &cpu::arg_reduce,
      .matmul = &cpu::matmul,
      .gather = &cpu::gather,
      .scatter = &cpu::scatter,
      .scatter_add = &cpu::scatter_add,
      .index_select = &cpu::index_select,
      .index_add = &cpu::index_add,
      .sort = &cpu::sort,
      .topk = &cpu::topk,
      .uniform = &cpu::uniform,
      .normal = &cpu::normal,
      .bernoulli = &cpu::bernoulli,
      .conv2d = &cpu::conv2d,
      .conv2d_input_grad = &cpu::conv2d_input_grad,
      .conv2d_weight_grad = &cpu::conv2d_weight_grad,
      .max_pool2d = &cpu::max_pool2d,
      .max_pool2d_grad = &cpu::max_pool2d_grad,
      .avg_pool2d = &cpu::avg_pool2d,
      .avg_pool2d_grad = &cpu::avg_pool2d_grad,
      .adaptive_avg_pool2d = &cpu::adaptive_avg_pool2d,
      .adaptive_avg_pool2d_grad = &cpu::adaptive_avg_pool2d_grad,
      .batch_norm_stats = &cpu::batch_norm_stats,
      .batch_norm_track = &cpu::batch_norm_track,
      .batch_norm = &cpu::batch_norm,
      .batch_norm_grad = &cpu::batch_norm_grad,
      .softmax = &cpu::softmax,
      .softmax_grad = &cpu::softmax_grad,
      .lstm_cell = &cpu::lstm_cell,
      .lstm_cell_grad = &cpu::lstm_cell_grad,
      .sgd = &cpu::sgd,
      .adam = &cpu::adam,
      .rmsprop = &cpu::rmsprop,
      .apply_mask = &cpu::apply_mask,
  };
  return kTable;
}

}  // namespace espalier::cpu
