#include "core/mask.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/kernels.h"
#include "core/ops.h"
#include "core/selection.h"

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

uint64_t lowest_bits(int64_t count) { return count >= kWordBits ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }
int64_t words_for(int64_t bits) { return (bits + kWordBits - 1) / kWordBits; }

/// Words with the lowest `bits` bits set.
Tensor full_words(int64_t bits) {
  Tensor words = Tensor::full({words_for(bits)}, -1, DType::i64);
  if (bits % kWordBits != 0)
    words.data<int64_t>()[bits / kWordBits] = static_cast<int64_t>(lowest_bits(bits % kWordBits));
  return words;
}

/// Throws when a group of n of m keeps more than n.
void check_groups(const Pattern& pattern, const Tensor& words, int64_t units) {
  if (pattern.kind() != Pattern::Kind::n_of_m) return;
  const int64_t* const bits = words.data<int64_t>();
  const int64_t m = pattern.second();
  for (int64_t group = 0; group < units; group += m) {
    int64_t kept = 0;
    for (int64_t i = group; i < group + m; ++i)
      kept += static_cast<uint64_t>(bits[i / kWordBits]) >> (i % kWordBits) & 1;
    check(kept <= pattern.first(), "mask", "pattern {}: group {} keeps {}", pattern.to_string(), group / m, kept);
  }
}

/// The scores on the CPU, contiguous. Throws unless there is one for each unit and none is NaN.
Tensor checked_scores(const Tensor& scores, int64_t units) {
  check(scores.defined() && is_floating(scores.dtype()) && scores.numel() == units, "mask",
        "expected {} scores (f32 or f64), one for each unit, got {}", units, describe(scores));
  Tensor values = scores.to(Device::cpu()).contiguous();
  if (const int64_t nan = find_nan(values); nan >= 0) fail<NumericError>("mask", "the score of unit {} is NaN", nan);
  return values;
}

/// The units that a pattern allows to keep: all, or for n of m the n best of every m.
Candidates admissible(const MaskLayout& layout, const Pattern& pattern, const Tensor& scores) {
  const bool grouped = pattern.kind() == Pattern::Kind::n_of_m;
  return {scores, grouped ? best_of_groups(scores, pattern.first(), pattern.second()) : full_words(layout.units())};
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
  const bool has_elements = std::all_of(weight.begin(), weight.end(), [](int64_t size) { return size > 0; });
  check(weight.rank() >= 1 && has_elements, "mask", "expected a weight with elements, got shape {}", weight);
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
  mask.words_ = Tensor::zeros({words_for(mask.num_units())}, DType::i64);
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
    words[i / kWordBits] |= static_cast<int64_t>(uint64_t{exists[i]} << (i % kWordBits));
  check_groups(pattern, mask.words_, mask.num_units());
  return mask;
}

Mask Mask::all(const Shape& weight, Pattern pattern) {
  check(pattern.kind() != Pattern::Kind::n_of_m || pattern.first() == pattern.second(), "mask",
        "pattern {} cannot keep every weight; start from an element mask", pattern.to_string());
  Mask mask = make(weight, pattern);
  mask.words_ = full_words(mask.num_units());
  return mask;
}

Mask Mask::from_scores(const Shape& weight, Pattern pattern, const Tensor& scores, int64_t keep) {
  Mask mask = make(weight, pattern);
  const Tensor values = checked_scores(scores, mask.num_units());
  check(keep >= 0 && keep <= mask.num_units(), "mask", "expected to keep 0 to {} units, got {}", mask.num_units(),
        keep);
  Candidates kept = admissible(mask.layout_, pattern, values);
  Border border = border_of_lowest(std::span(&kept, 1), kept.count() - keep);
  remove_lowest(border, kept);
  mask.words_ = kept.words;
  return mask;
}

Mask Mask::from_threshold(const Shape& weight, Pattern pattern, const Tensor& scores, double threshold) {
  Mask mask = make(weight, pattern);
  const Tensor values = checked_scores(scores, mask.num_units());
  mask.words_ = admissible(mask.layout_, pattern, values).words;
  int64_t* const words = mask.words_.data<int64_t>();
  dispatch_floating(values.dtype(), "mask", [&]<class T>(T) {
    const T* const s = values.data<T>();
    for (int64_t i = 0; i < values.numel(); ++i)
      if (!(static_cast<double>(s[i]) >= threshold))
        words[i / kWordBits] &= static_cast<int64_t>(~(uint64_t{1} << (i % kWordBits)));
  });
  return mask;
}

Mask Mask::from_packed(const Shape& weight, Pattern pattern, const Tensor& bytes) {
  static_assert(std::endian::native == std::endian::little, "a word's first byte is its lowest");
  const int64_t units = mask_layout(weight, pattern).units();
  check(bytes.defined() && bytes.dtype() == DType::u8 && bytes.numel() == (units + 7) / 8, "mask",
        "expected {} bytes (u8) for {} units of pattern {} on the weight {}, got {}", (units + 7) / 8, units,
        pattern.to_string(), weight, describe(bytes));
  Mask mask = make(weight, pattern);
  const Tensor host = bytes.to(Device::cpu()).contiguous();
  int64_t* const words = mask.words_.data<int64_t>();
  std::memcpy(words, host.data<uint8_t>(), static_cast<size_t>(host.numel()));
  if (units % kWordBits != 0) words[units / kWordBits] &= static_cast<int64_t>(lowest_bits(units % kWordBits));
  check_groups(pattern, mask.words_, units);
  return mask;
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
  const Tensor a = words_.to(Device::cpu()), b = other.words_.to(Device::cpu());
  const int64_t *left = a.data<int64_t>(), *right = b.data<int64_t>();
  int64_t* const words = result.words_.data<int64_t>();
  for (int64_t i = 0; i < a.numel(); ++i) words[i] = f(left[i], right[i]);
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
  return all(shape_, pattern_).to(device()) ^ *this;
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
  const Tensor values = x.to(Device::cpu()).contiguous();
  Tensor sums = Tensor::zeros({layout.units()}, DType::f64);
  dispatch_floating(values.dtype(), "sum_over_units", [&]<class T>(T) {
    const T* value = values.data<T>();
    double* const sum = sums.data<double>();
    for (int64_t row = 0; row < layout.rows; ++row) {
      double* unit = sum + layout.unit_of(row, 0);
      for (int64_t column = 0; column < layout.columns; column += layout.block_columns, ++unit)
        for (int64_t i = 0; i < layout.block_columns; ++i, ++value) {
          *unit += static_cast<double>(*value);
          // An element of w_hh belongs to the unit of its row and to that of its column.
          if (layout.recurrent && sum + i != unit) sum[i] += static_cast<double>(*value);
        }
    }
  });
  return sums;
}

Tensor Mask::packed() const {
  const Tensor host = words_.to(Device::cpu());
  Tensor bytes = Tensor::empty({(num_units() + 7) / 8}, DType::u8);
  std::memcpy(bytes.data<uint8_t>(), host.data<int64_t>(), static_cast<size_t>(bytes.numel()));
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
