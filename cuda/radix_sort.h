// A stable sort of unsigned keys, which carry their positions along: for sort and topk of long lines, and for indexing,
// which visits equal indices in order.
#pragma once

#include "cuda/launch.h"

namespace espalier::cuda {

/// `lines` lines of n keys (uint32_t or uint64_t), each sorted by itself. The caller's kernel fills keys() and
/// positions(), runs the sort, and finds both in order at keys() and positions(), which have moved.
template <class Key>
class RadixSort {
 public:
  RadixSort(Context& context, int64_t lines, int64_t n);

  Key* keys() const { return keys_.template as<Key>() + side_ * lines_ * n_; }
  uint32_t* positions() const { return positions_.as<uint32_t>() + side_ * lines_ * n_; }

  /// Orders the keys by their lowest `bits` bits, ascending; equal keys keep their order.
  void run(int bits);

 private:
  Context& context_;
  int64_t lines_, n_, tiles_;
  Scratch keys_, positions_;  ///< twice all lines: every pass moves them from one side to the other
  Scratch counts_;
  int64_t side_ = 0;
};

}  // namespace espalier::cuda
