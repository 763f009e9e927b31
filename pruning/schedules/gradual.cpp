#include "pruning/schedules/gradual.h"

#include <algorithm>
#include <cmath>

#include "pruning/names.h"

namespace espalier {

namespace {
constexpr std::pair<SparsityCurve, const char*> kCurves[] = {{SparsityCurve::one_shot, "one-shot"},
                                                             {SparsityCurve::linear, "linear"},
                                                             {SparsityCurve::geometric, "geometric"},
                                                             {SparsityCurve::cubic, "cubic"}};
constexpr int64_t kPrunings = 100;
}  // namespace

const char* name_of(SparsityCurve curve) { return kCurves[static_cast<size_t>(curve)].second; }

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

GradualPruning::GradualPruning(std::shared_ptr<Pruner> pruner, const GradualOptions& options)
    : pruner_(std::move(pruner)), options_(options) {
  check(pruner_ != nullptr, "GradualPruning", "expected a pruner, got a null pointer");
  check_options(options);
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
  if (step >= end) return options_.sparsity;
  return sparsity_at(options_.curve, static_cast<double>(step - begin) / static_cast<double>(end - begin), 0,
                     options_.sparsity);
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
  else if ((record.step - begin) % every == 0)
    prune(sparsity_after(record.step, total));
}

void GradualPruning::prune(double sparsity) {
  pruner_->prune(sparsity, options_.sparsity > 0 ? sparsity / options_.sparsity : 1);
}

void GradualPruning::prune_last() {
  prune(options_.sparsity);
  if (options_.finish) options_.finish();
}

bool GradualPruning::is_settled(const Trainer& trainer, const EpochRecord& record) const {
  return record.step >= end_step(trainer.total_steps());
}

}  // namespace espalier
