// HRank: filters whose feature maps have low rank say little.
#include <unordered_map>

#include "core/linalg.h"
#include "core/threads.h"
#include "pruning/criteria/units.h"

namespace espalier {
namespace {

class HRank : public Criterion {
 public:
  void fields(FieldVisitor& f) override {
    f("tolerance", options_.tolerance, at_least(0), "Of the rank, relative, for each row or column of a map");
  }
  explicit HRank(const HRankOptions& options) : options_(options) {
    check(options.tolerance >= 0, "hrank", "expected a tolerance of at least 0, got {}", options.tolerance);
  }
  std::string name() const override { return "hrank"; }
  void check_fits(const Module&, const std::vector<Site>& sites) const override { check_whole_units(*this, sites); }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    if (input.sites) check_fits(input.module, *input.sites);  // before the network runs
    struct Total {
      std::vector<double> ranks;
      double maps = 0;
    };
    std::unordered_map<const void*, Total> totals;
    for_each_activation(*this, input, [&](const Parameter& weight, const Tensor& x) {
      const std::vector<int64_t> ranks = ranks_of_maps(x);
      Total& total = totals[weight.id()];
      const auto channels = static_cast<size_t>(x.size(1));
      total.ranks.resize(channels, 0.0);
      for (size_t i = 0; i < ranks.size(); ++i) total.ranks[i % channels] += static_cast<double>(ranks[i]);
      total.maps += static_cast<double>(x.size(0));
    });
    return spread_over_units(*this, parameters, input, [&](const Parameter& weight, int64_t) {
      const auto found = totals.find(weight.id());
      check(found != totals.end(), name(),
            "saw no output of '{}': it is no weight of a Linear or Conv2d that the network calls with (); "
            "choose by taylor, magnitude or wanda",
            weight.name());
      std::vector<double> mean = found->second.ranks;
      for (double& m : mean) m /= found->second.maps;
      return mean;
    });
  }

 private:
  /// Of every map of x (N,C,H,W), in order: threads only decide who computes which.
  std::vector<int64_t> ranks_of_maps(const Tensor& x) const {
    const std::vector<double> values = x.to_vector<double>();
    const int64_t height = x.size(2), width = x.size(3), plane = height * width;
    std::vector<int64_t> ranks(static_cast<size_t>(x.size(0) * x.size(1)));
    parallel_for(static_cast<int64_t>(ranks.size()), 16, [&](int64_t first, int64_t last) {
      std::vector<double> map;
      for (int64_t i = first; i < last; ++i) {
        map.assign(values.begin() + i * plane, values.begin() + (i + 1) * plane);
        ranks[static_cast<size_t>(i)] = rank_in_place(map, height, width, options_.tolerance);
      }
    });
    return ranks;
  }

  HRankOptions options_;
};

}  // namespace

CriterionPtr hrank_criterion(const HRankOptions& options) { return std::make_shared<HRank>(options); }

}  // namespace espalier
