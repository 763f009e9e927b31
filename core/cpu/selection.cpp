// Selection among many scores, by vector instructions where they help: comparisons make whole words of bits, and a
// histogram of the ranks in a narrow range looks at those alone that a comparison lets through.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "core/bits.h"
#include "core/cpu/mask_words.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {
namespace {

constexpr int64_t kGrainWords = 512;  // that are worth a thread

/// Bit j: whether f(values[j]), for up to a word of values.
template <class T, class F>
uint64_t bits_where(const T* values, int64_t count, const F& f) {
  constexpr int64_t kHalf = kWordBits / 2;
  const auto half = [&](const T* v, int64_t n) {
    uint32_t bits = 0;
#pragma omp simd reduction(| : bits)
    for (int64_t j = 0; j < n; ++j) bits |= static_cast<uint32_t>(f(v[j])) << j;
    return uint64_t{bits};
  };
  // The count is a constant here, so that f's loop has no remainder.
  if (count == kWordBits) return half(values, kHalf) | half(values + kHalf, kHalf) << kHalf;
  const uint64_t low = half(values, std::min(count, kHalf));
  return count > kHalf ? low | half(values + kHalf, count - kHalf) << kHalf : low;
}

/// Calls f(rank_of, R{}) with what makes a rank of type R of a score: where ranks are the scores, these in their own
/// type.
template <class T, class F>
void with_ranks(const Ranks& ranks, F&& f) {
  if (ranks.are_scores()) return f([](T score) { return score; }, T{});
  f([ranks](T score) { return ranks(static_cast<double>(score)); }, double{});
}

/// The number of type T to compare numbers of type T with, in place of a double that is none.
template <class T>
T bound_of(CompareOp op, double rank) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const T nearest = static_cast<T>(rank);
  if (static_cast<double>(nearest) == rank) return nearest;
  switch (op) {
    case CompareOp::lt:
    case CompareOp::ge: return static_cast<double>(nearest) < rank ? std::nextafter(nearest, kInfinity) : nearest;
    case CompareOp::gt:
    case CompareOp::le: return static_cast<double>(nearest) > rank ? std::nextafter(nearest, -kInfinity) : nearest;
    default: return std::numeric_limits<T>::quiet_NaN();  // no T equals it
  }
}

template <class T, class F>
void fill_words(const Tensor& scores, Tensor& words, const F& f) {
  const T* const s = scores.data<T>();
  int64_t* const bits = words.data<int64_t>();
  const int64_t units = scores.numel();
  parallel_for(words.numel(), kGrainWords, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w)
      bits[w] = static_cast<int64_t>(bits_where(s + w * kWordBits, std::min(kWordBits, units - w * kWordBits), f));
  });
}

/// counts[bin] += 1 for the candidates of one word.
template <class T, class RankOf>
void count_word(const T* scores, uint64_t word, const RankOf& rank_of, const RankBins& bins, int64_t* counts) {
  for (; word != 0; word &= word - 1) {
    const uint64_t bin = bins.bin_of(static_cast<double>(rank_of(scores[std::countr_zero(word)])));
    if (bin < RankBins::kCount) ++counts[bin];
  }
}

/// The same for whole words, where every rank is in some bin: bins are found as vectors, and neighbours are counted in
/// two places, since a count must not wait for the one before.
class WholeWords {
 public:
  template <class T, class RankOf>
  void count(const T* scores, uint64_t word, const RankOf& rank_of, const RankBins& bins) {
    std::array<uint32_t, kWordBits> bin;
#pragma omp simd
    for (size_t j = 0; j < kWordBits; ++j)
      bin[j] = static_cast<uint32_t>(bins.bin_of(static_cast<double>(rank_of(scores[j]))));
    if (word == ~uint64_t{0}) {
      for (size_t j = 0; j < kWordBits; ++j) ++counts_[j % 2][bin[j]];
    } else {
      for (; word != 0; word &= word - 1) {
        const auto j = static_cast<size_t>(std::countr_zero(word));
        ++counts_[j % 2][bin[j]];
      }
    }
  }
  void add_to(int64_t* counts) const {
    for (size_t bin = 0; bin < RankBins::kCount; ++bin) counts[bin] += counts_[0][bin] + counts_[1][bin];
  }

 private:
  std::array<std::array<int64_t, RankBins::kCount>, 2> counts_{};
};

/// The values whose keys the bins have, NaN apart: from .first to .second.
std::pair<double, double> range_of(const RankBins& bins) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const uint64_t last = bins.first + (uint64_t{RankBins::kCount} << bins.shift) - 1;
  return {double_of_key(std::max(bins.first, ordered_key(-kInfinity))),
          double_of_key(std::min(last, ordered_key(kInfinity)))};
}

/// The sum of 64 numbers, by halves.
double sum_by_halves(std::array<double, kWordBits>& terms) {
  for (size_t half = kWordBits / 2; half > 0; half /= 2) {
#pragma omp simd
    for (size_t i = 0; i < half; ++i) terms[i] += terms[i + half];
  }
  return terms[0];
}

}  // namespace

void compare_ranks(CompareOp op, const Tensor& scores, const Ranks& ranks, double rank, Tensor& words) {
  dispatch_floating(scores.dtype(), "compare_ranks", [&]<class T>(T) {
    with_ranks<T>(ranks, [&]<class R>(const auto& rank_of, R) {
      const auto fill = [&]<class Compare>(Compare compare) {
        fill_words<T>(scores, words,
                      [=, bound = bound_of<R>(op, rank)](T score) { return compare(rank_of(score), bound); });
      };
      switch (op) {
        case CompareOp::eq: return fill(std::equal_to<>{});
        case CompareOp::ne: return fill(std::not_equal_to<>{});
        case CompareOp::lt: return fill(std::less<>{});
        case CompareOp::le: return fill(std::less_equal<>{});
        case CompareOp::gt: return fill(std::greater<>{});
        case CompareOp::ge: return fill(std::greater_equal<>{});
      }
    });
  });
}

void count_ranks(const Tensor& scores, const Tensor& words, const Ranks& ranks, const RankBins& bins, Tensor& counts) {
  int64_t* const count = counts.data<int64_t>();
  std::fill_n(count, RankBins::kCount, 0);
  const int64_t* const candidates = words.data<int64_t>();
  const int64_t units = scores.numel();
  const bool has_all = bins.shift + RankBins::kBits == 64;
  dispatch_floating(scores.dtype(), "count_ranks", [&]<class T>(T) {
    const T* const s = scores.data<T>();
    with_ranks<T>(ranks, [&]<class R>(const auto& rank_of, R) {
      if (has_all) {
        const int64_t whole = units / kWordBits;
        WholeWords counted;
        for (int64_t w = 0; w < whole; ++w)
          counted.count(s + w * kWordBits, static_cast<uint64_t>(candidates[w]), rank_of, bins);
        counted.add_to(count);
        if (whole < words.numel())
          count_word(s + whole * kWordBits, static_cast<uint64_t>(candidates[whole]), rank_of, bins, count);
        return;
      }
      const auto [first, last] = range_of(bins);
      const R low = bound_of<R>(CompareOp::ge, first), high = bound_of<R>(CompareOp::le, last);
      const auto is_near = [=](T score) {
        const R rank = rank_of(score);
        return (rank >= low) & (rank <= high);
      };
      for (int64_t w = 0; w < words.numel(); ++w) {
        const T* const of_word = s + w * kWordBits;
        const uint64_t near = bits_where(of_word, std::min(kWordBits, units - w * kWordBits), is_near);
        count_word(of_word, near & static_cast<uint64_t>(candidates[w]), rank_of, bins, count);
      }
    });
  });
}

void best_of_groups(const Tensor& scores, int64_t n, int64_t m, Tensor& words) {
  int64_t* const bits = words.data<int64_t>();
  std::fill_n(bits, words.numel(), 0);
  dispatch_floating(scores.dtype(), "best_of_groups", [&]<class T>(T) {
    const T* const s = scores.data<T>();
    std::vector<int64_t> order(static_cast<size_t>(m));
    for (int64_t group = 0; group < scores.numel(); group += m) {
      std::iota(order.begin(), order.end(), group);
      std::nth_element(order.begin(), order.begin() + n - 1, order.end(),
                       [s](int64_t a, int64_t b) { return s[a] != s[b] ? s[a] > s[b] : a < b; });
      for (auto unit = order.begin(); unit != order.begin() + n; ++unit)
        bits[*unit / kWordBits] |= static_cast<int64_t>(uint64_t{1} << (*unit % kWordBits));
    }
  });
}

void sum_sizes(const Tensor& scores, const Tensor& words, Tensor& sums) {
  const int64_t* const bits = words.data<int64_t>();
  double* const sum = sums.data<double>();
  const int64_t units = scores.numel();
  dispatch_floating(scores.dtype(), "sum_sizes", [&]<class T>(T) {
    const T* const s = scores.data<T>();
    parallel_for(words.numel(), kGrainWords, [&](int64_t begin, int64_t end) {
      constexpr int64_t kHalf = kWordBits / 2;
      for (int64_t w = begin; w < end; ++w) {
        std::array<double, kWordBits> terms{};
        const auto add = [&](int64_t from, uint32_t exists) {
          const int64_t count = std::clamp<int64_t>(units - w * kWordBits - from, 0, kHalf);
          const T* const half = s + w * kWordBits + from;
          double* const to = terms.data() + from;
#pragma omp simd
          for (int64_t j = 0; j < count; ++j)
            to[j] = kept(lane<double>(exists, j), std::abs(static_cast<double>(half[j])));
        };
        add(0, static_cast<uint32_t>(bits[w]));
        add(kHalf, static_cast<uint32_t>(static_cast<uint64_t>(bits[w]) >> kHalf));
        sum[w] = sum_by_halves(terms);
      }
    });
  });
}

}  // namespace espalier::cpu
