#include "pruning/learned/units.h"

#include "autograd/node.h"
#include "core/ops.h"

namespace espalier {

namespace {

/// Calls f with a zero of the tensor's type.
template <class F>
void typed(const Tensor& x, F&& f) {
  if (x.dtype() == DType::f32) return f(float{});
  f(double{});
}

/// Elements are their own units, in order.
bool is_elementwise(const MaskLayout& layout) {
  return !layout.recurrent && layout.row_period == layout.rows && layout.block_rows == 1 && layout.block_columns == 1;
}

/// The sum of x over each unit of a pattern, in x's type.
Tensor unit_sums(const Tensor& x, const Pattern& pattern) {
  if (is_elementwise(mask_layout(x.shape(), pattern))) return x.contiguous().reshape({x.numel()});
  return Mask::sum_over_units(x, pattern).to(x.dtype());
}

/// d(sum of g * spread(z))/dz.
Tensor spread_gradient(const Tensor& gradient, const Tensor& z, const Pattern& pattern) {
  const MaskLayout layout = mask_layout(gradient.shape(), pattern);
  if (!layout.recurrent) return unit_sums(gradient, pattern);
  Tensor result = Tensor::zeros(z.shape(), z.dtype());
  const Tensor g = gradient.contiguous();
  typed(z, [&](auto zero) {
    using T = decltype(zero);
    const T *up = g.data<T>(), *values = z.data<T>();
    T* to = result.data<T>();
    for (int64_t r = 0; r < layout.rows; ++r)
      for (int64_t c = 0; c < layout.columns; ++c) {
        const T slope = up[r * layout.columns + c];
        to[r % layout.row_period] += slope * values[c];
        to[c] += slope * values[r % layout.row_period];
      }
  });
  return result;
}

}  // namespace

Variable spread_over_units(const Variable& z, const Shape& weight, const Pattern& pattern) {
  const MaskLayout layout = mask_layout(weight, pattern);
  check(z.rank() == 1 && z.size(0) == layout.units(), "spread_over_units",
        "expected a value for each of the {} units of pattern {} on the weight {}, got {}", layout.units(),
        pattern.to_string(), weight, z.shape());
  const Tensor from = z.data().contiguous();
  Tensor spread;
  if (is_elementwise(layout)) {
    spread = from.reshape(weight);
  } else {
    spread = Tensor::empty(weight, from.dtype());
    typed(from, [&](auto zero) {
      using T = decltype(zero);
      const T* values = from.data<T>();
      T* to = spread.data<T>();
      for (int64_t r = 0; r < layout.rows; ++r)
        for (int64_t c = 0; c < layout.columns; ++c)
          to[r * layout.columns + c] =
              layout.recurrent ? values[r % layout.row_period] * values[c] : values[layout.unit_of(r, c)];
    });
  }
  return record("spread_over_units", spread, {z}, [from, pattern](const BackwardContext& c) -> Variables {
    require_first_derivative_only(c);
    return {spread_gradient(c.grad().data(), from, pattern)};
  });
}

Variable values_of_member(const Variable& values, const SiteMember& member) {
  if (member.site_units.empty()) return values;
  const Variable padded = cat({values, Variable(Tensor::ones({1}, values.dtype()))}, 0);
  std::vector<int64_t> index = member.site_units;
  for (int64_t& unit : index)
    if (unit < 0) unit = values.numel();
  return index_select(padded, 0, Tensor::from(index, {static_cast<int64_t>(index.size())}));
}

Mask member_mask(const SiteMember& member, const std::vector<bool>& exists) {
  const Shape& shape = member.parameter.shape();
  if (member.site_units.empty()) return Mask::from_units(shape, member.pattern, exists);
  std::vector<bool> bits(member.site_units.size(), true);
  for (size_t unit = 0; unit < bits.size(); ++unit)
    if (const int64_t from = member.site_units[unit]; from >= 0) bits[unit] = exists[static_cast<size_t>(from)];
  return Mask::from_units(shape, member.pattern, bits);
}

Variable straight_through(const Variable& weight, const Variable& scores, const SiteMember& member, const Mask& mask,
                          GradientFlow flow) {
  const Tensor w = weight.data().contiguous();
  return record("straight_through", mask.apply(w), {weight, scores},
                [w, mask, flow, pattern = member.pattern, units = member.site_units,
                 count = scores.defined() ? scores.numel() : 0,
                 type = scores.defined() ? scores.dtype() : DType::f32](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  const Tensor g = c.grad().data().contiguous();
                  Variables grads(2);
                  if (c.needs(0)) grads[0] = flow == GradientFlow::dense ? c.grad() : Variable(mask.apply(g));
                  if (!c.needs(1)) return grads;
                  const Tensor sums = unit_sums(g * w, pattern).to(type);
                  if (units.empty()) {
                    grads[1] = sums;
                    return grads;
                  }
                  // Units outside the site add to a last place, which is cut off.
                  std::vector<int64_t> index = units;
                  for (int64_t& unit : index)
                    if (unit < 0) unit = count;
                  const Tensor places = Tensor::from(index, {static_cast<int64_t>(index.size())});
                  grads[1] = index_add(Tensor::zeros({count + 1}, type), 0, places, sums).slice(0, 0, count);
                  return grads;
                });
}

Variable masked_leaf(const Parameter& parameter, const Variable& leaf) {
  const Mask& mask = parameter.mask();
  return mask.defined() && parameter.gradient_flow() == GradientFlow::masked ? mask_gradient(leaf, mask) : leaf;
}

Tensor pack_bits(const std::vector<bool>& bits) {
  Tensor bytes = Tensor::zeros({static_cast<int64_t>((bits.size() + 7) / 8)}, DType::u8);
  uint8_t* to = bytes.data<uint8_t>();
  for (size_t i = 0; i < bits.size(); ++i) to[i / 8] = static_cast<uint8_t>(to[i / 8] | (bits[i] << (i % 8)));
  return bytes;
}

std::vector<bool> unpack_bits(const Tensor& bytes, size_t count) {
  if (!bytes.defined() || bytes.dtype() != DType::u8 || bytes.numel() != static_cast<int64_t>((count + 7) / 8))
    fail<FileError>("unpack_bits", "expected {} bytes (u8) for {} units, got {}", (count + 7) / 8, count,
                    bytes.defined() ? describe(bytes) : "nothing");
  const uint8_t* from = bytes.data<uint8_t>();
  std::vector<bool> bits(count);
  for (size_t i = 0; i < count; ++i) bits[i] = from[i / 8] >> (i % 8) & 1;
  return bits;
}

}  // namespace espalier
