#include "core/selection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "core/error.h"

namespace espalier {
namespace {

constexpr int64_t kWordBits = 64;
constexpr int kBinBits = 12;  // sign, exponent and three bits of the fraction: 4096 counts stay in the first cache

/// The bin of a rank. Bins are in the order of the ranks; a double falls into the bin of the nearest float.
template <class T>
uint32_t bin_of(T score) {
  constexpr uint32_t kSign = uint32_t{1} << 31;
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(score) + 0.0F);  // -0 + 0 = 0
  // Negative numbers grow with falling bits; all bits flipped they come first, in order.
  return (bits & kSign ? ~bits : bits | kSign) >> (32 - kBinBits);
}

template <class T, class F>
void for_each_score(const Candidates& candidates, F&& f) {
  const T* const scores = candidates.scores.data<T>();
  const int64_t* const words = candidates.words.data<int64_t>();
  for (int64_t w = 0; w < candidates.words.numel(); ++w) {
    auto word = static_cast<uint64_t>(words[w]);
    const T* const s = scores + w * kWordBits;
    if (word == ~uint64_t{0}) {
      for (int64_t j = 0; j < kWordBits; ++j) f(s[j]);
    } else {
      for (; word != 0; word &= word - 1) f(s[std::countr_zero(word)]);
    }
  }
}

/// f(rank) of each candidate; where ranks are the scores, these in their own type.
template <class F>
void for_each_rank(const Candidates& candidates, F&& f) {
  dispatch_floating(candidates.scores.dtype(), "selection", [&]<class T>(T) {
    if (candidates.ranks.are_scores())
      for_each_score<T>(candidates, f);
    else
      for_each_score<T>(candidates, [&, ranks = candidates.ranks](T score) { f(ranks(static_cast<double>(score))); });
  });
}

/// Bit j: whether compare(scores[j]), for up to a word of scores.
template <class T, class Compare>
uint64_t bits_where(const T* scores, int64_t count, const Compare& compare) {
  constexpr int64_t kHalf = kWordBits / 2;
  const auto half = [&](const T* s, int64_t n) {
    uint32_t bits = 0;
#pragma omp simd reduction(| : bits)
    for (int64_t j = 0; j < n; ++j) bits |= static_cast<uint32_t>(compare(s[j])) << j;
    return uint64_t{bits};
  };
  if (count == kWordBits) return half(scores, kHalf) | half(scores + kHalf, kHalf) << kHalf;
  const uint64_t low = half(scores, std::min(count, kHalf));
  return count > kHalf ? low | half(scores + kHalf, count - kHalf) << kHalf : low;
}

/// remove_lowest() where a score's rank is rank_of(score), in the type of `border_rank`.
template <class T, class Number, class RankOf>
void remove_ranked(Border& border, Candidates& candidates, Number border_rank, const RankOf& rank_of) {
  const T* const scores = candidates.scores.data<T>();
  int64_t* const words = candidates.words.data<int64_t>();
  const int64_t units = candidates.scores.numel(), count = candidates.words.numel();
  const auto clear = [&](int64_t w, uint64_t bits) { words[w] &= static_cast<int64_t>(~bits); };
  const auto units_of = [&](int64_t w) { return std::min(kWordBits, units - w * kWordBits); };
  for (int64_t w = 0; w < count; ++w)
    clear(w, bits_where(scores + w * kWordBits, units_of(w), [=](T score) { return rank_of(score) < border_rank; }));
  for (int64_t w = count - 1; w >= 0 && border.ties > 0; --w) {
    uint64_t equal =
        bits_where(scores + w * kWordBits, units_of(w), [=](T score) { return rank_of(score) == border_rank; });
    equal &= static_cast<uint64_t>(words[w]);
    while (std::popcount(equal) > border.ties) equal &= equal - 1;  // the lowest index stays
    clear(w, equal);
    border.ties -= std::popcount(equal);
  }
}

}  // namespace

int64_t Candidates::count() const {
  int64_t total = 0;
  for (int64_t w = 0; w < words.numel(); ++w) total += std::popcount(static_cast<uint64_t>(words.data<int64_t>()[w]));
  return total;
}

double Candidates::mean_size() const {
  double sum = 0;
  dispatch_floating(scores.dtype(), "selection", [&]<class T>(T) {
    for_each_score<T>(*this, [&](T score) { sum += std::abs(static_cast<double>(score)); });
  });
  return sum / static_cast<double>(std::max<int64_t>(count(), 1));
}

Border border_of_lowest(std::span<const Candidates> sets, double cost) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (cost <= 0) return {-kInfinity, 0};
  constexpr size_t kBins = size_t{1} << kBinBits;
  std::array<int64_t, kBins> all{};
  std::array<double, kBins> costs{};
  for (const Candidates& set : sets) {
    std::array<int64_t, kBins> counts{};
    for_each_rank(set, [&](auto rank) { ++counts[bin_of(rank)]; });
    for (size_t bin = 0; bin < kBins; ++bin) {
      all[bin] += counts[bin];
      costs[bin] += set.cost * static_cast<double>(counts[bin]);
    }
  }
  double rest = cost;  // to go in this bin and those above
  size_t bin = 0;
  for (; bin < kBins && costs[bin] < rest; ++bin) rest -= costs[bin];
  if (bin == kBins) return {kInfinity, std::numeric_limits<int64_t>::max()};

  using Place = std::pair<double, size_t>;                       // the rank, then the set
  std::vector<double> ranks(static_cast<size_t>(all[bin]) + 1);  // the last place takes what is in other bins
  std::vector<Place> inside;
  inside.reserve(ranks.size());
  size_t size = 0;
  for (size_t set = 0; set < sets.size(); ++set) {
    for_each_rank(sets[set], [&](auto rank) {
      ranks[size] = static_cast<double>(rank);
      size += bin_of(rank) == bin;
    });
    while (inside.size() < size) inside.emplace_back(ranks[inside.size()], set);
  }
  auto last = inside.begin(), end = inside.end();  // the last to go is in here, all before it go
  const auto cost_of = [&](auto from, auto to) {
    return std::accumulate(from, to, 0.0,
                           [&](double sum, const Place& place) { return sum + sets[place.second].cost; });
  };
  double total = cost_of(last, end);
  for (int round = 1; end - last > 1; ++round) {
    // Where it would be if all cost the same, which is often so; else by halves.
    const auto candidates = static_cast<double>(end - last);
    const double place = round % 3 == 0 ? candidates / 2 : std::ceil(rest / total * candidates) - 1;
    const auto middle = last + static_cast<std::ptrdiff_t>(std::clamp(place, 1.0, candidates - 1));
    std::nth_element(last, middle, end);
    const double lower = cost_of(last, middle);
    if (lower < rest) {
      rest -= lower;
      total -= lower;
      last = middle;
    } else {
      total = lower;
      end = middle;
    }
  }
  return {last->first,
          std::count_if(inside.begin(), last + 1, [&](const Place& place) { return place.first == last->first; })};
}

void remove_lowest(Border& border, Candidates& candidates) {
  dispatch_floating(candidates.scores.dtype(), "selection", [&]<class T>(T) {
    const T rank = static_cast<T>(border.rank);
    if (candidates.ranks.are_scores() && static_cast<double>(rank) == border.rank)
      remove_ranked<T>(border, candidates, rank, [](T score) { return score; });
    else
      remove_ranked<T>(border, candidates, border.rank,
                       [ranks = candidates.ranks](T score) { return ranks(static_cast<double>(score)); });
  });
}

void cut_and_splice(const Tensor& scores, double low, double high, Tensor& words) {
  int64_t* const bits = words.data<int64_t>();
  dispatch_floating(scores.dtype(), "selection", [&]<class T>(T) {
    // In T, so that floats needn't become doubles: a score is below `low` if it is below the least T that is not.
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    T least = static_cast<T>(low), most = static_cast<T>(high);
    if (static_cast<double>(least) < low) least = std::nextafter(least, kInfinity);
    if (static_cast<double>(most) > high) most = std::nextafter(most, -kInfinity);
    const T* s = scores.data<T>();
    for (int64_t w = 0, left = scores.numel(); left > 0; ++w, s += kWordBits, left -= kWordBits) {
      const int64_t count = std::min(kWordBits, left);
      const uint64_t cut = bits_where(s, count, [least](T score) { return score < least; });
      const uint64_t spliced = bits_where(s, count, [most](T score) { return score > most; });
      bits[w] = static_cast<int64_t>((static_cast<uint64_t>(bits[w]) & ~cut) | spliced);
    }
  });
}

Tensor best_of_groups(const Tensor& scores, int64_t n, int64_t m) {
  Tensor words = Tensor::zeros({(scores.numel() + kWordBits - 1) / kWordBits}, DType::i64);
  int64_t* const bits = words.data<int64_t>();
  dispatch_floating(scores.dtype(), "selection", [&]<class T>(T) {
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
  return words;
}

int64_t find_nan(const Tensor& scores) {
  int64_t found = -1;
  dispatch_floating(scores.dtype(), "selection", [&]<class T>(T) {
    const T* const s = scores.data<T>();
    const int64_t n = scores.numel();
    int64_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; ++i) count += s[i] != s[i];
    if (count > 0) found = std::find_if(s, s + n, [](T value) { return value != value; }) - s;
  });
  return found;
}

}  // namespace espalier
