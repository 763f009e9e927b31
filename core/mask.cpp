#include "core/mask.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/bits.h"
#include "core/kernels.h"
#include "core/ops.h"
#include "core/selection.h"

namespace espalier {
namespace {

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

/// Throws when a group of n of m keeps more than n: what is kept, but is none of the group's n best when 1 is kept and
/// 0 is not.
void check_groups(const Mask& mask) {
  const Pattern& pattern = mask.pattern();
  if (pattern.kind() != Pattern::Kind::n_of_m) return;
  const Tensor allowed = best_of_groups(mask.expand(DType::f32), pattern.first(), pattern.second());
  if (count_bits(combine_bits(BitOp::bit_and_not, mask.words(), allowed)) == 0) return;
  const std::vector<bool> exists = mask.units();
  const int64_t m = pattern.second();
  for (auto group = exists.begin(); group != exists.end(); group += m) {
    const int64_t kept = std::count(group, group + m, true);
    check(kept <= pattern.first(), "mask", "pattern {}: group {} keeps {}", pattern.to_string(),
          (group - exists.begin()) / m, kept);
  }
}

/// The scores, contiguous. Throws unless there is one for each unit and none is NaN.
Tensor checked_scores(const Tensor& scores, int64_t units) {
  check(scores.defined() && is_floating(scores.dtype()) && scores.numel() == units, "mask",
        "expected {} scores (f32 or f64), one for each unit, got {}", units, describe(scores));
  Tensor values = scores.contiguous();
  if (const int64_t nan = find_nan(values); nan >= 0) fail<NumericError>("mask", "the score of unit {} is NaN", nan);
  return values;
}

/// The units that a pattern allows to keep: all, or for n of m the n best of every m.
Candidates admissible(const Pattern& pattern, const Tensor& scores) {
  const bool grouped = pattern.kind() == Pattern::Kind::n_of_m;
  return {scores, grouped ? best_of_groups(scores, pattern.first(), pattern.second())
                          : full_words(scores.numel(), scores.device())};
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

Mask Mask::make(const Shape& weight, const Pattern& pattern, Tensor words) {
  static std::atomic<uint64_t> next_version{1};
  Mask mask;
  mask.shape_ = weight;
  mask.pattern_ = pattern;
  mask.layout_ = mask_layout(weight, pattern);
  mask.words_ = std::move(words);
  mask.version_ = next_version.fetch_add(1, std::memory_order_relaxed);
  return mask;
}

Mask Mask::from_units(const Shape& weight, Pattern pattern, const std::vector<bool>& exists) {
  const int64_t units = mask_layout(weight, pattern).units();
  check(static_cast<int64_t>(exists.size()) == units, "mask",
        "expected {} units for pattern {} on the weight {}, got {}", units, pattern.to_string(), weight, exists.size());
  Tensor words = Tensor::zeros({words_for(units)}, DType::i64);
  int64_t* const bits = words.data<int64_t>();
  for (size_t i = 0; i < exists.size(); ++i)
    bits[i / kWordBits] |= static_cast<int64_t>(uint64_t{exists[i]} << (i % kWordBits));
  return from_words(weight, pattern, words);
}

Mask Mask::from_words(const Shape& weight, Pattern pattern, const Tensor& words) {
  const int64_t units = mask_layout(weight, pattern).units();
  check(words.defined() && words.dtype() == DType::i64 && words.shape() == Shape{words_for(units)}, "mask",
        "expected {} words (i64) for {} units of pattern {} on the weight {}, got {}", words_for(units), units,
        pattern.to_string(), weight, describe(words));
  Mask mask =
      make(weight, pattern, combine_bits(BitOp::bit_and, words.contiguous(), full_words(units, words.device())));
  check_groups(mask);
  return mask;
}

Mask Mask::all(const Shape& weight, Pattern pattern) {
  check(pattern.kind() != Pattern::Kind::n_of_m || pattern.first() == pattern.second(), "mask",
        "pattern {} cannot keep every weight; start from an element mask", pattern.to_string());
  return make(weight, pattern, full_words(mask_layout(weight, pattern).units()));
}

Mask Mask::from_scores(const Shape& weight, Pattern pattern, const Tensor& scores, int64_t keep) {
  const int64_t units = mask_layout(weight, pattern).units();
  const Tensor values = checked_scores(scores, units);
  check(keep >= 0 && keep <= units, "mask", "expected to keep 0 to {} units, got {}", units, keep);
  return make(weight, pattern, highest_of(admissible(pattern, values), keep));
}

Mask Mask::from_threshold(const Shape& weight, Pattern pattern, const Tensor& scores, double threshold) {
  const Tensor values = checked_scores(scores, mask_layout(weight, pattern).units());
  return make(weight, pattern,
              combine_bits(BitOp::bit_and, admissible(pattern, values).words, at_least(values, threshold)));
}

Mask Mask::from_packed(const Shape& weight, Pattern pattern, const Tensor& bytes) {
  static_assert(std::endian::native == std::endian::little, "a word's first byte is its lowest");
  const int64_t units = mask_layout(weight, pattern).units();
  check(bytes.defined() && bytes.dtype() == DType::u8 && bytes.numel() == (units + 7) / 8, "mask",
        "expected {} bytes (u8) for {} units of pattern {} on the weight {}, got {}", (units + 7) / 8, units,
        pattern.to_string(), weight, describe(bytes));
  const Tensor host = bytes.to(Device::cpu()).contiguous();
  Tensor words = Tensor::zeros({words_for(units)}, DType::i64);
  std::memcpy(words.data<int64_t>(), host.data<uint8_t>(), static_cast<size_t>(host.numel()));
  return from_words(weight, pattern, words);
}

Mask Mask::to(Device device) const {
  Mask mask = *this;
  if (defined()) mask.words_ = words_.to(device);
  return mask;
}

bool Mask::exists(int64_t unit) const {
  check(unit >= 0 && unit < num_units(), "mask", "expected a unit from 0 to {}, got {}", num_units() - 1, unit);
  const auto word = words_.slice(0, unit / kWordBits, unit / kWordBits + 1).to_vector<int64_t>().front();
  return static_cast<uint64_t>(word) >> (unit % kWordBits) & 1;
}

std::vector<bool> Mask::units() const {
  const std::vector<int64_t> words = words_.to_vector<int64_t>();
  std::vector<bool> exists(static_cast<size_t>(num_units()));
  for (size_t i = 0; i < exists.size(); ++i)
    exists[i] = static_cast<uint64_t>(words[i / kWordBits]) >> (i % kWordBits) & 1;
  return exists;
}

int64_t Mask::count() const { return count_bits(words_); }

int64_t Mask::count_elements() const {
  const int64_t alive = count();
  // A recurrent unit owns a row of each gate and a column: what remains is alive rows x alive columns.
  if (layout_.recurrent) return alive * (layout_.rows / layout_.row_period) * alive;
  return alive * (num_elements() / num_units());
}

Mask Mask::combine(const Mask& other, const char* operation, BitOp op) const {
  check(defined() && other.defined() && shape_ == other.shape_, operation, "expected masks of one shape, got {} and {}",
        shape_, other.shape_);
  if (pattern_ != other.pattern_ || pattern_.kind() == Pattern::Kind::n_of_m || layout_.recurrent) {
    if (pattern_.kind() != Pattern::Kind::element || other.pattern_.kind() != Pattern::Kind::element)
      return as_elements().combine(other.as_elements(), operation, op);
  }
  return make(shape_, pattern_, combine_bits(op, words_, other.words_.to(device())));
}

Mask Mask::operator&(const Mask& other) const { return combine(other, "mask &", BitOp::bit_and); }
Mask Mask::operator|(const Mask& other) const { return combine(other, "mask |", BitOp::bit_or); }
Mask Mask::operator^(const Mask& other) const { return combine(other, "mask ^", BitOp::bit_xor); }

Mask Mask::operator~() const {
  check(!layout_.recurrent, "mask ~",
        "the complement of a recurrent mask is no set of hidden units; use as_elements()");
  if (pattern_.kind() == Pattern::Kind::n_of_m) return ~as_elements();
  return all(shape_, pattern_).to(device()) ^ *this;
}

bool Mask::operator==(const Mask& other) const {
  if (defined() != other.defined()) return false;
  if (!defined() || version_ == other.version_) return true;
  return shape_ == other.shape_ && pattern_ == other.pattern_ &&
         count_bits(combine_bits(BitOp::bit_xor, words_, other.words_.to(device()))) == 0;
}

bool Mask::is_subset_of(const Mask& other) const { return (*this & other).count_elements() == count_elements(); }

Mask Mask::as_elements() const {
  if (pattern_.kind() == Pattern::Kind::element) return *this;
  return make(shape_, Pattern::element(), at_least(expand(DType::f32), 1));
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
  Tensor sums = Tensor::empty({layout.units()}, DType::f64, x.device());
  kernels(x.device()).sum_over_units(layout, x.contiguous(), sums);
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
