#include <algorithm>

#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// Puts x into zeros of `shape` at start, start + step, ... along an axis: the adjoint of slice.
Variable unslice(const Variable& x, const Shape& shape, int axis, int64_t start, int64_t step) {
  Tensor out = Tensor::zeros(shape, x.dtype(), x.device());
  const int64_t end = x.size(axis) > 0 ? start + (x.size(axis) - 1) * step + 1 : start;
  if (x.numel() > 0) out.slice(axis, start, end, step).copy_(x.data());
  return record("unslice", out, {x}, [axis, start, end, step](const BackwardContext& c) -> Variables {
    return {slice(c.grad(), axis, start, end, step)};
  });
}

}  // namespace

Variable reshape(const Variable& x, const Shape& shape) {
  return record("reshape", x.data().reshape(shape), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; });
}

Variable flatten(const Variable& x, int first, int last) {
  return record("flatten", x.data().flatten(first, last), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; });
}

Variable permute(const Variable& x, const std::vector<int>& axes) {
  const auto backward = [axes](const BackwardContext& c) -> Variables {
    std::vector<int> inverse(axes.size());
    for (size_t i = 0; i < axes.size(); ++i)
      inverse[static_cast<size_t>(normalize_axis(axes[i], static_cast<int>(axes.size()), "permute"))] =
          static_cast<int>(i);
    return {permute(c.grad(), inverse)};
  };
  Attributes order;
  for (int axis : axes) order.push_back(normalize_axis(axis, x.rank(), "permute"));
  return record("permute", x.data().permute(axes), {x}, backward, SaveOutputs::no, order);
}

Variable transpose(const Variable& x, int axis0, int axis1) {
  return record("transpose", x.data().transpose(axis0, axis1), {x},
                [axis0, axis1](const BackwardContext& c) -> Variables { return {transpose(c.grad(), axis0, axis1)}; },
                SaveOutputs::no,
                {normalize_axis(axis0, x.rank(), "transpose"), normalize_axis(axis1, x.rank(), "transpose")});
}

Variable slice(const Variable& x, int axis, int64_t start, int64_t end, int64_t step) {
  const Tensor& data = x.data();
  axis = normalize_axis(axis, data.rank(), "slice");
  const int64_t size = data.size(axis), first = std::clamp<int64_t>(start < 0 ? start + size : start, 0, size);
  return record("slice", data.slice(axis, start, end, step), {x},
                [shape = x.shape(), axis, first, step](const BackwardContext& c) -> Variables {
                  return {unslice(c.grad(), shape, axis, first, step)};
                },
                SaveOutputs::no, {axis, first, step});
}

Variable select(const Variable& x, int axis, int64_t index) {
  axis = normalize_axis(axis, x.rank(), "select");
  const int64_t size = x.size(axis);
  check(index >= -size && index < size, "select", "index {} is outside axis {} of shape {}", index, axis, x.shape());
  if (index < 0) index += size;
  return squeeze(slice(x, axis, index, index + 1), axis);
}

Variable expand(const Variable& x, const Shape& shape) {
  return record("expand", x.data().expand(shape), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {sum_to(c.grad(), from)}; });
}

Variable squeeze(const Variable& x, int axis) {
  return record("squeeze", x.data().squeeze(axis), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; },
                SaveOutputs::no, {normalize_axis(axis, x.rank(), "squeeze")});
}

Variable unsqueeze(const Variable& x, int axis) {
  return record("unsqueeze", x.data().unsqueeze(axis), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; },
                SaveOutputs::no, {normalize_axis(axis, x.rank() + 1, "unsqueeze")});
}

Variable cat(const Variables& parts, int axis) {
  std::vector<Tensor> tensors;
  std::vector<int64_t> sizes;
  for (const Variable& part : parts) tensors.push_back(part.data());
  Tensor out = cat(tensors, axis);
  axis = normalize_axis(axis, out.rank(), "cat");
  for (const Variable& part : parts) sizes.push_back(part.size(axis));
  const auto backward = [axis, sizes](const BackwardContext& c) {
    Variables grads;
    int64_t at = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      grads.push_back(c.needs(static_cast<int>(i)) ? slice(c.grad(), axis, at, at + sizes[i]) : Variable());
      at += sizes[i];
    }
    return grads;
  };
  return record("cat", std::move(out), parts, backward, SaveOutputs::no, {axis});
}

Variable stack(const Variables& parts, int axis) {
  Variables expanded;
  for (const Variable& part : parts) expanded.push_back(unsqueeze(part, axis));
  return cat(expanded, axis);
}

Variable pad(const Variable& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value) {
  Attributes before_each;
  for (const auto& [before, after] : widths) before_each.push_back(before);
  return record(
      "pad", pad(x.data(), widths, value), {x},
      [widths, shape = x.shape()](const BackwardContext& c) -> Variables {
        Variable inside = c.grad();
        for (int i = 0; i < shape.rank(); ++i) {
          const int64_t before = widths[static_cast<size_t>(i)].first;
          inside = slice(inside, i, before, before + shape[i]);
        }
        return {inside};
      },
      SaveOutputs::no, before_each);
}

}  // namespace espalier
