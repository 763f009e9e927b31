// Choosing the lowest of many scores in time proportional to their number, on the scores' device: only counts come to
// the host, of a network on a GPU a histogram for each site and digit of the ranks. Scores and the bits of masks stay
// where they are.
#pragma once

#include <cstdint>
#include <span>

#include "core/ranks.h"
#include "core/tensor.h"

namespace espalier {

/// Units that may go, with their scores.
struct Candidates {
  Tensor scores;     ///< f32 or f64, one for each unit, contiguous, no NaN
  Tensor words;      ///< one bit for each unit, as in Mask::words(), on the scores' device: whether it is a candidate
  Ranks ranks = {};  ///< by which units are compared
  double cost = 1;   ///< of each unit, above 0

  /// Bits that are set.
  int64_t count() const;
  /// The mean size of the candidates' scores; 0 without candidates.
  double mean_size() const;
};

/// Where the lowest ranks end: those below `rank` belong to them, and `ties` of those that equal it.
struct Border {
  double rank = 0;
  int64_t ties = 0;
};

/// The border of the lowest ranks among the candidates of all sets, as few as cost at least `cost` together; of all
/// when these cost less. All sets are on one device. The ranks' digits are found one by one, the leading one first,
/// each by a histogram of the ranks that have the digits before (radix select). Of equal ranks the earlier set's go
/// first.
Border border_of_lowest(std::span<const Candidates> sets, double cost);

/// Takes the bits of the candidates that belong to the lowest ranks out of candidates.words. Of those equal to the
/// border's rank, the ones of the highest index go first, and `border.ties` becomes what is left for further sets. -0
/// equals 0.
void remove_lowest(Border& border, Candidates& candidates);

/// The candidates that stay when all but the `count` highest go, as bits; of equal ranks the lower index stays.
Tensor highest_of(const Candidates& candidates, int64_t count);

/// The words without the units whose score is below `low`, and with those whose score is above `high`. scores: as in
/// Candidates, NaN changes nothing; words: their bits.
Tensor cut_and_splice(const Tensor& scores, double low, double high, const Tensor& words);

/// Bits like Candidates::words: the units whose score is at least the threshold.
Tensor at_least(const Tensor& scores, double threshold);

/// The n best of every m scores, as bits like Candidates::words; of equal scores the lower index is the better. scores:
/// f32 or f64, contiguous, as many as some groups of m have.
Tensor best_of_groups(const Tensor& scores, int64_t n, int64_t m);

/// The index of the first NaN, -1 when there is none. f32 or f64, contiguous.
int64_t find_nan(const Tensor& scores);

}  // namespace espalier
