#include "pruning/learned/units.h"

#include <unordered_set>

#include "autograd/axes.h"
#include "core/ops.h"

namespace espalier {

namespace {

/// Elements are their own units, in order.
bool is_elementwise(const MaskLayout& layout) {
  return !layout.recurrent && layout.row_period == layout.rows && layout.block_rows == 1 && layout.block_columns == 1;
}

/// The sum of x over each unit of a pattern, in x's type.
Tensor unit_sums(const Tensor& x, const Pattern& pattern) {
  if (is_elementwise(mask_layout(x.shape(), pattern))) return x.contiguous().reshape({x.numel()});
  return Mask::sum_over_units(x, pattern).to(x.dtype());
}

/// z on every weight of its unit; of a recurrent pattern the product of the values of the row's and the column's unit.
Tensor spread_values(const Tensor& z, const MaskLayout& layout, const Shape& weight) {
  const int64_t gates = layout.rows / layout.row_period;
  if (layout.recurrent) {
    const int64_t units = layout.units();
    return (z.reshape({units, 1}) * z.reshape({1, units})).expand({gates, units, units}).reshape(weight);
  }
  // The weight as (gates, blocks down, rows of a block, blocks across, columns of a block).
  const int64_t down = layout.row_period / layout.block_rows, across = layout.grid_columns;
  return z.reshape({1, down, 1, across, 1})
      .expand({gates, down, layout.block_rows, across, layout.block_columns})
      .reshape(weight);
}

/// d(sum of g * spread(z))/dz.
Tensor spread_gradient(const Tensor& gradient, const Tensor& z, const Pattern& pattern) {
  const MaskLayout layout = mask_layout(gradient.shape(), pattern);
  if (!layout.recurrent) return unit_sums(gradient, pattern);
  const int64_t units = layout.units();
  const Tensor both = sum(gradient.reshape({layout.rows / layout.row_period, units, units}), {0});
  return sum(both * z.reshape({1, units}), {1}) + sum(both * z.reshape({units, 1}), {0});
}

/// Of a weight and scores: the weight's own.
std::vector<TracedTensor> weight_axes(const AxisCall& c) { return {c.in(0)}; }

}  // namespace

Variable spread_over_units(const Variable& z, const Shape& weight, const Pattern& pattern) {
  const MaskLayout layout = mask_layout(weight, pattern);
  check(z.rank() == 1 && z.size(0) == layout.units(), "spread_over_units",
        "expected a value for each of the {} units of pattern {} on the weight {}, got {}", layout.units(),
        pattern.to_string(), weight, z.shape());
  const Tensor from = z.data().contiguous();
  return record({"spread_over_units", axes::stay_whole}, spread_values(from, layout, weight), {z},
                [from, pattern](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  return {spread_gradient(c.grad().data(), from, pattern)};
                });
}

Variable values_of_member(const Variable& values, const MemberUnits& member) {
  if (member.site_units.empty()) return values;
  const Variable padded = cat({values, Variable(Tensor::ones({1}, values.dtype(), values.device()))}, 0);
  std::vector<int64_t> index = member.site_units;
  for (int64_t& unit : index)
    if (unit < 0) unit = values.numel();
  return index_select(padded, 0, Tensor::from(index, {static_cast<int64_t>(index.size())}));
}

void check_disjoint(const char* operation, const std::vector<Site>& sites) {
  std::unordered_set<const void*> used;
  for (const Site& site : sites)
    for (const SiteMember& member : site.members)
      check(!member.masked || used.insert(member.parameter.id()).second, operation,
            "'{}' belongs to two sites; give each parameter one", member.parameter.name());
}

std::vector<std::vector<Mask>> member_masks(const std::vector<Site>& sites,
                                            const std::vector<std::vector<bool>>& exists) {
  std::vector<std::vector<Mask>> masks;
  for (size_t s = 0; s < sites.size(); ++s) {
    masks.emplace_back();
    for (const SiteMember& member : sites[s].members) {
      masks.back().emplace_back();
      if (!member.masked) continue;
      const Mask mask = member_mask(member, exists[s]).to(member.parameter.data().device());
      const Mask& before = member.parameter.mask();
      masks.back().back() = before.defined() && before.pattern() != member.pattern ? before & mask : mask;
    }
  }
  return masks;
}

void show_masks(const MemberTransforms<StraightThroughMask>& transforms, const std::vector<Site>& sites,
                const std::vector<std::vector<Mask>>& masks, const std::vector<std::vector<bool>>& exists) {
  for (const auto& [s, m, parameter, transform] : transforms.entries()) {
    const SiteMember& member = sites[s].members[m];
    const Mask& mask = masks[s][m];
    transform->set_mask(mask.pattern() == member.pattern ? mask : member_mask(member, exists[s]));
  }
}

SparsityCount count_masked(const std::vector<std::vector<Mask>>& masks) {
  SparsityCount count;
  for (const auto& members : masks)
    for (const Mask& mask : members) {
      if (!mask.defined()) continue;
      count.weights += mask.num_elements();
      count.masked += mask.num_elements() - mask.count_elements();
    }
  return count;
}

Variable straight_through(const Variable& weight, const Variable& scores, const MemberUnits& member, const Mask& chosen,
                          GradientFlow flow) {
  const Tensor w = weight.data().contiguous();
  const Mask mask = chosen.to(w.device());  // the network may have moved since it was chosen
  return record({"straight_through", weight_axes, Zeros::of_first}, mask.apply(w), {weight, scores},
                [w, mask, flow, device = scores.defined() ? scores.device() : w.device(), pattern = member.pattern,
                 units = member.site_units, count = scores.defined() ? scores.numel() : 0,
                 type = scores.defined() ? scores.dtype() : DType::f32](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  const Tensor g = c.grad().data().contiguous();
                  Variables grads(2);
                  if (c.needs(0)) grads[0] = flow == GradientFlow::dense ? c.grad() : Variable(mask.apply(g));
                  if (!c.needs(1)) return grads;
                  const Tensor sums = unit_sums(g * w, pattern).to(type).to(device);
                  if (units.empty()) {
                    grads[1] = sums;
                    return grads;
                  }
                  // Units outside the site add to a last place, which is cut off.
                  std::vector<int64_t> index = units;
                  for (int64_t& unit : index)
                    if (unit < 0) unit = count;
                  const Tensor places = Tensor::from(index, {static_cast<int64_t>(index.size())}).to(sums.device());
                  grads[1] =
                      index_add(Tensor::zeros({count + 1}, type, sums.device()), 0, places, sums).slice(0, 0, count);
                  return grads;
                });
}

Tensor find_state(const char* operation, const std::vector<std::pair<std::string, Tensor>>& state,
                  const std::string& name) {
  for (const auto& [key, tensor] : state)
    if (key == name) return tensor;
  fail<FileError>(operation, "the checkpoint has no '{}': it is of a training without this callback, or with others",
                  name);
}

namespace {
/// Bits are saved as masks are.
Shape one_for_each(size_t count) { return {static_cast<int64_t>(count)}; }
}  // namespace

Tensor pack_bits(const std::vector<bool>& bits) {
  return Mask::from_units(one_for_each(bits.size()), Pattern::element(), bits).packed();
}

std::vector<bool> unpack_bits(const Tensor& bytes, size_t count) {
  if (!bytes.defined() || bytes.dtype() != DType::u8 || bytes.numel() != static_cast<int64_t>((count + 7) / 8))
    fail<FileError>("unpack_bits", "expected {} bytes (u8) for {} units, got {}", (count + 7) / 8, count,
                    bytes.defined() ? describe(bytes) : "nothing");
  return Mask::from_packed(one_for_each(count), Pattern::element(), bytes).units();
}

}  // namespace espalier
