#include "core/cpu/mask_words.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

void apply_mask(const MaskLayout& layout, const Tensor& words, Tensor& x) {
  constexpr int64_t kGrainWords = 512;  // that are worth a thread
  const MaskWords exists(layout, words.data<int64_t>());
  dispatch_floating(x.dtype(), "apply_mask", [&](auto zero) {
    using T = decltype(zero);
    T* const values = x.data<T>();
    parallel_for(exists.size(), kGrainWords, [&](int64_t begin, int64_t end) {
      exists.for_each_half(begin, end, [&](int64_t first, int64_t count, uint32_t bits) {
        if (bits == ~uint32_t{0}) return;  // patterns of whole rows have long runs of these
        T* const v = values + first;
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) v[j] = kept(lane<T>(bits, j), v[j]);
      });
    });
  });
}

}  // namespace espalier::cpu
