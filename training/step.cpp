#include "training/step.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "training/clip.h"
#include "training/interrupt.h"

namespace espalier {

namespace {
/// The sign of a NaN says nothing.
std::string number(double value) { return std::isnan(value) ? "NaN" : fmt::format("{}", value); }
}  // namespace

Training::Training(Trainer& trainer, int64_t batches, std::string operation)
    : trainer_(trainer),
      batches_(batches),
      operation_(std::move(operation)),
      base_lr_(trainer.optimizer().lr()),
      base_momentum_(trainer.optimizer().momentum()),
      schedule_before_(trainer.options().schedule->state().dump()),
      was_training_(trainer.module()->is_training()) {}

Training::~Training() {
  Optimizer& optimizer = trainer_.optimizer();
  optimizer.set_lr(base_lr_);
  if (optimizer.momentum() != base_momentum_) optimizer.set_momentum(base_momentum_);
  options().schedule->load_state(nlohmann::json::parse(schedule_before_));
  module().train(was_training_);
}

int64_t Training::epochs() const { return (trainer_.total_steps() + batches_ - 1) / batches_; }

bool Training::should_stop() const {
  return trainer_.stop_requested() || (options().handle_signals && InterruptGuard::requested());
}

std::optional<StopReason> Training::stop_reason() const {
  if (is_over() || !should_stop()) return std::nullopt;
  return trainer_.stop_requested() ? StopReason::requested : StopReason::interrupted;
}

void Training::begin() {
  for (const auto& callback : options().callbacks) callback->on_train_begin(trainer_);
}

void Training::begin_epoch() {
  module().train();
  reset_peak_memory(options().device);
  if (state.batch > 0) return;
  for (const auto& callback : options().callbacks) callback->on_epoch_begin(trainer_, state.epoch + 1);
}

void Training::update(const Batch& batch, const TrainingStepFunction& forward) {
  Optimizer& optimizer = trainer_.optimizer();
  const TrainingPosition at{
      .step = state.step, .total_steps = trainer_.total_steps(), .epoch = state.epoch, .steps_per_epoch = batches_};
  StepRecord record{.epoch = state.epoch + 1,
                    .batch = state.batch + 1,
                    .batches = batches_,
                    .step = state.step + 1,
                    .steps = at.total_steps,
                    .examples = batch.size(),
                    .lr = options().schedule->lr(base_lr_, at)};
  latest_ = Place{record.epoch, record.step, record.batch};
  optimizer.set_lr(record.lr);
  if (const auto momentum = options().schedule->momentum(at)) optimizer.set_momentum(*momentum);

  {
    const auto [outputs, loss] = forward(module(), batch);
    Tensor correct;
    if (batch.targets.empty() && batch.labels.dtype() == DType::i64 && batch.labels.rank() == 1 &&
        outputs[0].rank() == 2)
      correct = sum(argmax(outputs[0].data(), 1) == batch.labels);
    loss.backward();
    // Read after backward: a GPU has all of the step's work before the first wait for it.
    record.loss = loss.item();
    if (!std::isfinite(record.loss)) fail_numerically(fmt::format("the loss became {}", number(record.loss)));
    if (correct.defined()) state.correct = state.correct.value_or(0) + static_cast<int64_t>(correct.item());
  }  // the graph and its activations are gone before the update

  for (const auto& callback : options().callbacks) callback->on_gradients(trainer_, record);
  if (options().clip_value > 0) clip_grad_value(optimizer.parameters(), options().clip_value);
  if (options().clip_norm > 0) {
    record.grad_norm = clip_grad_norm(optimizer.parameters(), options().clip_norm);
    if (!std::isfinite(*record.grad_norm))
      fail_numerically(fmt::format("the norm of the gradients became {}", number(*record.grad_norm)));
  }
  optimizer.step();

  state.loss.add(record.loss, batch.size());
  ++state.batch;
  ++state.step;
  for (const auto& callback : options().callbacks) callback->on_step_end(trainer_, record);
  optimizer.zero_grad();
  state.peak_bytes = std::max(state.peak_bytes, static_cast<int64_t>(memory_stats(options().device).peak));
}

std::optional<EpochRecord> Training::measure_epoch(const Dataset& validation) const {
  const auto examples = static_cast<double>(std::max<int64_t>(state.loss.examples(), 1));
  EpochRecord record{
      .epoch = state.epoch + 1,
      .step = state.step,
      .train_loss = state.loss.value(),
      .train_accuracy = std::nullopt,
      .lr = trainer_.optimizer().lr(),
      .images_per_second = state.seconds > 0 ? static_cast<double>(state.loss.examples()) / state.seconds : 0,
      .seconds = state.seconds,
      .peak_bytes = state.peak_bytes};
  if (state.correct) record.train_accuracy = static_cast<double>(*state.correct) / examples;
  if (validation.size() == 0) return record;
  const Evaluation result = evaluate(module(), validation,
                                     {.batch_size = options().validation_batch_size,
                                      .device = options().device,
                                      .loss = options().loss,
                                      .stop = [this] { return should_stop(); }});
  if (result.examples() < validation.size()) return std::nullopt;
  if (!std::isfinite(result.loss)) fail_numerically(fmt::format("the validation loss became {}", number(result.loss)));
  record.validation_loss = result.loss;
  record.validation_score = result.primary().score();
  if (validation.is_classification()) record.validation_accuracy = result.accuracy();
  for (const MetricValue& metric : result.metrics)
    if (metric.name != "accuracy" || !validation.is_classification())
      record.validation_metrics[metric.name] = metric.value;
  return record;
}

bool Training::note_best(const EpochRecord& record) {
  if (!record.validation_loss || !record.validation_score) return false;
  for (const auto& callback : options().callbacks)
    if (!callback->is_settled(trainer_, record)) return false;
  const double score = *record.validation_score, loss = *record.validation_loss;
  if (state.best_epoch > 0 && (score < state.best_score || (score == state.best_score && loss >= state.best_loss))) {
    ++state.epochs_since_best;
    return false;
  }
  state.best_epoch = record.epoch;
  state.best_score = score;
  state.best_loss = loss;
  state.epochs_since_best = 0;
  return true;
}

void Training::close_epoch(const EpochRecord& record) {
  options().schedule->observe(record.validation_loss.value_or(record.train_loss));
  for (const auto& callback : options().callbacks) callback->on_epoch_end(trainer_, record);
  state.history.push_back(record);
  ++state.epoch;
  state.batch = 0;
  state.loss.set(0, 0);
  state.correct.reset();
  state.seconds = 0;
  state.peak_bytes = 0;
}

void Training::end() {
  for (const auto& callback : options().callbacks) callback->on_train_end(trainer_);
}

void Training::fail_numerically(const std::string& what) const {
  const Place at = latest_.value_or(Place{state.epoch + 1, state.step, state.batch});  // as a resumed run finds it
  fail<NumericError>(
      operation_.c_str(),
      "{} in epoch {}, step {} (batch {} of {}, learning rate {:.4g}); {}; lower the learning rate, warm "
      "it up, or set clip_norm",
      what, at.epoch, at.step, at.batch, batches_, trainer_.optimizer().lr(), kept);
}

}  // namespace espalier
