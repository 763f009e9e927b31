// Mask: which weights exist. It is the truth: nothing is ever inferred from zeros.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace espalier {

enum class BitOp : uint8_t { bit_and, bit_or, bit_xor, bit_and_not };  ///< bit_and_not: a & ~b

/// The shape of what is kept or removed as one unit. A weight is seen as a matrix: axis 0 are its rows, all other axes
/// joined are its columns.
class Pattern {
 public:
  enum class Kind : uint8_t { element, block, n_of_m, kernel, channel, recurrent };

  /// Single weights.
  static Pattern element() { return {Kind::element, 1, 1}; }
  /// Tiles of rows x columns. {r,1} and {1,c} are vectors.
  static Pattern block(int64_t rows, int64_t columns) { return {Kind::block, rows, columns}; }
  /// Single weights, of which at most n remain in every m consecutive columns of a row.
  static Pattern n_of_m(int64_t n, int64_t m) { return {Kind::n_of_m, n, m}; }
  /// One filter's k x k slice for one input channel, of a weight (F,C,KH,KW).
  static Pattern kernel() { return {Kind::kernel, 1, 1}; }
  /// One index of an axis (0: filters or neurons; 1: input channels or features). With gates > 1 axis 0 is `gates`
  /// stacked copies and a unit is one row of each: LSTM's w_ih (4H,I) and biases (4H) have 4.
  static Pattern channel(int axis = 0, int64_t gates = 1) { return {Kind::channel, axis, gates}; }
  /// One hidden unit of an LSTM in w_hh (4H,H): its four rows and its column.
  static Pattern recurrent() { return {Kind::recurrent, 1, 1}; }

  /// "element", "block 4x1", "2 of 4", "kernel", "channel 0", "channel 0 of 4 gates", "recurrent".
  std::string to_string() const;
  /// The inverse of to_string. Throws ArgumentError.
  static Pattern parse(std::string_view text);

  Kind kind() const { return kind_; }
  int64_t first() const { return first_; }    ///< rows, n, or axis
  int64_t second() const { return second_; }  ///< columns, m, or gates
  bool operator==(const Pattern&) const = default;

 private:
  Pattern(Kind kind, int64_t first, int64_t second) : kind_(kind), first_(first), second_(second) {}
  Kind kind_;
  int64_t first_, second_;
};

/// How the units of a pattern lie in a weight, for kernels: element (r,c) of the matrix belongs to unit
/// ((r % row_period) / block_rows) * grid_columns + c / block_columns;
/// a recurrent one exists when both unit r % row_period and unit c do.
struct MaskLayout {
  int64_t rows = 1, columns = 1;
  int64_t row_period = 1;
  int64_t block_rows = 1, block_columns = 1;
  int64_t grid_columns = 1;
  bool recurrent = false;

  int64_t units() const { return row_period / block_rows * grid_columns; }
  int64_t unit_of(int64_t row, int64_t column) const {
    return (row % row_period) / block_rows * grid_columns + column / block_columns;
  }
};

/// The layout of a pattern on a weight. Throws when the pattern does not divide the weight, saying which sizes would.
MaskLayout mask_layout(const Shape& weight, const Pattern& pattern);

/// Which units of a weight exist, one bit for each unit. Immutable: operations return new masks.
class Mask {
 public:
  /// Undefined: defined() is false.
  Mask() = default;
  /// Everything exists.
  static Mask all(const Shape& weight, Pattern pattern = Pattern::element());
  /// From one bool for each unit.
  static Mask from_units(const Shape& weight, Pattern pattern, const std::vector<bool>& exists);
  /// Keeps the `keep` units with the highest scores; equal scores: the lower index. scores: f32 or f64, one for each
  /// unit. n of m: keeps the n best of every m, and of these the `keep` best overall. NaN is an error. The mask is on
  /// the scores' device.
  static Mask from_scores(const Shape& weight, Pattern pattern, const Tensor& scores, int64_t keep);
  /// Keeps the units whose score is at least the threshold (and for n of m, at most the n best of every m).
  static Mask from_threshold(const Shape& weight, Pattern pattern, const Tensor& scores, double threshold);
  /// From words() of such a mask, on their device. Bits behind the last unit don't count.
  static Mask from_words(const Shape& weight, Pattern pattern, const Tensor& words);
  /// From the bytes of a file: u8, units packed eight to a byte, lowest bit first.
  static Mask from_packed(const Shape& weight, Pattern pattern, const Tensor& bytes);

  bool defined() const { return words_.defined(); }
  const Shape& shape() const { return shape_; }
  const Pattern& pattern() const { return pattern_; }
  const MaskLayout& layout() const { return layout_; }
  Device device() const { return words_.device(); }
  Mask to(Device device) const;
  /// Changes with the bits: two masks of one version have the same bits.
  uint64_t version() const { return version_; }

  int64_t num_units() const { return layout_.units(); }
  int64_t num_elements() const { return shape_.numel(); }
  bool exists(int64_t unit) const;
  std::vector<bool> units() const;
  /// Units that exist.
  int64_t count() const;
  /// Weights that exist.
  int64_t count_elements() const;
  double density() const { return static_cast<double>(count_elements()) / static_cast<double>(num_elements()); }
  double sparsity() const { return 1 - density(); }

  // Masks of one shape. Of two patterns the result is an element mask.
  Mask operator&(const Mask& other) const;
  Mask operator|(const Mask& other) const;
  Mask operator^(const Mask& other) const;
  Mask operator~() const;  ///< not for recurrent patterns: the rest of a matrix is no set of hidden units
  bool operator==(const Mask& other) const;
  bool is_subset_of(const Mask& other) const;

  /// The same weights as an element mask.
  Mask as_elements() const;
  /// 1 where a weight exists, else 0, in the weight's shape.
  Tensor expand(DType dtype = DType::boolean) const;
  /// x where a weight exists, else 0 (also where x is NaN). x: f32 or f64 in the weight's shape.
  Tensor apply(const Tensor& x) const;
  /// The same in place; x contiguous.
  void apply_(Tensor& x) const;
  /// Sums a value for each weight (f32 or f64, the weight's shape) over each unit: f64, one for each unit, on x's
  /// device.
  static Tensor sum_over_units(const Tensor& x, const Pattern& pattern);

  /// 64 bits a word, lowest bit first; i64, on the mask's device.
  const Tensor& words() const { return words_; }
  /// u8, eight units a byte: what files hold.
  Tensor packed() const;
  /// A picture in text, at most `width` by `height` characters: darker where more weights exist.
  std::string draw(int width = 64, int height = 32) const;

 private:
  static Mask make(const Shape& weight, const Pattern& pattern, Tensor words);
  Mask combine(const Mask& other, const char* operation, BitOp op) const;

  Shape shape_;
  Pattern pattern_ = Pattern::element();
  MaskLayout layout_;
  Tensor words_;
  uint64_t version_ = 0;
};

}  // namespace espalier
