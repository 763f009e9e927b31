#include <optional>

#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

Variable zeros_like_shape(const Shape& shape, const Variable& like) {
  return Tensor::zeros(shape, like.dtype(), like.device());
}

/// What index_select tells of itself.
struct Selection {
  int axis = 0;
  std::optional<std::vector<int64_t>> numbers;  ///< the indices, where they can be read without a copy from a device
};

Selection selection_of(int axis, const Tensor& index) {
  if (!grad_enabled() || !index.device().is_cpu() || index.dtype() != DType::i64) return {axis, {}};
  return {axis, index.to_vector<int64_t>()};
}

constexpr const char* kByNumber = "looked up by number";

std::vector<TracedTensor> index_select_axes(const AxisCall& c) {
  const auto& [axis, numbers] = c.node.attributes<Selection>();
  const int64_t selected = c.shape()[axis];
  TracedTensor y = c.in(0);
  TracedAxis& own = y.axes[static_cast<size_t>(axis)];
  if (y.kind == TracedTensor::Kind::parameter) {  // an embedding: the rows are words, what comes out is data
    c.trace.lookups.push_back({own.size(), numbers.value_or(std::vector<int64_t>())});
    c.trace.fix(own, kByNumber);
    own = c.trace.fresh(selected, kByNumber);
    y.kind = TracedTensor::Kind::data;
    for (TracedAxis& other : y.axes) {
      c.trace.declare(other, kProduces);
      other.sources.clear();
    }
  } else if (numbers) {
    std::vector<int> chosen;
    for (const int64_t number : *numbers) chosen.push_back(own.indices[static_cast<size_t>(number)]);
    own.indices = std::move(chosen);
  } else {
    c.trace.fix(own, kByNumber);
    own = c.trace.fresh(selected, kByNumber);
  }
  return {y};
}

std::vector<TracedTensor> gather_axes(const AxisCall& c) {
  TracedTensor y = c.in(0);
  for (int a = 0; a < y.rank(); ++a) {
    TracedAxis& axis = y.axes[static_cast<size_t>(a)];
    if (a != c.node.attributes<int>() && axis.size() == c.shape()[a]) continue;
    c.trace.fix(axis, kByNumber);
    axis = c.trace.fresh(c.shape()[a], kByNumber);
  }
  return {y};
}

constexpr Operation kGather{"gather", gather_axes}, kScatterAdd{"scatter_add", axes::stay_whole};
constexpr Operation kIndexSelect{"index_select", index_select_axes}, kIndexAdd{"index_add", axes::stay_whole};

}  // namespace

Variable gather(const Variable& x, int axis, const Tensor& index) {
  return record(
      kGather, gather(x.data(), axis, index), {x},
      [axis, s = Saved(index), shape = x.shape()](const BackwardContext& c) -> Variables {
        return {scatter_add(zeros_like_shape(shape, c.grad()), axis, s.unpack(c).data(), c.grad())};
      },
      SaveOutputs::no, normalize_axis(axis, x.rank(), "gather"));
}

Variable scatter_add(const Variable& x, int axis, const Tensor& index, const Variable& values) {
  return record(kScatterAdd, scatter_add(x.data(), axis, index, values.data()), {x, values},
                [axis, s = Saved(index)](const BackwardContext& c) -> Variables {
                  return {c.grad(), c.needs(1) ? gather(c.grad(), axis, s.unpack(c).data()) : Variable()};
                });
}

Variable index_select(const Variable& x, int axis, const Tensor& index) {
  const Tensor places = index.defined() ? index.to(x.device()) : index;
  announce_product("index_select", WeightProduct::forward, x.weight_view());
  return record(
      kIndexSelect, index_select(x.data(), axis, places), {x},
      [axis, s = Saved(places), shape = x.shape(), view = x.weight_view()](const BackwardContext& c) -> Variables {
        announce_product("index_select", WeightProduct::weight_gradient, view);
        const Variable zeros = zeros_like_shape(shape, c.grad());
        return {weight_gradient(index_add(zeros, axis, s.unpack(c).data(), c.grad()), view)};
      },
      SaveOutputs::no, selection_of(normalize_axis(axis, x.rank(), "index_select"), index));
}

Variable index_add(const Variable& x, int axis, const Tensor& index, const Variable& values) {
  return record(kIndexAdd, index_add(x.data(), axis, index, values.data()), {x, values},
                [axis, s = Saved(index)](const BackwardContext& c) -> Variables {
                  return {c.grad(), c.needs(1) ? index_select(c.grad(), axis, s.unpack(c).data()) : Variable()};
                });
}

Variable embedding(const Variable& table, const Tensor& ids) {
  check(table.rank() == 2, "embedding", "expected a table (V,D), got shape {}", table.shape());
  Shape shape = ids.shape();
  shape.push_back(table.size(1));
  return reshape(index_select(table, 0, ids.reshape({ids.numel()})), shape);
}

}  // namespace espalier
