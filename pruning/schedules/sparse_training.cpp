#include "pruning/schedules/sparse_training.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include <nlohmann/json.hpp>

#include "core/bits.h"
#include "core/fields.h"
#include "core/ops.h"
#include "core/random.h"
#include "pruning/equal_units.h"
#include "pruning/identity.h"

namespace espalier {

namespace {
constexpr std::pair<Growth, const char*> kGrowths[] = {{Growth::random, "random"}, {Growth::gradient, "gradient"}};
constexpr uint64_t kGrowthStream = 0x67726F77;

/// The sums over each unit of what `f` makes of the masked members' parameters.
template <class F>
Tensor sums_of(const Site& site, F f) {
  Saliencies values;
  Site masked = site;
  std::erase_if(masked.members, [](const SiteMember& member) { return !member.masked; });
  for (const SiteMember& member : masked.members) values[member.parameter.id()] = f(member.parameter);
  return score_tensor(masked, values);
}
}  // namespace

const char* name_of(Growth growth) { return kGrowths[static_cast<size_t>(growth)].second; }

EnumNames names_of(Growth) { return {"growth", kGrowths}; }

Growth parse_growth(const std::string& text) { return value_of_name("growth", "growth", kGrowths, text); }

void fields(FieldVisitor& f, SparseTrainingOptions& o) {
  f("sparsity", o.sparsity, share_below_one(), "Of the weights, all the time");
  f("growth", o.growth, "What grows where others were dropped: gradient is RigL, random is SET");
  f("scope", o.allocation.scope, "How dense layers are: erk, or layer for all the same (not global)");
  f("fraction", o.fraction, share(), "Of a layer's units, dropped in the first update; then it falls to 0");
  f("end", o.end, share(), "Share of the training after which connections stay");
  f("every", o.every, at_least(1), "Steps between updates");
}

SparseTraining::SparseTraining(std::vector<Site> sites, const SparseTrainingOptions& options)
    : sites_(std::move(sites)), options_(options) {
  check(!sites_.empty(), "SparseTraining", "expected something to train sparsely, got no site");
  check(options.sparsity >= 0 && options.sparsity < 1, "SparseTraining", "expected a sparsity in [0,1), got {}",
        options.sparsity);
  check(options.fraction >= 0 && options.fraction <= 1 && options.end >= 0 && options.end <= 1, "SparseTraining",
        "expected a fraction and an end in [0,1], got {} and {}", options.fraction, options.end);
  check(options.every >= 1, "SparseTraining", "expected every >= 1 steps, got {}", options.every);
  check(options.allocation.scope != Scope::global, "SparseTraining",
        "random masks have no scores to compare between layers; use Scope::erk or Scope::layer");
  check_names(sites_, options.allocation);
  check_no_n_of_m("SparseTraining", sites_, "units grow one by one");
  for (const Site& site : sites_)
    for (const SiteMember& member : site.members) {
      const Mask& mask = member.parameter.mask();
      check(!member.masked || !mask.defined() || mask.pattern() == member.pattern, "SparseTraining",
            "'{}' has a mask of the pattern {}, and units of the pattern {} can't grow where it removed weights; take "
            "the mask's pattern, or start from a network without masks",
            member.parameter.name(), mask.pattern().to_string(), member.pattern.to_string());
    }
}

void SparseTraining::start() {
  std::vector<std::vector<double>> scores;
  std::vector<std::vector<bool>> candidates;
  for (size_t i = 0; i < sites_.size(); ++i) {
    Generator generator(options_.seed, kGrowthStream + i);
    scores.emplace_back(static_cast<size_t>(sites_[i].units));
    for (double& score : scores.back()) score = generator.next_uniform();
    candidates.push_back(existing_units(sites_[i]));
  }
  const auto exists = allocate(sites_, scores, candidates, options_.sparsity, options_.allocation);
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_units(sites_[i], exists[i]);
}

int64_t SparseTraining::end_step(int64_t total) const {
  return std::llround(options_.end * static_cast<double>(total));
}

bool SparseTraining::updates_in(int64_t step, int64_t total) const {
  return step > 0 && step % options_.every == 0 && step < end_step(total);
}

double SparseTraining::fraction_at(int64_t step, int64_t total) const {
  const int64_t end = end_step(total);
  if (step >= end) return 0;
  return options_.fraction / 2 *
         (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(end)));
}

void SparseTraining::update(int64_t step, int64_t total) {
  for (size_t i = 0; i < sites_.size(); ++i) {
    const Site& site = sites_[i];
    const Tensor alive = existing_words(site);
    const int64_t number = count_bits(alive);
    const auto drop = static_cast<int64_t>(fraction_at(step, total) * static_cast<double>(number));
    if (drop == 0 || number == site.units) continue;

    const Tensor closeness = -sums_of(site, [](const Parameter& p) { return abs(p.data()); });  // to 0
    const Tensor dropped = highest_of({closeness, alive}, drop);
    const Tensor left = combine_bits(BitOp::bit_and_not, alive, dropped);
    const Tensor absent = combine_bits(BitOp::bit_and_not, full_words(site.units, left.device()), left);
    const Tensor grown = highest_of({growth_scores(i, absent, step), absent}, drop);
    set_existing_words(site, combine_bits(BitOp::bit_or, left, grown), GradientFlow::masked);
  }
}

Tensor SparseTraining::growth_scores(size_t i, const Tensor& absent, int64_t step) const {
  const Site& site = sites_[i];
  if (options_.growth == Growth::gradient)
    return sums_of(site, [](const Parameter& p) {
      check(p.grad().defined(), "SparseTraining", "'{}' has no gradient to grow by", p.name());
      return abs(p.grad());
    });
  std::vector<double> scores(static_cast<size_t>(site.units));
  Generator generator(options_.seed, kGrowthStream + sites_.size() * static_cast<uint64_t>(step) + i);
  const std::vector<bool> takes_part = units_of_words(site, absent);
  for (size_t unit = 0; unit < scores.size(); ++unit)
    if (takes_part[unit]) scores[unit] = generator.next_uniform();
  return Tensor::from(scores, {site.units}).to(absent.device());
}

void SparseTraining::set_flow(GradientFlow flow) {
  for (const Site& site : sites_)
    for (const SiteMember& member : site.members) {
      Parameter parameter = member.parameter;
      if (member.masked && parameter.mask().defined() && parameter.gradient_flow() != flow)
        parameter.set_mask(parameter.mask(), flow);
    }
}

nlohmann::json SparseTraining::config() const {
  nlohmann::json config = identity_of("SparseTraining", sites_, options_);
  config["allocation"] = identity_of(options_.allocation);
  config["seed"] = options_.seed;
  return config;
}

void SparseTraining::on_epoch_begin(Trainer& trainer, int64_t epoch) {
  if (epoch != 1) return;
  start();
  if (options_.growth == Growth::gradient && updates_in(1, trainer.total_steps())) set_flow(GradientFlow::dense);
}

void SparseTraining::on_gradients(Trainer&, const StepRecord& record) {
  const int64_t total = record.steps;
  if (!updates_in(record.step, total)) return;
  update(record.step, total);
}

void SparseTraining::on_step_end(Trainer&, const StepRecord& record) {
  if (options_.growth != Growth::gradient) return;
  const int64_t total = record.steps;
  set_flow(updates_in(record.step + 1, total) ? GradientFlow::dense : GradientFlow::masked);
}

}  // namespace espalier
