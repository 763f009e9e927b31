#include <algorithm>

#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// Neighbouring axes as one. Its index j stands for one axis' index: of the one that belongs to a parameter, else the
/// outermost; the others stay whole.
TracedAxis merged(const AxisCall& c, const std::vector<const TracedAxis*>& axes) {
  if (axes.size() == 1) return *axes[0];
  const auto is_channel = [&](const TracedAxis* axis) {
    return std::any_of(axis->indices.begin(), axis->indices.end(),
                       [&](int index) { return c.trace.indices.has_parameter(index); });
  };
  auto chosen = std::find_if(axes.begin(), axes.end(), is_channel);
  if (chosen == axes.end()) chosen = axes.begin();
  int64_t inner = 1, all = 1;
  for (auto axis = axes.begin(); axis != axes.end(); ++axis) {
    all *= (*axis)->size();
    if (axis > chosen) inner *= (*axis)->size();
    if (axis != chosen) c.trace.fix(**axis, "joined with a channel axis by " + c.name());
  }
  TracedAxis result{{}, (*chosen)->sources};
  for (int64_t j = 0; j < all; ++j)
    result.indices.push_back((*chosen)->indices[static_cast<size_t>(j / inner % (*chosen)->size())]);
  return result;
}

/// The outermost of an axis' parts takes its channels, all that fall on one index together; the inner ones stay whole.
std::vector<TracedAxis> split(const AxisCall& c, const TracedAxis& axis, const std::vector<int64_t>& sizes) {
  if (sizes.size() <= 1) return {axis};
  TracedAxis outer{{}, axis.sources};
  const int64_t inner = axis.size() / sizes[0];
  for (int64_t i = 0; i < axis.size(); ++i) {
    const int index = axis.indices[static_cast<size_t>(i)];
    if (i % inner == 0)
      outer.indices.push_back(index);
    else
      c.trace.indices.unite(outer.indices.back(), index);
  }
  std::vector<TracedAxis> parts = {outer};
  for (size_t i = 1; i < sizes.size(); ++i) parts.push_back(c.trace.fresh(sizes[i], "split from channels by reshape"));
  return parts;
}

}  // namespace

/// Axes are read from both ends of the smallest blocks of equal products: (T,B,H) -> (T*B,H) is T,B -> T*B and H -> H.
TracedTensor axes::reshaped(const AxisCall& c, const TracedTensor& x, const Shape& shape) {
  TracedTensor y{.kind = x.kind, .axes = {}};
  check(shape.numel() > 0, "DependencyGraph", "{} of an empty tensor: trace with a larger example", c.name());
  int i = 0, j = 0;
  const auto size_in = [&](int axis) { return x.axis(axis).size(); };
  while (i < x.rank() || j < shape.rank()) {
    const bool more_in = i < x.rank(), more_out = j < shape.rank();
    if (more_in && more_out && size_in(i) == shape[j]) {
      y.axes.push_back(x.axis(i++));
      ++j;
    } else if (more_in && size_in(i) == 1) {
      c.trace.fix(x.axis(i++), "the only channel");
    } else if (more_out && shape[j] == 1) {
      y.axes.push_back(c.trace.fresh(1));
      ++j;
    } else {
      std::vector<const TracedAxis*> from;
      std::vector<int64_t> sizes;
      int64_t product_in = 1, product_out = 1;
      const int first_out = j;
      do {
        if (product_in <= product_out) {
          product_in *= size_in(i);
          const TracedAxis& axis = x.axis(i++);
          if (axis.size() > 1)
            from.push_back(&axis);
          else
            c.trace.fix(axis, "the only channel");
        } else {
          product_out *= shape[j];
          if (shape[j++] > 1) sizes.push_back(shape[j - 1]);
        }
      } while (product_in != product_out);
      const TracedAxis whole = merged(c, from);
      // (N,16) -> (N,1,4,4): what is split are the positions of the one channel that stands before them.
      if (sizes.size() > 1 && first_out > 0 && shape[first_out - 1] == 1)
        c.trace.fix(whole, "split behind an axis of one channel by " + c.name());
      std::vector<TracedAxis> parts = split(c, whole, sizes);
      auto part = parts.begin();
      for (int axis = first_out; axis < j; ++axis)
        y.axes.push_back(shape[axis] == 1 ? c.trace.fresh(1) : std::move(*part++));
    }
  }
  return y;
}

namespace {

std::vector<TracedTensor> reshape_axes(const AxisCall& c) { return {axes::reshaped(c, c.in(0), c.shape())}; }

std::vector<TracedTensor> permute_axes(const AxisCall& c) {
  TracedTensor y{.kind = c.in(0).kind, .axes = {}};
  for (const int axis : c.node.attributes<Axes>()) y.axes.push_back(c.in(0).axis(axis));
  return {y};
}

std::vector<TracedTensor> transpose_axes(const AxisCall& c) {
  const auto& [first, second] = c.node.attributes<std::pair<int, int>>();
  TracedTensor y = c.in(0);
  std::swap(y.axes[static_cast<size_t>(first)], y.axes[static_cast<size_t>(second)]);
  return {y};
}

/// The elements first, first + step, ... of an axis.
struct Slice {
  int axis;
  int64_t first, step;
};

std::vector<TracedTensor> slice_axes(const AxisCall& c) {
  const Slice& slice = c.node.attributes<Slice>();
  TracedTensor y = c.in(0);
  std::vector<int>& indices = y.axes[static_cast<size_t>(slice.axis)].indices;
  std::vector<int> chosen;
  for (int64_t i = 0; i < c.shape()[slice.axis]; ++i)
    chosen.push_back(indices[static_cast<size_t>(slice.first + i * slice.step)]);
  indices = std::move(chosen);
  return {y};
}

std::vector<TracedTensor> squeeze_axes(const AxisCall& c) {
  TracedTensor y = c.in(0);
  const int axis = c.node.attributes<int>();
  c.trace.fix(y.axis(axis), "the only channel");
  y.axes.erase(y.axes.begin() + axis);
  return {y};
}

std::vector<TracedTensor> unsqueeze_axes(const AxisCall& c) {
  TracedTensor y = c.in(0);
  y.axes.insert(y.axes.begin() + c.node.attributes<int>(), c.trace.fresh(1));
  return {y};
}

std::vector<TracedTensor> expand_axes(const AxisCall& c) {
  const TracedTensor& x = c.in(0);
  const Shape& shape = c.shape();
  TracedTensor y{.kind = x.kind, .axes = {}};
  for (int a = 0; a < shape.rank(); ++a) {
    const int own = a - (shape.rank() - x.rank());
    if (own >= 0 && x.axis(own).size() == shape[a]) {
      y.axes.push_back(x.axis(own));
      continue;
    }
    if (own >= 0) c.trace.fix(x.axis(own), "one channel repeated by expand");
    y.axes.push_back(c.trace.fresh(shape[a]));
  }
  return {y};
}

std::vector<TracedTensor> cat_axes(const AxisCall& c) {
  const auto joined = static_cast<size_t>(c.node.attributes<int>());
  TracedTensor y = c.in(0);
  y.kind = c.kind();
  for (size_t i = 1; i < c.inputs.size(); ++i)
    for (size_t a = 0; a < y.axes.size(); ++a) {
      const TracedAxis& axis = c.in(i).axes[a];
      if (a == joined)
        y.axes[a].indices.insert(y.axes[a].indices.end(), axis.indices.begin(), axis.indices.end());
      else
        c.trace.unite(y.axes[a], axis);
      y.axes[a].sources.insert(y.axes[a].sources.end(), axis.sources.begin(), axis.sources.end());
    }
  if (y.kind != TracedTensor::Kind::data) return {y};
  for (const TracedTensor& input : c.inputs)  // learned rows beside data, such as a class token
    for (int a = 0; a < input.rank(); ++a)
      if (input.axis(a).size() > 1) axes::use_as_data(c.trace, input, a);
  for (TracedAxis& axis : y.axes) axis.sources.clear();
  return {y};
}

/// What is added belongs to nothing yet.
std::vector<TracedTensor> pad_axes(const AxisCall& c) {
  TracedTensor y = c.in(0);
  for (size_t a = 0; a < y.axes.size(); ++a) {
    std::vector<int>& inside = y.axes[a].indices;
    std::vector<int> all = c.trace.indices.make(c.shape()[static_cast<int>(a)]);
    std::copy(inside.begin(), inside.end(), all.begin() + c.node.attributes<std::vector<int64_t>>()[a]);
    inside = std::move(all);
  }
  return {y};
}

constexpr Operation kReshape{"reshape", reshape_axes}, kFlatten{"flatten", reshape_axes};
constexpr Operation kPermute{"permute", permute_axes}, kTranspose{"transpose", transpose_axes};
constexpr Operation kSlice{"slice", slice_axes}, kUnslice{"unslice", axes::stay_whole};
constexpr Operation kExpand{"expand", expand_axes}, kCat{"cat", cat_axes}, kPad{"pad", pad_axes};
constexpr Operation kSqueeze{"squeeze", squeeze_axes}, kUnsqueeze{"unsqueeze", unsqueeze_axes};

/// Puts x into zeros of `shape` at start, start + step, ... along an axis: the adjoint of slice.
Variable unslice(const Variable& x, const Shape& shape, int axis, int64_t start, int64_t step) {
  Tensor out = Tensor::zeros(shape, x.dtype(), x.device());
  const int64_t end = x.size(axis) > 0 ? start + (x.size(axis) - 1) * step + 1 : start;
  if (x.numel() > 0) out.slice(axis, start, end, step).copy_(x.data());
  return record(kUnslice, out, {x}, [axis, start, end, step](const BackwardContext& c) -> Variables {
    return {slice(c.grad(), axis, start, end, step)};
  });
}

}  // namespace

Variable reshape(const Variable& x, const Shape& shape) {
  return record(kReshape, x.data().reshape(shape), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; });
}

Variable flatten(const Variable& x, int first, int last) {
  return record(kFlatten, x.data().flatten(first, last), {x},
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
  Axes order;
  for (int axis : axes) order.push_back(normalize_axis(axis, x.rank(), "permute"));
  return record(kPermute, x.data().permute(axes), {x}, backward, SaveOutputs::no, order);
}

Variable transpose(const Variable& x, int axis0, int axis1) {
  return record(
      kTranspose, x.data().transpose(axis0, axis1), {x},
      [axis0, axis1](const BackwardContext& c) -> Variables { return {transpose(c.grad(), axis0, axis1)}; },
      SaveOutputs::no,
      std::pair(normalize_axis(axis0, x.rank(), "transpose"), normalize_axis(axis1, x.rank(), "transpose")));
}

Variable slice(const Variable& x, int axis, int64_t start, int64_t end, int64_t step) {
  const Tensor& data = x.data();
  axis = normalize_axis(axis, data.rank(), "slice");
  const int64_t size = data.size(axis), first = std::clamp<int64_t>(start < 0 ? start + size : start, 0, size);
  return record(
      kSlice, data.slice(axis, start, end, step), {x},
      [shape = x.shape(), axis, first, step](const BackwardContext& c) -> Variables {
        return {unslice(c.grad(), shape, axis, first, step)};
      },
      SaveOutputs::no, Slice{axis, first, step});
}

Variable select(const Variable& x, int axis, int64_t index) {
  axis = normalize_axis(axis, x.rank(), "select");
  const int64_t size = x.size(axis);
  check(index >= -size && index < size, "select", "index {} is outside axis {} of shape {}", index, axis, x.shape());
  if (index < 0) index += size;
  return squeeze(slice(x, axis, index, index + 1), axis);
}

Variable expand(const Variable& x, const Shape& shape) {
  return record(kExpand, x.data().expand(shape), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {sum_to(c.grad(), from)}; });
}

Variable squeeze(const Variable& x, int axis) {
  return record(
      kSqueeze, x.data().squeeze(axis), {x},
      [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; }, SaveOutputs::no,
      normalize_axis(axis, x.rank(), "squeeze"));
}

Variable unsqueeze(const Variable& x, int axis) {
  return record(
      kUnsqueeze, x.data().unsqueeze(axis), {x},
      [from = x.shape()](const BackwardContext& c) -> Variables { return {reshape(c.grad(), from)}; }, SaveOutputs::no,
      normalize_axis(axis, x.rank() + 1, "unsqueeze"));
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
  return record(kCat, std::move(out), parts, backward, SaveOutputs::no, axis);
}

Variable stack(const Variables& parts, int axis) {
  Variables expanded;
  for (const Variable& part : parts) expanded.push_back(unsqueeze(part, axis));
  return cat(expanded, axis);
}

Variable pad(const Variable& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value) {
  std::vector<int64_t> before_each;
  for (const auto& [before, after] : widths) before_each.push_back(before);
  return record(
      kPad, pad(x.data(), widths, value), {x},
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
