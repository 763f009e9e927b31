// The rules of operations that move, join, split and choose indices.
#include <algorithm>

#include "pruning/structure/axis_call.h"

namespace espalier::axis_rules {

namespace {
/// Neighbouring axes as one. Its index j stands for one axis' index: of the one that belongs to a parameter, else the
/// outermost; the others stay whole.
TracedAxis merged(const Call& c, const std::vector<const TracedAxis*>& axes) {
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
std::vector<TracedAxis> split(const Call& c, const TracedAxis& axis, const std::vector<int64_t>& sizes) {
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
Tensors reshape(const Call& c) {
  const TracedTensor& x = c.in(0);
  const Shape& shape = c.shape();
  TracedTensor y{.kind = x.kind, .axes = {}};
  check(shape.numel() > 0, "DependencyGraph", "{} of an empty tensor: trace with a larger example", c.name());
  int i = 0, j = 0;
  const auto size_in = [&](int axis) { return x.axes[static_cast<size_t>(axis)].size(); };
  while (i < x.rank() || j < shape.rank()) {
    const bool more_in = i < x.rank(), more_out = j < shape.rank();
    if (more_in && more_out && size_in(i) == shape[j]) {
      y.axes.push_back(x.axes[static_cast<size_t>(i++)]);
      ++j;
    } else if (more_in && size_in(i) == 1) {
      c.trace.fix(x.axes[static_cast<size_t>(i++)], "the only channel");
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
          const TracedAxis& axis = x.axes[static_cast<size_t>(i++)];
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
  return {y};
}

Tensors permute(const Call& c) {
  TracedTensor y{.kind = c.in(0).kind, .axes = {}};
  for (int64_t axis : c.node.attributes()) y.axes.push_back(c.in(0).axes[static_cast<size_t>(axis)]);
  return {y};
}

Tensors transpose(const Call& c) {
  TracedTensor y = c.in(0);
  std::swap(y.axes[static_cast<size_t>(c.attribute(0))], y.axes[static_cast<size_t>(c.attribute(1))]);
  return {y};
}

Tensors slice(const Call& c) {
  TracedTensor y = c.in(0);
  const auto axis = static_cast<size_t>(c.attribute(0));
  std::vector<int> chosen;
  for (int64_t i = 0; i < c.shape()[static_cast<int>(axis)]; ++i)
    chosen.push_back(y.axes[axis].indices[static_cast<size_t>(c.attribute(1) + i * c.attribute(2))]);
  y.axes[axis].indices = std::move(chosen);
  return {y};
}

Tensors squeeze(const Call& c) {
  TracedTensor y = c.in(0);
  const auto axis = c.attribute(0);
  c.trace.fix(y.axes[static_cast<size_t>(axis)], "the only channel");
  y.axes.erase(y.axes.begin() + axis);
  return {y};
}

Tensors unsqueeze(const Call& c) {
  TracedTensor y = c.in(0);
  y.axes.insert(y.axes.begin() + c.attribute(0), c.trace.fresh(1));
  return {y};
}

Tensors expand(const Call& c) {
  const TracedTensor& x = c.in(0);
  const Shape& shape = c.shape();
  TracedTensor y{.kind = x.kind, .axes = {}};
  for (int a = 0; a < shape.rank(); ++a) {
    const int own = a - (shape.rank() - x.rank());
    if (own >= 0 && x.axes[static_cast<size_t>(own)].size() == shape[a]) {
      y.axes.push_back(x.axes[static_cast<size_t>(own)]);
      continue;
    }
    if (own >= 0) c.trace.fix(x.axes[static_cast<size_t>(own)], "one channel repeated by expand");
    y.axes.push_back(c.trace.fresh(shape[a]));
  }
  return {y};
}

Tensors cat(const Call& c) {
  const auto joined = static_cast<size_t>(c.attribute(0));
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
  if (y.kind != Kind::data) return {y};
  for (const TracedTensor& input : c.inputs)  // learned rows beside data, such as a class token
    for (int a = 0; a < input.rank(); ++a)
      if (input.axes[static_cast<size_t>(a)].size() > 1) use_as_data(c, input, a);
  for (TracedAxis& axis : y.axes) axis.sources.clear();
  return {y};
}

/// What is added belongs to nothing yet.
Tensors pad(const Call& c) {
  TracedTensor y = c.in(0);
  for (size_t a = 0; a < y.axes.size(); ++a) {
    std::vector<int>& inside = y.axes[a].indices;
    std::vector<int> all = c.trace.indices.make(c.shape()[static_cast<int>(a)]);
    std::copy(inside.begin(), inside.end(), all.begin() + c.attribute(a));
    inside = std::move(all);
  }
  return {y};
}

Tensors index_select(const Call& c) {
  TracedTensor y = c.in(0);
  const auto axis = static_cast<size_t>(c.attribute(0));
  const int64_t selected = c.shape()[static_cast<int>(axis)];
  if (y.kind == Kind::parameter) {  // an embedding: the rows are words, what comes out is data
    const Attributes& attributes = c.node.attributes();
    c.trace.lookups.push_back({y.axes[axis].size(), Attributes(attributes.begin() + 1, attributes.end())});
    c.trace.fix(y.axes[axis], "looked up by number");
    y.axes[axis] = c.trace.fresh(selected, "looked up by number");
    y.kind = Kind::data;
    for (TracedAxis& other : y.axes) {
      c.trace.declare(other, kProduces);
      other.sources.clear();
    }
  } else if (static_cast<int64_t>(c.node.attributes().size()) == 1 + selected) {
    std::vector<int> chosen;
    for (int64_t i = 0; i < selected; ++i)
      chosen.push_back(y.axes[axis].indices[static_cast<size_t>(c.attribute(static_cast<size_t>(1 + i)))]);
    y.axes[axis].indices = std::move(chosen);
  } else {
    c.trace.fix(y.axes[axis], "looked up by number");
    y.axes[axis] = c.trace.fresh(selected, "looked up by number");
  }
  return {y};
}

Tensors gather(const Call& c) {
  TracedTensor y = c.in(0);
  for (int a = 0; a < y.rank(); ++a) {
    TracedAxis& axis = y.axes[static_cast<size_t>(a)];
    if (a != c.attribute(0) && axis.size() == c.shape()[a]) continue;
    c.trace.fix(axis, "looked up by number");
    axis = c.trace.fresh(c.shape()[a], "looked up by number");
  }
  return {y};
}

}  // namespace espalier::axis_rules
