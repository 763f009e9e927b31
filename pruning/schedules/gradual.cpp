#include "pruning/schedules/gradual.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/fields.h"
#include "pruning/identity.h"

namespace espalier {

namespace {
constexpr std::pair<SparsityCurve, const char*> kCurves[] = {{SparsityCurve::one_shot, "one-shot"},
                                                             {SparsityCurve::linear, "linear"},
                                                             {SparsityCurve::geometric, "geometric"},
                                                             {SparsityCurve::cubic, "cubic"}};
constexpr int64_t kPrunings = 100;
constexpr int64_t kCalibrateEvery = 10;  // prunings, by a budget
}  // namespace

const char* name_of(SparsityCurve curve) { return kCurves[static_cast<size_t>(curve)].second; }

EnumNames names_of(SparsityCurve) { return {"sparsity curve", kCurves}; }

SparsityCurve parse_sparsity_curve(const std::string& text) {
  return value_of_name("schedule", "sparsity curve", kCurves, text);
}

double sparsity_at(SparsityCurve curve, double t, double initial, double final) {
  t = std::clamp(t, 0.0, 1.0);
  switch (curve) {
    case SparsityCurve::one_shot: return final;
    case SparsityCurve::linear: return initial + (final - initial) * t;
    case SparsityCurve::geometric: return 1 - (1 - initial) * std::pow((1 - final) / (1 - initial), t);
    case SparsityCurve::cubic: return final + (initial - final) * std::pow(1 - t, 3);
  }
  return final;
}

void fields(FieldVisitor& f, GradualOptions& o) {
  f("curve", o.curve, "How the sparsity rises");
  f("begin", o.begin, share(), "Share of the training after which it begins to rise");
  f("end", o.end, share(), "Share of the training in which it rises; the rest trains with the final masks");
  f("every", o.every, at_least(0), "Steps between prunings; 0: about a hundred prunings in all");
}

GradualPruning::GradualPruning(std::shared_ptr<Pruner> pruner, const GradualOptions& options)
    : pruner_(std::move(pruner)), options_(options) {
  check(pruner_ != nullptr, "GradualPruning", "expected a pruner, got a null pointer");
  check_options(options);
}

GradualPruning::GradualPruning(std::shared_ptr<BudgetPruner> budget, const GradualOptions& options)
    : budget_(std::move(budget)), options_(options) {
  check(budget_ != nullptr, "GradualPruning", "expected a budget, got a null pointer");
  check_options(options);
  pruner_ = budget_->pruner();
}

void GradualPruning::check_options(const GradualOptions& options) {
  check(options.sparsity >= 0 && options.sparsity < 1, "GradualPruning", "expected a sparsity in [0,1), got {}",
        options.sparsity);
  check(options.begin >= 0 && options.begin <= options.end && options.end <= 1, "GradualPruning",
        "expected 0 <= begin <= end <= 1, shares of the training, got begin={}, end={}", options.begin, options.end);
  check(options.every >= 0, "GradualPruning", "expected every >= 0 steps, got {}", options.every);
}

int64_t GradualPruning::end_step(int64_t total) const {
  const double end = options_.curve == SparsityCurve::one_shot ? options_.begin : options_.end;
  return std::llround(end * static_cast<double>(total));
}

double GradualPruning::sparsity_after(int64_t step, int64_t total) const {
  const int64_t begin = std::llround(options_.begin * static_cast<double>(total)), end = end_step(total);
  if (step < begin) return 0;
  if (step >= end) return goal();
  return sparsity_at(options_.curve, static_cast<double>(step - begin) / static_cast<double>(end - begin), 0, goal());
}

nlohmann::json GradualPruning::config() const {
  nlohmann::json config = json_of_fields([o = options_](FieldVisitor& f) mutable { fields(f, o); });
  config["type"] = "GradualPruning";
  config["pruner"] = identity_of(*pruner_);
  if (budget_)
    config["budget"] = {{"kind", name_of(budget_->budget().kind)},
                        {"amount", budget_->budget().amount},
                        {"ranking", name_of(budget_->budget().ranking)}};
  else
    config["sparsity"] = options_.sparsity;
  return config;
}

void GradualPruning::on_train_begin(Trainer&) {
  if (budget_ && !resumed_) budget_->begin();
  resumed_ = false;
}

void GradualPruning::on_epoch_begin(Trainer& trainer, int64_t epoch) {
  // A schedule that ends where the training begins prunes before the first step.
  if (epoch == 1 && end_step(trainer.total_steps()) == 0) prune_last();
}

void GradualPruning::on_step_end(Trainer&, const StepRecord& record) {
  const int64_t total = record.steps;
  const int64_t begin = std::llround(options_.begin * static_cast<double>(total)), end = end_step(total);
  if (record.step < begin || record.step > end) return;
  const int64_t every = options_.every > 0 ? options_.every : std::max<int64_t>(1, (end - begin) / kPrunings);
  if (record.step == end)
    prune_last();
  else if ((record.step - begin) % every == 0) {
    if (budget_ && (record.step - begin) / every % kCalibrateEvery == 0) budget_->calibrate();
    prune(sparsity_after(record.step, total));
  }
}

void GradualPruning::prune(double sparsity) {
  const double by_hand = goal() > 0 ? sparsity / goal() : 1;
  if (budget_)
    budget_->prune(sparsity, by_hand);
  else
    pruner_->prune(sparsity, by_hand);
}

void GradualPruning::prune_last() {
  if (budget_)
    budget_->finish();
  else
    prune(options_.sparsity);
}

bool GradualPruning::is_settled(const Trainer& trainer, const EpochRecord& record) const {
  return record.step >= end_step(trainer.total_steps());
}

NamedTensors GradualPruning::state() const {
  NamedTensors all = budget_ ? budget_->state() : NamedTensors{};
  if (const std::shared_ptr<const RemovalRecord> record = pruner_->record())
    for (auto& tensor : record->state()) all.push_back(std::move(tensor));
  return all;
}

void GradualPruning::load_state(const NamedTensors& state) {
  if (budget_) budget_->load_state(state);
  if (!state.empty()) pruner_->load_record(state);
  resumed_ = true;
}

}  // namespace espalier
