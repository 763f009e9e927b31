#include "pruning/criteria/units.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "layers/norm.h"
#include "pruning/criteria/scoring.h"

namespace espalier {
namespace {

bool is_channel_row(const Pattern& pattern) { return pattern.kind() == Pattern::Kind::channel && pattern.first() == 0; }

/// Patterns of single weights, blocks and kernels, the parts of rows.
bool is_finer_than_rows(const Pattern& pattern) {
  return pattern.kind() != Pattern::Kind::channel && pattern.kind() != Pattern::Kind::recurrent;
}

bool produces(const SiteMember& member) {
  return member.masked && member.parameter.shape().rank() >= 2 && is_channel_row(member.pattern);
}

class Spreader {
 public:
  Spreader(const std::vector<Parameter>& parameters, const JudgeUnits& judge) : judge_(judge) {
    for (const Parameter& p : parameters) values_[p.id()].assign(static_cast<size_t>(p.numel()), 0.0);
  }

  void judge_rows(const Parameter& weight) {
    if (!done_.insert(weight.id()).second) return;
    const std::vector<double>& scores = scores_of(weight, 1);
    for (size_t row = 0; row < scores.size(); ++row) lay(weight, scores.size(), row, scores[row]);
  }

  void judge_site(const Site& site) {
    std::vector<double> total(static_cast<size_t>(site.units), 0.0);
    for (const SiteMember& member : site.members) {
      if (!produces(member)) continue;
      const std::vector<double>& scores = scores_of(member.parameter, member.pattern.second());
      for (size_t u = 0; u < scores.size(); ++u)
        if (const int64_t to = member.site_unit(static_cast<int64_t>(u)); to >= 0)
          total[static_cast<size_t>(to)] += scores[u];
    }
    // Each unit on one member: a bias or scale if there is any, else a weight.
    std::vector<bool> laid(total.size(), false);
    for (const bool vectors : {true, false})
      for (const SiteMember& member : site.members)
        if (member.masked && is_channel_row(member.pattern) && (member.parameter.shape().rank() == 1) == vectors)
          lay_units(member, total, laid);
  }

  Saliencies saliencies(const std::vector<Parameter>& parameters) const {
    Saliencies result;
    for (const Parameter& p : parameters) result[p.id()] = like(p, values_.at(p.id()));
    return result;
  }

 private:
  const std::vector<double>& scores_of(const Parameter& weight, int64_t gates) {
    std::vector<double>& scores = scores_[weight.id()];
    if (scores.empty()) scores = judge_(weight, gates);
    return scores;
  }

  void lay_units(const SiteMember& member, const std::vector<double>& total, std::vector<bool>& laid) {
    const auto units = static_cast<size_t>(member.parameter.size(0) / member.pattern.second());
    for (size_t u = 0; u < units; ++u) {
      const int64_t to = member.site_unit(static_cast<int64_t>(u));
      if (to < 0 || laid[static_cast<size_t>(to)]) continue;
      laid[static_cast<size_t>(to)] = lay(member.parameter, units, u, total[static_cast<size_t>(to)]);
    }
  }

  /// Spreads `score` evenly over the existing weights in rows u, u + units, ...; false when there are none.
  bool lay(const Parameter& parameter, size_t units, size_t u, double score) {
    const auto found = values_.find(parameter.id());
    if (found == values_.end()) return false;
    const std::vector<bool>& exists = existing(parameter);
    const auto rows = static_cast<size_t>(parameter.size(0));
    const size_t columns = exists.size() / rows;
    std::vector<size_t> places;
    for (size_t row = u; row < rows; row += units)
      for (size_t i = row * columns; i < (row + 1) * columns; ++i)
        if (exists[i]) places.push_back(i);
    for (size_t i : places) found->second[i] = score / static_cast<double>(places.size());
    return !places.empty();
  }

  const std::vector<bool>& existing(const Parameter& parameter) {
    std::vector<bool>& bits = existing_[parameter.id()];
    if (bits.empty()) bits = existing_weights(parameter);
    return bits;
  }

  const JudgeUnits& judge_;
  std::unordered_map<const void*, std::vector<double>> values_, scores_;
  std::unordered_map<const void*, std::vector<bool>> existing_;
  std::unordered_set<const void*> done_;  ///< weights whose rows have been judged
};

}  // namespace

void check_whole_units(const Criterion& criterion, const std::vector<Site>& sites) {
  for (const Site& site : sites) {
    for (const SiteMember& member : site.members)
      check(
          !member.masked || !is_finer_than_rows(member.pattern), criterion.name(),
          "judges whole filters and neurons, and the units of site '{}' are parts of them ({}): all in a filter would "
          "score the same; prune 'channel 0' or channels (channel_sites), or choose by magnitude, taylor or woodfisher",
          site.name, member.pattern.to_string());
    check(std::any_of(site.members.begin(), site.members.end(), produces), criterion.name(),
          "site '{}' has no member with two axes or more whose rows are masked, and this criterion judges rows; prune "
          "'channel 0' or channels (channel_sites), or use another criterion",
          site.name);
  }
}

Saliencies spread_over_units(const Criterion& criterion, const std::vector<Parameter>& parameters,
                             const CriterionInput& input, const JudgeUnits& judge) {
  Spreader spreader(parameters, judge);
  if (input.sites) {
    check_whole_units(criterion, *input.sites);
    for (const Site& site : *input.sites) spreader.judge_site(site);
  } else {
    for (const Parameter& p : parameters)
      if (p.shape().rank() >= 2) spreader.judge_rows(p);
  }
  return spreader.saliencies(parameters);
}

std::vector<bool> existing_weights(const Parameter& parameter) {
  if (!parameter.mask().defined()) return std::vector<bool>(static_cast<size_t>(parameter.numel()), true);
  return parameter.mask().as_elements().units();
}

std::vector<UnitOutputs> observe_units(const Module& network, const std::function<void()>& forward) {
  std::unordered_set<const Module*> norms;
  for (const auto& [name, norm] : batch_norms(network)) norms.insert(norm.get());
  std::vector<UnitOutputs> seen;
  const ForwardObserver observer([&](Module& module, const Variable& in, const Variable& out) {
    if (const ChannelAccount account = module.channels(); account.is_affine)
      seen.push_back({module.parameter(account.readers[0].weight), out, channel_axis(account.axis, out.rank())});
    if (!norms.contains(&module)) return;
    for (UnitOutputs& s : seen)
      if (s.output.is_same(in)) s.output = out;
  });
  forward();
  return seen;
}

void for_each_activation(const Criterion& criterion, const CriterionInput& input,
                         const std::function<void(const Parameter& weight, const Tensor& activations)>& f) {
  const EvalMode mode(input.module);
  const NoGrad no_grad;
  for_each_batch(criterion, input, [&](const Batch& batch) {
    for (const UnitOutputs& s : observe_units(input.module, [&] { forward_of(input, batch); })) {
      const Tensor activation = relu(s.output).data().contiguous();
      f(s.weight, activation.rank() == 4 && s.channel_axis == 1
                      ? activation
                      : activation.reshape({-1, s.output.size(s.channel_axis), 1, 1}));
    }
  });
}

}  // namespace espalier
