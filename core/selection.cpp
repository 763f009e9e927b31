#include "core/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/bits.h"
#include "core/ops.h"

namespace espalier {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor compared(CompareOp op, const Tensor& scores, const Ranks& ranks, double rank) {
  Tensor words = Tensor::empty({words_for(scores.numel())}, DType::i64, scores.device());
  kernels(scores.device()).compare_ranks(op, scores, ranks, rank, words);
  return words;
}

/// How many candidates of each set have their rank in each bin: i64, (sets, bins) on the CPU.
Tensor histograms(std::span<const Candidates> sets, const RankBins& bins) {
  const Device device = sets.front().scores.device();
  Tensor counts = Tensor::empty({static_cast<int64_t>(sets.size()), RankBins::kCount}, DType::i64, device);
  for (size_t i = 0; i < sets.size(); ++i) {
    const Candidates& set = sets[i];
    check(set.scores.device() == device && set.words.device() == device, "selection",
          "expected all scores and bits on {}, got {} and {}", device.name(), describe(set.scores),
          describe(set.words));
    Tensor row = counts.select(0, static_cast<int64_t>(i));
    kernels(device).count_ranks(set.scores, set.words, set.ranks, bins, row);
  }
  return counts.to(Device::cpu());
}

/// The bin with which the cost of the first bins reaches `rest`, which becomes what has to come from that bin. None
/// when all together cost less, but `must_be_inside` says that they do but for rounding.
std::optional<int64_t> bin_of_border(std::span<const Candidates> sets, const Tensor& counts, int64_t bins,
                                     bool must_be_inside, double& rest) {
  std::vector<double> costs(static_cast<size_t>(bins));
  for (size_t i = 0; i < sets.size(); ++i) {
    const int64_t* const row = counts.data<int64_t>() + static_cast<int64_t>(i) * RankBins::kCount;
    for (size_t bin = 0; bin < costs.size(); ++bin) costs[bin] += sets[i].cost * static_cast<double>(row[bin]);
  }
  auto last = costs.size();  // that is not empty
  while (last > 0 && costs[last - 1] == 0) --last;
  for (size_t bin = 0; bin < last; ++bin) {
    if (costs[bin] >= rest || (must_be_inside && bin + 1 == last)) return static_cast<int64_t>(bin);
    rest -= costs[bin];
  }
  return std::nullopt;
}

/// The least number of units that cost at least `rest`, at most `count`.
int64_t units_for(double rest, double cost, int64_t count) {
  const auto is_enough = [&](int64_t number) { return static_cast<double>(number) * cost >= rest; };
  auto number = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(rest / cost)), 1, count);
  while (number > 1 && is_enough(number - 1)) --number;
  while (number < count && !is_enough(number)) ++number;
  return number;
}

/// How many candidates of one rank go, the earlier sets' first, until they cost `rest`.
int64_t number_of_ties(std::span<const Candidates> sets, const Tensor& counts, int64_t bin, double rest) {
  int64_t ties = 0;
  for (size_t i = 0; i < sets.size() && rest > 0; ++i) {
    const int64_t count = counts.data<int64_t>()[static_cast<int64_t>(i) * RankBins::kCount + bin];
    if (count > 0) ties += units_for(rest, sets[i].cost, count);
    rest -= sets[i].cost * static_cast<double>(count);
  }
  return ties;
}

}  // namespace

int64_t Candidates::count() const { return count_bits(words); }

double Candidates::mean_size() const {
  const int64_t number = count();
  if (number == 0) return 0;
  const auto sums_of_words = [](const Tensor& values, const Tensor& bits) {
    Tensor sums = Tensor::empty({bits.numel()}, DType::f64, values.device());
    kernels(values.device()).sum_sizes(values, bits, sums);
    return sums;
  };
  Tensor sums = sums_of_words(scores, words);
  while (sums.numel() > 1) sums = sums_of_words(sums, full_words(sums.numel(), sums.device()));
  return sums.item() / static_cast<double>(number);
}

Border border_of_lowest(std::span<const Candidates> sets, double cost) {
  if (cost <= 0) return {-kInfinity, 0};
  if (sets.empty()) return {kInfinity, std::numeric_limits<int64_t>::max()};
  // The key of a float as a double ends in 29 bits that are alike: 0 of positive numbers, 1 of negative ones.
  constexpr int kSameBits = std::numeric_limits<double>::digits - std::numeric_limits<float>::digits;
  const bool are_floats = std::all_of(sets.begin(), sets.end(), [](const Candidates& set) {
    return set.scores.dtype() == DType::f32 && set.ranks.are_scores();
  });
  const int known_bits = are_floats ? kSameBits : 0;

  double rest = cost;  // to go in the bins and above
  int64_t number = RankBins::kCount;
  for (RankBins bins;;) {
    const Tensor counts = histograms(sets, bins);
    const bool is_first = bins.first == 0 && bins.shift == RankBins{}.shift;
    const std::optional<int64_t> bin = bin_of_border(sets, counts, number, !is_first, rest);
    if (!bin) return {kInfinity, std::numeric_limits<int64_t>::max()};
    bins.first += static_cast<uint64_t>(*bin) << bins.shift;
    if (bins.shift <= known_bits) {
      const uint64_t last = bins.first + (uint64_t{1} << bins.shift) - 1;
      const double rank = double_of_key(bins.first >> 63 ? bins.first : last);
      return {rank, number_of_ties(sets, counts, *bin, rest)};
    }
    const int shift = std::max(bins.shift - RankBins::kBits, 0);
    number = int64_t{1} << (bins.shift - shift);
    bins.shift = shift;
  }
}

void remove_lowest(Border& border, Candidates& candidates) {
  const auto bits = [&](CompareOp op) { return compared(op, candidates.scores, candidates.ranks, border.rank); };
  candidates.words = combine_bits(BitOp::bit_and_not, candidates.words, bits(CompareOp::lt));
  if (border.ties == 0) return;
  Tensor equal = combine_bits(BitOp::bit_and, candidates.words, bits(CompareOp::eq));
  equal = highest_bits(equal, border.ties);
  candidates.words = combine_bits(BitOp::bit_and_not, candidates.words, equal);
  border.ties -= count_bits(equal);
}

Tensor highest_of(const Candidates& candidates, int64_t count) {
  Candidates one_each = candidates;  // counted, not by costs that may be no whole numbers
  one_each.cost = 1;
  Border border = border_of_lowest(std::span(&one_each, 1), static_cast<double>(candidates.count() - count));
  remove_lowest(border, one_each);
  return one_each.words;
}

Tensor cut_and_splice(const Tensor& scores, double low, double high, const Tensor& words) {
  const Tensor left = combine_bits(BitOp::bit_and_not, words, compared(CompareOp::lt, scores, {}, low));
  return combine_bits(BitOp::bit_or, left, compared(CompareOp::gt, scores, {}, high));
}

Tensor at_least(const Tensor& scores, double threshold) { return compared(CompareOp::ge, scores, {}, threshold); }

Tensor best_of_groups(const Tensor& scores, int64_t n, int64_t m) {
  Tensor words = Tensor::empty({words_for(scores.numel())}, DType::i64, scores.device());
  kernels(scores.device()).best_of_groups(scores, n, m, words);
  return words;
}

int64_t find_nan(const Tensor& scores) {
  if (count_bits(compared(CompareOp::le, scores, {}, kInfinity)) == scores.numel()) return -1;
  return argmax(scores.reshape({scores.numel()}), 0).to_vector<int64_t>().front();  // a NaN counts as the largest
}

}  // namespace espalier
