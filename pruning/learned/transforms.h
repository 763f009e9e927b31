// What parameters go through while gates or masks of their units are learned: transforms (layers/transforms.h) that the
// callbacks of this folder and network surgery give to the parameters of sites.
#pragma once

#include "layers/module.h"
#include "pruning/site.h"

namespace espalier {

/// Makes the transforms of this page, and the variational layers, known to module_from_config. Those who give them to a
/// network call it; a program that loads a checkpoint of a training under way calls it first.
void register_learned_modules();

/// Which of a site's units the units of one of its parameters are.
struct MemberUnits {
  Pattern pattern = Pattern::element();
  /// For each unit of the pattern the site's unit, or -1; empty: they are the same.
  std::vector<int64_t> site_units = {};
  int64_t count = 0;  ///< units of the site
};
MemberUnits units_of(const Site& site, size_t member);

/// The hard concrete distribution of Louizos et al. 2018 (hard_concrete.h), and where its noise comes from.
struct HardConcrete {
  double beta = 2.0 / 3, gamma = -0.1, zeta = 1.1;
  uint64_t seed = 0, stream = 0;

  /// The gates of a training step: log_alpha's shape. The noise is a function of seed, stream and step.
  Variable sample(const Variable& log_alpha, int64_t step) const;
  /// The gates in evaluation.
  std::vector<double> mean(const Tensor& log_alpha) const;
  /// The probability that a gate is not 0.
  Tensor open_probability(const Tensor& log_alpha) const;
};

/// Multiplies a weight by the gates of its units: in training by sampled ones, else by their values in evaluation.
class HardConcreteGate : public Module {
 public:
  HardConcreteGate(MemberUnits units, const HardConcrete& distribution);
  Variable forward(const Variable& weight) override;
  std::string type() const override { return "HardConcreteGate"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  /// Which step's noise training sees.
  void set_step(int64_t step);

 private:
  MemberUnits units_;
  HardConcrete distribution_;
  Parameter& log_alpha_;  ///< (units of the site)
  Tensor& step_;
};

/// Lets a weight be seen through a mask that the optimiser doesn't know: straight_through (units.h), with or without
/// scores.
class StraightThroughMask : public Module {
 public:
  /// No unit of the weight exists before the first mask is set.
  StraightThroughMask(MemberUnits units, const Shape& weight, bool has_scores, GradientFlow flow);
  Variable forward(const Variable& weight) override;
  std::string type() const override { return "StraightThroughMask"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  /// Throws unless the mask has the weight's shape and the member's pattern.
  void set_mask(const Mask& mask);

 private:
  const Mask& mask();

  MemberUnits units_;
  Shape weight_;
  GradientFlow flow_;
  Parameter& scores_;  ///< (units of the site), or undefined
  Tensor& exists_;     ///< the mask's words
  Mask mask_;          ///< made of bits_
  Tensor bits_;        ///< what exists_ was then
  uint64_t version_ = 0;
};

/// The transforms of one kind that somebody has given to the masked parameters of sites; taken off when it goes away.
template <class Transform>
class MemberTransforms {
 public:
  struct Entry {
    size_t site, member;
    Parameter parameter;
    std::shared_ptr<Transform> transform;
  };

  MemberTransforms() = default;
  ~MemberTransforms() { detach(); }
  MemberTransforms(const MemberTransforms&) = delete;
  MemberTransforms& operator=(const MemberTransforms&) = delete;

  /// Gives them fresh ones: make(site, member).
  template <class Make>
  void attach(const std::vector<Site>& sites, Make&& make) {
    detach();
    for (size_t s = 0; s < sites.size(); ++s)
      for (size_t m = 0; m < sites[s].members.size(); ++m) {
        if (!sites[s].members[m].masked) continue;
        Entry& entry = entries_.emplace_back(Entry{s, m, sites[s].members[m].parameter, make(s, m)});
        entry.parameter.add_transform(entry.transform);
      }
  }
  void detach() {
    for (Entry& entry : entries_) {  // a checkpoint that was loaded may have taken it off
      std::vector<ModulePtr> others = entry.parameter.transforms();
      std::erase(others, entry.transform);
      entry.parameter.set_transforms(std::move(others));
    }
    entries_.clear();
  }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace espalier
