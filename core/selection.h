// Choosing the lowest of many scores in time proportional to their number.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace espalier {

/// Units that may go, with their scores.
struct Candidates {
  Tensor scores;  ///< f32 or f64, one for each unit, contiguous on the CPU, no NaN
  Tensor words;   ///< one bit for each unit, as in Mask::words(), on the CPU: whether it is a candidate

  /// Bits that are set.
  int64_t count() const;
};

/// Where the lowest scores end: those below `score` belong to them, and `ties` of those that equal it.
struct Border {
  double score = 0;
  int64_t ties = 0;
};

/// The border of the `count` lowest scores among the candidates of all sets: a histogram over the leading bits of the
/// scores finds the bin in which it lies, and only that bin is looked at again. Throws when there are fewer.
Border border_of_lowest(std::span<const Candidates> sets, int64_t count);

/// Clears the bits of the candidates that belong to the lowest scores. Of those equal to the border's score, the ones
/// of the highest index go first, and `border.ties` becomes what is left for further sets. -0 equals 0.
void remove_lowest(Border& border, Candidates& candidates);

/// Clears the bits of the units whose score is below `low`, then sets those of the units whose score is above `high`.
/// scores: as in Candidates, NaN changes nothing; words: their bits.
void cut_and_splice(const Tensor& scores, double low, double high, Tensor& words);

/// The n best of every m scores, as bits like Candidates::words; of equal scores the lower index is the better. scores:
/// f32 or f64, contiguous on the CPU, as many as some groups of m have.
Tensor best_of_groups(const Tensor& scores, int64_t n, int64_t m);

/// The index of the first NaN, -1 when there is none. f32 or f64, contiguous on the CPU.
int64_t find_nan(const Tensor& scores);

}  // namespace espalier
