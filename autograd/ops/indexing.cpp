#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

Variable zeros_like_shape(const Shape& shape, const Variable& like) {
  return Tensor::zeros(shape, like.dtype(), like.device());
}

/// The axis and, where they can be read without a copy from a device, the indices: which channels go where.
Attributes selection_attributes(int axis, const Tensor& index) {
  Attributes result{axis};
  if (!grad_enabled() || index.device() != Device::cpu() || index.dtype() != DType::i64) return result;
  const std::vector<int64_t> indices = index.to_vector<int64_t>();
  result.insert(result.end(), indices.begin(), indices.end());
  return result;
}

}  // namespace

Variable gather(const Variable& x, int axis, const Tensor& index) {
  return record("gather", gather(x.data(), axis, index), {x},
                [axis, s = Saved(index), shape = x.shape()](const BackwardContext& c) -> Variables {
                  return {scatter_add(zeros_like_shape(shape, c.grad()), axis, s.unpack(c).data(), c.grad())};
                },
                SaveOutputs::no, {normalize_axis(axis, x.rank(), "gather")});
}

Variable scatter_add(const Variable& x, int axis, const Tensor& index, const Variable& values) {
  return record("scatter_add", scatter_add(x.data(), axis, index, values.data()), {x, values},
                [axis, s = Saved(index)](const BackwardContext& c) -> Variables {
                  return {c.grad(), c.needs(1) ? gather(c.grad(), axis, s.unpack(c).data()) : Variable()};
                });
}

Variable index_select(const Variable& x, int axis, const Tensor& index) {
  const Tensor places = index.defined() ? index.to(x.device()) : index;
  return record(
      "index_select", index_select(x.data(), axis, places), {x},
      [axis, s = Saved(places), shape = x.shape()](const BackwardContext& c) -> Variables {
        return {index_add(zeros_like_shape(shape, c.grad()), axis, s.unpack(c).data(), c.grad())};
      },
      SaveOutputs::no, selection_attributes(normalize_axis(axis, x.rank(), "index_select"), index));
}

Variable index_add(const Variable& x, int axis, const Tensor& index, const Variable& values) {
  return record("index_add", index_add(x.data(), axis, index, values.data()), {x, values},
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
