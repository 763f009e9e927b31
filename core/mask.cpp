#include "core/mask.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/kernels.h"
#include "core/ops.h"

namespace espalier {
namespace {

constexpr int64_t kWordBits = 64;

int64_t columns_of(const Shape& weight) { return weight.rank() ? weight.numel() / std::max<int64_t>(weight[0], 1) : 1; }

/// Reads "4x1" or "2 of 4" style pairs: a number, the separator, a number.
bool read_pair(std::string_view text, std::string_view separator, int64_t& first, int64_t& second) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return false;
  const auto read = [](std::string_view part, int64_t& value) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc{} && end == part.data() + part.size() && value >= 0;
  };
  return read(text.substr(0, at), first) && read(text.substr(at + separator.size()), second);
}

/// Order of units from best to worst score, equal scores by index.
std::vector<int64_t> best_first(const std::vector<double>& scores) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  return order;
}

std::vector<double> checked_scores(const Tensor& scores, int64_t units) {
  check(scores.defined() && is_floating(scores.dtype()) && scores.numel() == units, "mask",
        "expected {} scores (f32 or f64), one for each unit, got {}", units, describe(scores));
  std::vector<double> values = scores.to_vector<double>();
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isnan(values[i])) fail<NumericError>("mask", "the score of unit {} is NaN", i);
  return values;
}

/// For n of m: unit sets in which each group of m keeps its n best. For other patterns: all units.
std::vector<bool> admissible(const MaskLayout& layout, const Pattern& pattern, const std::vector<double>& scores) {
  std::vector<bool> allowed(scores.size(), pattern.kind() != Pattern::Kind::n_of_m);
  if (pattern.kind() != Pattern::Kind::n_of_m) return allowed;
  const auto n = static_cast<size_t>(pattern.first()), m = static_cast<size_t>(pattern.second());
  for (size_t group = 0; group < static_cast<size_t>(layout.units()); group += m) {
    const std::vector<double> part(scores.begin() + static_cast<int64_t>(group),
                                   scores.begin() + static_cast<int64_t>(group + m));
    const std::vector<int64_t> order = best_first(part);
    for (size_t i = 0; i < n; ++i) allowed[group + static_cast<size_t>(order[i])] = true;
  }
  return allowed;
}

}  // namespace

std::string Pattern::to_string() const {
  switch (kind_) {
    case Kind::element: return "element";
    case Kind::block: return fmt::format("block {}x{}", first_, second_);
    case Kind::n_of_m: return fmt::format("{} of {}", first_, second_);
    case Kind::kernel: return "kernel";
    case Kind::channel:
      return second_ == 1 ? fmt::format("channel {}", first_) : fmt::format("channel {} of {} gates", first_, second_);
    case Kind::recurrent: return "recurrent";
  }
  fail("pattern", "unknown kind {}", static_cast<int>(kind_));
}

Pattern Pattern::parse(std::string_view text) {
  int64_t first = 0, second = 0;
  if (text == "element") return element();
  if (text == "kernel") return kernel();
  if (text == "recurrent") return recurrent();
  if (text == "channel 0") return channel(0);
  if (text == "channel 1") return channel(1);
  if (text.starts_with("block ") && read_pair(text.substr(6), "x", first, second) && first >= 1 && second >= 1)
    return block(first, second);
  if (text.starts_with("channel ") && text.ends_with(" gates") &&
      read_pair(text.substr(8, text.size() - 14), " of ", first, second) && first == 0 && second >= 1)
    return channel(0, second);
  if (read_pair(text, " of ", first, second) && first >= 1 && first <= second) return n_of_m(first, second);
  fail("pattern",
       "expected 'element', 'block RxC', 'N of M', 'kernel', 'channel 0', 'channel 1', 'channel 0 of G gates' or "
       "'recurrent', got '{}'",
       text);
}

MaskLayout mask_layout(const Shape& weight, const Pattern& pattern) {
  check(weight.rank() >= 1 && weight.numel() > 0, "mask", "expected a weight with elements, got shape {}", weight);
  MaskLayout layout;
  layout.rows = layout.row_period = weight[0];
  layout.columns = layout.grid_columns = columns_of(weight);
  const int64_t a = pattern.first(), b = pattern.second();
  switch (pattern.kind()) {
    case Pattern::Kind::element: break;
    case Pattern::Kind::n_of_m:
      check(a >= 1 && a <= b && layout.columns % b == 0, "mask",
            "pattern {} does not divide the weight {}: expected columns ({}) that are a multiple of {}",
            pattern.to_string(), weight, layout.columns, b);
      break;
    case Pattern::Kind::block:
      check(a >= 1 && b >= 1 && layout.rows % a == 0 && layout.columns % b == 0, "mask",
            "pattern {} does not divide the weight {}: expected rows ({}) that are a multiple of {} and columns ({}) "
            "that are a multiple of {}",
            pattern.to_string(), weight, layout.rows, a, layout.columns, b);
      layout.block_rows = a;
      layout.block_columns = b;
      break;
    case Pattern::Kind::kernel:
      check(weight.rank() == 4, "mask", "pattern kernel needs a convolution's weight (F,C,KH,KW), got shape {}",
            weight);
      layout.block_columns = weight[2] * weight[3];
      break;
    case Pattern::Kind::channel:
      check(a == 0 || (a == 1 && weight.rank() >= 2), "mask", "pattern {} needs an axis {} in the weight {}",
            pattern.to_string(), a, weight);
      check(b >= 1 && weight[0] % b == 0, "mask", "pattern {} does not divide the {} rows of the weight {}",
            pattern.to_string(), weight[0], weight);
      if (a == 0) {
        layout.row_period = weight[0] / b;
        layout.block_columns = layout.columns;
      } else {
        layout.block_rows = layout.rows;
        layout.block_columns = layout.columns / weight[1];
      }
      break;
    case Pattern::Kind::recurrent:
      check(weight.rank() == 2 && weight[0] % weight[1] == 0, "mask",
            "pattern recurrent needs an LSTM's w_hh (4H,H), got shape {}", weight);
      layout.row_period = weight[1];
      layout.block_columns = layout.columns;
      layout.recurrent = true;
      break;
  }
  layout.grid_columns = layout.columns / layout.block_columns;
  return layout;
}

Mask Mask::make(const Shape& weight, const Pattern& pattern) {
  static std::atomic<uint64_t> next_version = 1;
  Mask mask;
  mask.shape_ = weight;
  mask.pattern_ = pattern;
  mask.layout_ = mask_layout(weight, pattern);
  mask.words_ = Tensor::zeros({(mask.num_units() + kWordBits - 1) / kWordBits}, DType::i64);
  mask.version_ = next_version.fetch_add(1, std::memory_order_relaxed);
  return mask;
}

Mask Mask::from_units(const Shape& weight, Pattern pattern, const std::vector<bool>& exists) {
  Mask mask = make(weight, pattern);
  check(static_cast<int64_t>(exists.size()) == mask.num_units(), "mask",
        "expected {} units for pattern {} on the weight {}, got {}", mask.num_units(), pattern.to_string(), weight,
        exists.size());
  int64_t* words = mask.words_.data<int64_t>();
  for (size_t i = 0; i < exists.size(); ++i)
    if (exists[i]) words[i / kWordBits] |= static_cast<int64_t>(uint64_t{1} << (i % kWordBits));
  if (pattern.kind() == Pattern::Kind::n_of_m) {
    const auto m = static_cast<size_t>(pattern.second());
    for (size_t group = 0; group < exists.size(); group += m) {
      const auto kept = std::count(exists.begin() + static_cast<int64_t>(group),
                                   exists.begin() + static_cast<int64_t>(group + m), true);
      check(kept <= pattern.first(), "mask", "pattern {}: group {} keeps {}", pattern.to_string(), group / m, kept);
    }
  }
  return mask;
}

Mask Mask::all(const Shape& weight, Pattern pattern) {
  check(pattern.kind() != Pattern::Kind::n_of_m || pattern.first() == pattern.second(), "mask",
        "pattern {} cannot keep every weight; start from an element mask", pattern.to_string());
  return from_units(weight, pattern,
                    std::vector<bool>(static_cast<size_t>(mask_layout(weight, pattern).units()), true));
}

Mask Mask::from_scores(const Shape& weight, Pattern pattern, const Tensor& scores, int64_t keep) {
  const MaskLayout layout = mask_layout(weight, pattern);
  const std::vector<double> values = checked_scores(scores, layout.units());
  check(keep >= 0 && keep <= layout.units(), "mask", "expected to keep 0 to {} units, got {}", layout.units(), keep);
  const std::vector<bool> allowed = admissible(layout, pattern, values);
  std::vector<bool> exists(values.size(), false);
  for (int64_t unit : best_first(values)) {
    if (keep == 0) break;
    if (!allowed[static_cast<size_t>(unit)]) continue;
    exists[static_cast<size_t>(unit)] = true;
    --keep;
  }
  return from_units(weight, pattern, exists);
}

Mask Mask::from_threshold(const Shape& weight, Pattern pattern, const Tensor& scores, double threshold) {
  const MaskLayout layout = mask_layout(weight, pattern);
  const std::vector<double> values = checked_scores(scores, layout.units());
  std::vector<bool> exists = admissible(layout, pattern, values);
  for (size_t i = 0; i < values.size(); ++i) exists[i] = exists[i] && values[i] >= threshold;
  return from_units(weight, pattern, exists);
}

Mask Mask::from_packed(const Shape& weight, Pattern pattern, const Tensor& bytes) {
  const int64_t units = mask_layout(weight, pattern).units();
  check(bytes.defined() && bytes.dtype() == DType::u8 && bytes.numel() == (units + 7) / 8, "mask",
        "expected {} bytes (u8) for {} units of pattern {} on the weight {}, got {}", (units + 7) / 8, units,
        pattern.to_string(), weight, describe(bytes));
  const std::vector<uint8_t> packed = bytes.to_vector<uint8_t>();
  std::vector<bool> exists(static_cast<size_t>(units));
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = packed[i / 8] >> (i % 8) & 1;
  return from_units(weight, pattern, exists);
}

Mask Mask::to(Device device) const {
  Mask mask = *this;
  if (defined()) mask.words_ = words_.to(device);
  return mask;
}

bool Mask::exists(int64_t unit) const {
  check(unit >= 0 && unit < num_units(), "mask", "expected a unit from 0 to {}, got {}", num_units() - 1, unit);
  const Tensor host = words_.to(Device::cpu());
  return static_cast<uint64_t>(host.data<int64_t>()[unit / kWordBits]) >> (unit % kWordBits) & 1;
}

std::vector<bool> Mask::units() const {
  const std::vector<int64_t> words = words_.to_vector<int64_t>();
  std::vector<bool> exists(static_cast<size_t>(num_units()));
  for (size_t i = 0; i < exists.size(); ++i)
    exists[i] = static_cast<uint64_t>(words[i / kWordBits]) >> (i % kWordBits) & 1;
  return exists;
}

int64_t Mask::count() const {
  int64_t total = 0;
  for (int64_t word : words_.to_vector<int64_t>()) total += std::popcount(static_cast<uint64_t>(word));
  return total;
}

int64_t Mask::count_elements() const {
  const int64_t alive = count();
  // A recurrent unit owns a row of each gate and a column: what remains is alive rows x alive columns.
  if (layout_.recurrent) return alive * (layout_.rows / layout_.row_period) * alive;
  return alive * (num_elements() / num_units());
}

template <class F>
Mask Mask::combine(const Mask& other, const char* operation, F&& f) const {
  check(defined() && other.defined() && shape_ == other.shape_, operation, "expected masks of one shape, got {} and {}",
        shape_, other.shape_);
  if (pattern_ != other.pattern_ || pattern_.kind() == Pattern::Kind::n_of_m || layout_.recurrent) {
    if (pattern_.kind() != Pattern::Kind::element || other.pattern_.kind() != Pattern::Kind::element)
      return as_elements().combine(other.as_elements(), operation, f);
  }
  Mask result = make(shape_, pattern_);
  const std::vector<int64_t> a = words_.to_vector<int64_t>(), b = other.words_.to_vector<int64_t>();
  int64_t* words = result.words_.data<int64_t>();
  for (size_t i = 0; i < a.size(); ++i) words[i] = f(a[i], b[i]);
  return result.to(device());
}

Mask Mask::operator&(const Mask& other) const {
  return combine(other, "mask &", [](int64_t a, int64_t b) { return a & b; });
}
Mask Mask::operator|(const Mask& other) const {
  return combine(other, "mask |", [](int64_t a, int64_t b) { return a | b; });
}
Mask Mask::operator^(const Mask& other) const {
  return combine(other, "mask ^", [](int64_t a, int64_t b) { return a ^ b; });
}

Mask Mask::operator~() const {
  check(!layout_.recurrent, "mask ~",
        "the complement of a recurrent mask is no set of hidden units; use as_elements()");
  if (pattern_.kind() == Pattern::Kind::n_of_m) return ~as_elements();
  std::vector<bool> exists = units();
  exists.flip();
  return from_units(shape_, pattern_, exists).to(device());
}

bool Mask::operator==(const Mask& other) const {
  if (defined() != other.defined()) return false;
  if (!defined() || version_ == other.version_) return true;
  return shape_ == other.shape_ && pattern_ == other.pattern_ && identical(words_, other.words_);
}

bool Mask::is_subset_of(const Mask& other) const { return (*this & other).count_elements() == count_elements(); }

Mask Mask::as_elements() const {
  if (pattern_.kind() == Pattern::Kind::element) return *this;
  return from_units(shape_, Pattern::element(), expand().to_vector<bool>()).to(device());
}

Tensor Mask::expand(DType dtype) const {
  const Tensor ones = Tensor::ones(shape_, DType::f32, device());
  return apply(ones).to(dtype);
}

Tensor Mask::apply(const Tensor& x) const {
  Tensor out = x.clone();
  apply_(out);
  return out;
}

void Mask::apply_(Tensor& x) const {
  check(x.shape() == shape_ && is_floating(x.dtype()), "mask", "expected f32 or f64 of the mask's shape {}, got {}",
        shape_, describe(x));
  check(x.device() == device(), "mask", "the tensor is on {}, the mask on {}; move one with .to(device)",
        x.device().name(), device().name());
  check(x.is_contiguous(), "mask", "expected a contiguous tensor");
  kernels(x.device()).apply_mask(layout_, words_, x);
  x.bump_version();
}

Tensor Mask::sum_over_units(const Tensor& x, const Pattern& pattern) {
  const MaskLayout layout = mask_layout(x.shape(), pattern);
  const std::vector<double> values = x.to_vector<double>();
  Tensor sums = Tensor::zeros({layout.units()}, DType::f64);
  double* sum = sums.data<double>();
  size_t i = 0;
  for (int64_t row = 0; row < layout.rows; ++row)
    for (int64_t column = 0; column < layout.columns; ++column, ++i) {
      const int64_t unit = layout.unit_of(row, column);
      sum[unit] += values[i];
      // An element of w_hh belongs to the unit of its row and to that of its column.
      if (layout.recurrent && column != unit) sum[column] += values[i];
    }
  return sums;
}

Tensor Mask::packed() const {
  const std::vector<bool> exists = units();
  Tensor bytes = Tensor::zeros({(num_units() + 7) / 8}, DType::u8);
  uint8_t* out = bytes.data<uint8_t>();
  for (size_t i = 0; i < exists.size(); ++i) out[i / 8] = static_cast<uint8_t>(out[i / 8] | (exists[i] << (i % 8)));
  return bytes;
}

std::string Mask::draw(int width, int height) const {
  constexpr std::string_view kShades = " .:-=+*#%@";
  check(width >= 1 && height >= 1, "draw", "expected a picture of at least 1x1, got {}x{}", width, height);
  const std::vector<float> alive = expand(DType::f32).to_vector<float>();
  const int64_t rows = layout_.rows, columns = layout_.columns;
  const int64_t h = std::min<int64_t>(rows, height), w = std::min<int64_t>(columns, width);
  std::string picture;
  for (int64_t i = 0; i < h; ++i) {
    for (int64_t j = 0; j < w; ++j) {
      double total = 0;
      const int64_t r0 = i * rows / h, r1 = (i + 1) * rows / h, c0 = j * columns / w, c1 = (j + 1) * columns / w;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) total += alive[static_cast<size_t>(r * columns + c)];
      const double share = total / static_cast<double>((r1 - r0) * (c1 - c0));
      // Any weight at all shows, and only a full cell is darkest.
      const size_t darkest = kShades.size() - 1;
      picture +=
          kShades[share == 1 ? darkest : static_cast<size_t>(std::ceil(share * static_cast<double>(darkest - 1)))];
    }
    picture += '\n';
  }
  return picture;
}

}  // namespace espalier
