// Criteria from what flows through the network: Wanda and APoZ.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "pruning/criteria/scoring.h"
#include "pruning/criteria/units.h"

namespace espalier {
namespace {

// --- Wanda -----------------------------------------------------------------------------------------------------------

/// Sums of squared inputs for each weight: of the feature or channel that it is multiplied with.
class InputNorms {
 public:
  /// What the layer's readers take.
  void see_input(const Module& module, const Tensor& input) {
    const ChannelAccount account = module.channels();
    for (const ChannelReader& reader : account.readers)
      add(module.parameter(reader.weight),
          selected(squares(input, channel_axis(account.axis, input.rank())), reader.inputs),
          reader.window ? reader.window->groups : 1);
  }

  /// What a weight reads inside of the layer.
  void see_read(const Module& module, const Parameter& weight, const Tensor& x) {
    add(weight, squares(x, channel_axis(module.channels().axis, x.rank())), 1);
  }

  /// |w| * ||x||_2, or nothing for a parameter whose input was not seen.
  std::vector<double> score(const Parameter& p) const {
    const auto found = features_.find(p.id());
    if (found == features_.end()) return {};
    const auto& [sums, groups] = found->second;
    const auto rows = static_cast<size_t>(p.size(0)), inputs = static_cast<size_t>(p.size(1));
    std::vector<double> score = p.data().to_vector<double>();
    const size_t taps = score.size() / (rows * inputs);  // k*k of a convolution
    for (size_t i = 0; i < score.size(); ++i) {
      const size_t row = i / (inputs * taps), group = row / (rows / groups);
      score[i] = std::abs(score[i]) * std::sqrt(sums[group * inputs + i / taps % inputs]);
    }
    return score;
  }

 private:
  struct Features {
    std::vector<double> sums;
    size_t groups = 1;
  };

  static std::vector<double> squares(const Tensor& x, int axis) {
    Axes others;
    for (int i = 0; i < x.rank(); ++i)
      if (i != axis) others.push_back(i);
    const Tensor exact = x.to(DType::f64);
    return sum(square(exact), others).to_vector<double>();
  }

  /// Of the features that the layer reads; empty: all.
  static std::vector<double> selected(const std::vector<double>& all, const std::vector<int64_t>& inputs) {
    if (inputs.empty()) return all;
    std::vector<double> result;
    for (int64_t i : inputs) result.push_back(all[static_cast<size_t>(i)]);
    return result;
  }

  void add(const Parameter& weight, const std::vector<double>& sums, int64_t groups) {
    Features& features = features_[weight.id()];
    features.groups = static_cast<size_t>(groups);
    features.sums.resize(sums.size(), 0.0);
    for (size_t i = 0; i < sums.size(); ++i) features.sums[i] += sums[i];
  }

  std::unordered_map<const void*, Features> features_;
};

/// Ranks in each row, from 1/n to 1; of equal scores the higher index ranks lower, as allocate removes it first.
void rank_rows(std::vector<double>& scores, size_t rows) {
  const size_t n = scores.size() / rows;
  std::vector<size_t> order(n);
  for (size_t row = 0; row < rows; ++row) {
    double* const score = scores.data() + row * n;
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return score[a] != score[b] ? score[a] < score[b] : a > b; });
    for (size_t rank = 0; rank < n; ++rank) score[order[rank]] = static_cast<double>(rank + 1) / static_cast<double>(n);
  }
}

class Wanda : public Criterion {
 public:
  explicit Wanda(const WandaOptions& options) : options_(options) {}
  void fields(FieldVisitor& f) override {
    f("per_row", options_.per_row, "The score's rank in its row: the same share of every row goes");
  }
  std::string name() const override { return "wanda"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    InputNorms norms;
    {
      const EvalMode mode(input.module);
      const NoGrad no_grad;
      for_each_batch(*this, input, [&](const Batch& batch) {
        const ForwardObserver inputs(
            [&](Module& module, const Variable& x, const Variable&) { norms.see_input(module, x.data()); });
        const ReadObserver inside([&](Module& module, const Parameter& weight, const Variable& x) {
          norms.see_read(module, weight, x.data());
        });
        forward_of(input, batch);
      });
    }
    Saliencies result;
    for (const Parameter& p : parameters) {
      std::vector<double> score = norms.score(p);
      check(!score.empty() || p.shape().rank() < 2, name(),
            "saw no input of '{}': it is no weight of a Linear, Conv2d or LSTM that the network calls with ()",
            p.name());
      if (score.empty()) score.assign(static_cast<size_t>(p.numel()), 0.0);
      if (options_.per_row && p.shape().rank() >= 2) {
        rank_rows(score, static_cast<size_t>(p.size(0)));
        const std::vector<bool> exists = existing_weights(p);
        for (size_t i = 0; i < score.size(); ++i)
          if (!exists[i]) score[i] = 0;
      }
      result[p.id()] = like(p, score);
    }
    return result;
  }

 private:
  WandaOptions options_;
};

// --- APoZ ------------------------------------------------------------------------------------------------------------

class Apoz : public Criterion {
 public:
  std::string name() const override { return "apoz"; }
  void check_fits(const Module&, const std::vector<Site>& sites) const override { check_whole_units(*this, sites); }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    if (input.sites) check_fits(input.module, *input.sites);  // before the network runs
    struct Count {
      std::vector<double> positive;
      double all = 0;
    };
    std::unordered_map<const void*, Count> counts;
    for_each_activation(*this, input, [&](const Parameter& weight, const Tensor& x) {
      const std::vector<double> positive = sum(x > 0.0, {0, 2, 3}).to_vector<double>();
      Count& count = counts[weight.id()];
      count.positive.resize(positive.size(), 0.0);
      for (size_t c = 0; c < positive.size(); ++c) count.positive[c] += positive[c];
      count.all += static_cast<double>(x.numel() / x.size(1));
    });
    return spread_over_units(*this, parameters, input, [&](const Parameter& weight, int64_t) {
      const auto found = counts.find(weight.id());
      check(found != counts.end(), name(),
            "saw no output of '{}': it is no weight of a Linear or Conv2d that the network calls with (); "
            "choose by taylor, magnitude or wanda",
            weight.name());
      std::vector<double> share = found->second.positive;
      for (double& s : share) s /= found->second.all;
      return share;
    });
  }
};

}  // namespace

CriterionPtr wanda_criterion(const WandaOptions& options) { return std::make_shared<Wanda>(options); }
CriterionPtr apoz_criterion() { return std::make_shared<Apoz>(); }

}  // namespace espalier
