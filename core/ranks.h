// From scores to ranks, which compare between sets of units, and ranks in bins, by which selection finds the k-th.
#pragma once

#include "core/ordered_key.h"

namespace espalier {

/// From the scores of a set to ranks, which compare between sets.
struct Ranks {
  double mean = 1;  ///< scores are divided by it
  double cost = 1;  ///< and by this; a score below 0 is multiplied: the dearer is the lower, whichever the sign

  constexpr double operator()(double score) const {
    const double relative = score / mean;
    return relative < 0 ? relative * cost : relative / cost;
  }
  constexpr bool are_scores() const { return mean == 1 && cost == 1; }
};

/// Bins of ranks by their keys: bin i has the keys from first + i * 2^shift up to the next bin.
struct RankBins {
  static constexpr int kBits = 12, kCount = 1 << kBits;
  uint64_t first = 0;
  int shift = 64 - kBits;  ///< the bins of the default have all keys

  /// The bin of a rank; kCount or more: it is in none.
  constexpr uint64_t bin_of(double rank) const { return (ordered_key(rank) - first) >> shift; }
};

}  // namespace espalier
