// Allocation in linear time, against the greedy removal in order of scores that defines it.
#include "pruning/equal_units.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/random.h"
#include "layers/models/zoo.h"
#include "pruning/pruner.h"

namespace espalier {
namespace {

using Bits = std::vector<bool>;

/// What allocate() documents, unit by unit: candidates in order of scores, of equal ones the higher index first.
std::vector<Bits> greedy(const std::vector<Site>& sites, std::vector<std::vector<double>> scores,
                         std::vector<Bits> exists, double sparsity, const AllocationOptions& options) {
  struct Queue {
    std::vector<size_t> order;
    int64_t gone = 0, removable = 0, removed = 0;
    bool takes_part = true;
  };
  const double each = static_cast<double>(sites[0].members[0].parameter.numel()) / static_cast<double>(sites[0].units);
  std::vector<Queue> queues;
  for (size_t s = 0; s < sites.size(); ++s) {
    const Pattern& pattern = sites[s].members[0].pattern;
    const bool is_protected = options.protect == std::vector<std::string>{sites[s].name};
    if (pattern.kind() == Pattern::Kind::n_of_m && !is_protected)
      for (size_t group = 0; group < scores[s].size(); group += static_cast<size_t>(pattern.second())) {
        std::vector<size_t> order(static_cast<size_t>(pattern.second()));
        std::iota(order.begin(), order.end(), group);
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[s][a] > scores[s][b]; });
        for (auto i = static_cast<size_t>(pattern.first()); i < order.size(); ++i) exists[s][order[i]] = false;
      }
    Queue& queue = queues.emplace_back();
    double mean = 0;
    for (size_t i = 0; i < exists[s].size(); ++i)
      if (exists[s][i]) mean += std::abs(scores[s][i]);
    queue.gone = std::count(exists[s].begin(), exists[s].end(), false);
    mean /= static_cast<double>(std::max<int64_t>(sites[s].units - queue.gone, 1));
    if (options.normalize && mean > 0)
      for (double& score : scores[s]) score /= mean;
    queue.order.resize(scores[s].size());
    std::iota(queue.order.begin(), queue.order.end(), size_t{0});
    std::sort(queue.order.begin(), queue.order.end(), [&, s](size_t a, size_t b) {
      if (exists[s][a] != exists[s][b]) return !exists[s][a];
      return scores[s][a] != scores[s][b] ? scores[s][a] < scores[s][b] : a > b;
    });
    queue.removable =
        is_protected ? queue.gone : std::max(queue.gone, sites[s].units - std::min(options.min_units, sites[s].units));
    queue.removed = queue.gone;
    queue.takes_part = options.scope == Scope::global || !is_protected;
  }
  const auto weights = [each](int64_t units) { return each * static_cast<double>(units); };
  if (options.scope == Scope::layer) {
    for (size_t s = 0; s < sites.size(); ++s)
      while (queues[s].takes_part && queues[s].removed < queues[s].removable &&
             weights(queues[s].removed) + 0.5 * each <= sparsity * weights(sites[s].units))
        ++queues[s].removed;
  } else {
    int64_t all = 0, removed = 0;
    for (size_t s = 0; s < sites.size(); ++s) all += sites[s].units, removed += queues[s].gone;
    for (; weights(removed) + 0.5 * each <= sparsity * weights(all); ++removed) {
      size_t best = sites.size();
      const auto next = [&](size_t s) { return scores[s][queues[s].order[static_cast<size_t>(queues[s].removed)]]; };
      for (size_t s = 0; s < sites.size(); ++s)
        if (queues[s].removed < queues[s].removable && (best == sites.size() || next(s) < next(best))) best = s;
      if (best == sites.size()) break;
      ++queues[best].removed;
    }
  }
  for (size_t s = 0; s < sites.size(); ++s) {
    const int64_t kept = sites[s].units - queues[s].removed;
    const int64_t up = (kept + options.round_to - 1) / options.round_to * options.round_to;
    const int64_t removed = sites[s].units - std::min(sites[s].units - queues[s].gone, up);
    exists[s].assign(exists[s].size(), true);
    for (int64_t i = 0; i < removed; ++i) exists[s][queues[s].order[static_cast<size_t>(i)]] = false;
  }
  return exists;
}

std::vector<Site> sites_of(const Pattern& pattern) {
  std::vector<Site> sites;
  for (const Shape& shape : {Shape{6, 20}, Shape{2, 4}, Shape{30, 40}, Shape{4, 8}}) {
    const std::string name = fmt::format("site{}", sites.size());
    sites.push_back(site_of(name, Parameter(name, Tensor::ones(shape)), pattern));
  }
  return sites;
}

TEST(EqualUnits, AreAllocatedAsGreedyRemovalDoes) {
  Generator generator(3);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(generator.next_uniform() * static_cast<double>(n)); };
  int compared = 0;
  for (const Pattern& pattern : {Pattern::element(), Pattern::block(2, 4), Pattern::n_of_m(2, 4)})
    for (int round = 0; round < 300; ++round) {
      const std::vector<Site> sites = sites_of(pattern);
      AllocationOptions options{.scope = round % 2 == 0 ? Scope::global : Scope::layer,
                                .normalize = below(3) == 0,
                                .min_units = below(4),
                                .round_to = 1 + below(3)};
      if (below(4) == 0) options.protect = {sites[static_cast<size_t>(below(4))].name};
      std::vector<std::vector<double>> scores;
      std::vector<Bits> candidates;
      for (const Site& site : sites) {
        scores.emplace_back();
        candidates.emplace_back();
        const double share = below(2) == 0 ? 1 : 0.7, scale = below(2) == 0 ? 1 : 10;
        for (int64_t i = 0; i < site.units; ++i) {
          const bool tied = below(2) == 0;
          scores.back().push_back(scale * (tied ? static_cast<double>(below(5) - 1) : generator.next_uniform()));
          if (!options.normalize && below(50) == 0) scores.back().back() = std::numeric_limits<double>::infinity();
          candidates.back().push_back(generator.next_uniform() < share);
        }
      }
      const double sparsity = 0.95 * generator.next_uniform();
      SCOPED_TRACE(fmt::format("{} round {} sparsity {}", pattern.to_string(), round, sparsity));
      ASSERT_TRUE(have_equal_units(sites, options));
      std::vector<Bits> got;
      try {
        got = allocate(sites, scores, candidates, sparsity, options);
      } catch (const ArgumentError&) {
        continue;  // out of reach of the limits
      }
      ++compared;
      ASSERT_EQ(got, greedy(sites, scores, candidates, sparsity, options));
    }
  EXPECT_GT(compared, 600);
}

TEST(EqualUnits, APrunerChoosesWhatItsScoresSay) {
  set_seed(5);
  for (const Pattern& pattern : {Pattern::element(), Pattern::kernel()})
    for (const Scope scope : {Scope::global, Scope::layer}) {
      const ModulePtr words = make_model("lenet5"), bools = words->clone();
      Pruner pruner(words, weight_sites(*words, pattern), {.allocation = {.scope = scope}});
      Pruner reference(bools, weight_sites(*bools, pattern), {.allocation = {.scope = scope}});
      for (const double sparsity : {0.3, 0.3, 0.8}) {
        pruner.prune(sparsity);
        const std::vector<Site>& sites = reference.sites();
        std::vector<Bits> candidates;
        for (const Site& site : sites) candidates.push_back(existing_units(site));
        const auto exists = greedy(sites, reference.scores(), candidates, sparsity, {.scope = scope});
        for (size_t s = 0; s < sites.size(); ++s) {
          set_existing_units(sites[s], exists[s]);
          EXPECT_TRUE(pruner.sites()[s].members[0].parameter.mask() == sites[s].members[0].parameter.mask());
        }
        EXPECT_DOUBLE_EQ(pruner.removed_share(), pruner.sparsity());
      }
    }
}

TEST(EqualUnits, AScoreThatIsNaNNamesTheUnitAndTheSite) {
  const std::vector<Site> sites = sites_of(Pattern::element());
  std::vector<std::vector<double>> scores;
  std::vector<Bits> candidates;
  for (const Site& site : sites) {
    scores.emplace_back(static_cast<size_t>(site.units), 1.0);
    candidates.emplace_back(static_cast<size_t>(site.units), true);
  }
  scores[2][7] = std::nan("");
  try {
    allocate(sites, scores, candidates, 0.5);
    FAIL() << "expected an error";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("unit 7 of 'site2'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace espalier
