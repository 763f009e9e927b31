// Choosing the lowest of many scores in time proportional to their number, on the CPU: of a network on a GPU the scores
// come to the host at each pruning (four bytes a weight), and masks go back (a bit a weight). Nothing in between does:
// masks are applied where the weights are. On the device itself it would take kernels in the contract of core/kernels.h
// for the histogram, the border's bin and the words.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace espalier {

/// From the scores of a set to ranks, which compare between sets.
struct Ranks {
  double mean = 1;  ///< scores are divided by it
  double cost = 1;  ///< and by this; a score below 0 is multiplied: the dearer is the lower, whichever the sign

  double operator()(double score) const {
    const double relative = score / mean;
    return relative < 0 ? relative * cost : relative / cost;
  }
  bool are_scores() const { return mean == 1 && cost == 1; }
};

/// Units that may go, with their scores.
struct Candidates {
  Tensor scores;     ///< f32 or f64, one for each unit, contiguous on the CPU, no NaN
  Tensor words;      ///< one bit for each unit, as in Mask::words(), on the CPU: whether it is a candidate
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
/// when these cost less. A histogram over the leading bits of the ranks finds the bin in which the border lies, and
/// only that bin is looked at again. Of equal ranks the earlier set's go first.
Border border_of_lowest(std::span<const Candidates> sets, double cost);

/// Clears the bits of the candidates that belong to the lowest ranks. Of those equal to the border's rank, the ones of
/// the highest index go first, and `border.ties` becomes what is left for further sets. -0 equals 0.
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
