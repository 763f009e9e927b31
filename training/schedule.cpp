#include "training/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace espalier {

nlohmann::json Schedule::state() const { return nlohmann::json::object(); }
void Schedule::load_state(const nlohmann::json&) {}
void Schedule::lead_to(SchedulePtr) { fail("parse_schedule", "'{}' leads to no other schedule", name()); }

std::string Schedule::text() {
  const std::string options = text_of_fields([&](FieldVisitor& f) { fields(f); });
  return options.empty() ? name() : name() + ":" + options;
}

void fields(FieldVisitor& f, StepOptions& o) {
  f("every", o.every, at_least(1), "Epochs between two drops");
  f("gamma", o.gamma, above(0), "Factor of each drop");
}
void fields(FieldVisitor& f, MultiStepOptions& o) {
  f("milestones", o.milestones, "Epochs at which the rate drops");
  f("gamma", o.gamma, above(0), "Factor of each drop");
  f.judge([&o] {
    check(!o.milestones.empty() && std::is_sorted(o.milestones.begin(), o.milestones.end()), "multistep schedule",
          "expected increasing milestones (epochs), at least one, got {}",
          o.milestones.empty() ? "none" : fmt::format("{}", fmt::join(o.milestones, ",")));
  });
}
void fields(FieldVisitor& f, CosineOptions& o) {
  f("final", o.final_factor, share(), "The last rate, as a factor of the first");
}
void fields(FieldVisitor& f, OneCycleOptions& o) {
  f("max", o.max, above(0), "The highest rate; default: the optimiser's");
  f("start", o.start, share(), "Share of the steps in which the rate rises");
  f("div", o.div, above(0), "The first rate is max / div");
  f("final", o.final_div, above(0), "The last rate is max / div / final");
  f("momentum_low", o.momentum_low, share_below_one(), "The momentum at the highest rate");
  f("momentum_high", o.momentum_high, share_below_one(), "The momentum at both ends");
  f.judge([&o] {
    check(o.momentum_low.has_value() == o.momentum_high.has_value(), "onecycle schedule",
          "expected both momenta or none");
  });
}
void fields(FieldVisitor& f, PlateauOptions& o) {
  f("gamma", o.gamma, between_zero_and_one(), "Factor of each drop");
  f("patience", o.patience, at_least(0), "Epochs without improvement that are tolerated");
  f("threshold", o.threshold, "An improvement is loss < best * (1 - threshold)");
  f("cooldown", o.cooldown, at_least(0), "Epochs after a drop in which nothing is counted");
  f("min", o.min_lr, "The lowest rate");
}
void fields(FieldVisitor& f, WarmupOptions& o) {
  f("epochs", o.epochs, at_least(0), "Epochs in which the rate rises");
  f("start", o.start_factor, share(), "The first rate, as a factor of the one it leads to");
  f("steps", o.steps, at_least(0), "Steps, in place of epochs");
  f.judge([&o] {
    check(o.steps > 0 || o.epochs > 0, "warmup schedule", "expected epochs > 0 or steps > 0, got {} and {}", o.epochs,
          o.steps);
  });
}

namespace {

/// A schedule with options.
template <class Options>
class WithOptions : public Schedule {
 public:
  void fields(FieldVisitor& f) override { visit_fields(f, options_); }

 protected:
  explicit WithOptions(Options options) : options_(std::move(options)) {}
  Options options_;
};

/// From `from` (fraction 0) to `to` (fraction 1) along half a cosine.
double anneal(double from, double to, double fraction) {
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * fraction));
}

class Constant : public Schedule {
 public:
  std::string name() const override { return "constant"; }
  double lr(double base, const TrainingPosition&) const override { return base; }
  bool follows_length() const override { return false; }
};

class Step : public WithOptions<StepOptions> {
 public:
  explicit Step(StepOptions options = {}) : WithOptions(options) {}
  std::string name() const override { return "step"; }
  double lr(double base, const TrainingPosition& at) const override {
    return base * std::pow(options_.gamma, static_cast<double>(at.epoch / options_.every));
  }
  bool follows_length() const override { return false; }
};

class MultiStep : public WithOptions<MultiStepOptions> {
 public:
  explicit MultiStep(MultiStepOptions options = {}) : WithOptions(std::move(options)) {}
  std::string name() const override { return "multistep"; }
  double lr(double base, const TrainingPosition& at) const override {
    const auto reached = std::upper_bound(options_.milestones.begin(), options_.milestones.end(), at.epoch);
    return base * std::pow(options_.gamma, static_cast<double>(reached - options_.milestones.begin()));
  }
  std::string text() override {
    return fmt::format("multistep:{},gamma={}", fmt::join(options_.milestones, ","), options_.gamma);
  }
  bool follows_length() const override { return false; }
};

class Cosine : public WithOptions<CosineOptions> {
 public:
  explicit Cosine(CosineOptions options = {}) : WithOptions(options) {}
  std::string name() const override { return "cosine"; }
  double lr(double base, const TrainingPosition& at) const override {
    const double done = static_cast<double>(at.step) / static_cast<double>(std::max<int64_t>(at.total_steps, 1));
    return anneal(base, base * options_.final_factor, std::min(done, 1.0));
  }
};

class OneCycle : public WithOptions<OneCycleOptions> {
 public:
  explicit OneCycle(OneCycleOptions options = {}) : WithOptions(options) {}
  std::string name() const override { return "onecycle"; }
  double lr(double base, const TrainingPosition& at) const override {
    const double max = options_.max.value_or(base), first = max / options_.div;
    return cycle(at, first, max, first / options_.final_div);
  }
  std::optional<double> momentum(const TrainingPosition& at) const override {
    if (!options_.momentum_low) return std::nullopt;
    return cycle(at, *options_.momentum_high, *options_.momentum_low, *options_.momentum_high);
  }

 private:
  double cycle(const TrainingPosition& at, double first, double peak, double last) const {
    // PyTorch's phases end at these steps (fractional); the last step has exactly the last rate.
    const double end = static_cast<double>(at.total_steps) - 1;
    const double top = options_.start * static_cast<double>(at.total_steps) - 1;
    const double step = std::min(static_cast<double>(at.step), std::max(end, 0.0));
    if (step <= top) return top > 0 ? anneal(first, peak, step / top) : peak;
    return end > top ? anneal(peak, last, (step - top) / (end - top)) : last;
  }
};

class Plateau : public WithOptions<PlateauOptions> {
 public:
  explicit Plateau(PlateauOptions options = {}) : WithOptions(options) {}
  std::string name() const override { return "plateau"; }
  double lr(double base, const TrainingPosition&) const override {
    return std::min(base, std::max(base * factor_, options_.min_lr));
  }
  void observe(double loss) override {
    if (loss < best_ * (1 - options_.threshold) || !std::isfinite(best_)) {
      best_ = loss;
      bad_epochs_ = 0;
    } else {
      ++bad_epochs_;
    }
    if (cooldown_left_ > 0) {
      --cooldown_left_;
      bad_epochs_ = 0;
    }
    if (bad_epochs_ > options_.patience) {
      factor_ *= options_.gamma;
      cooldown_left_ = options_.cooldown;
      bad_epochs_ = 0;
    }
  }
  bool follows_length() const override { return false; }
  nlohmann::json state() const override {
    nlohmann::json state = {{"factor", factor_}, {"bad_epochs", bad_epochs_}, {"cooldown_left", cooldown_left_}};
    if (std::isfinite(best_)) state["best"] = best_;
    return state;
  }
  void load_state(const nlohmann::json& state) override {
    factor_ = state.at("factor");
    bad_epochs_ = state.at("bad_epochs");
    cooldown_left_ = state.at("cooldown_left");
    best_ = state.value("best", std::numeric_limits<double>::infinity());
  }

 private:
  double factor_ = 1, best_ = std::numeric_limits<double>::infinity();
  int64_t bad_epochs_ = 0, cooldown_left_ = 0;
};

class Warmup : public WithOptions<WarmupOptions> {
 public:
  explicit Warmup(WarmupOptions options = {}, SchedulePtr after = nullptr)
      : WithOptions(options), after_(std::move(after)) {}
  std::string name() const override { return "warmup"; }
  void lead_to(SchedulePtr after) override { after_ = std::move(after); }
  void fields(FieldVisitor& f) override {
    WithOptions::fields(f);
    f.judge([this] {
      check(after_ != nullptr, "warmup schedule",
            "expected a schedule to follow, such as warmup:5+cosine or warmup:EPOCHS+SCHEDULE, got none");
    });
  }
  double lr(double base, const TrainingPosition& at) const override {
    const int64_t steps = length(at);
    if (at.step >= steps) return after_->lr(base, rest(at));
    const double done = static_cast<double>(at.step + 1) / static_cast<double>(steps + 1);
    return after_->lr(base, rest(at)) * (options_.start_factor + (1 - options_.start_factor) * done);
  }
  std::optional<double> momentum(const TrainingPosition& at) const override { return after_->momentum(rest(at)); }
  void observe(double loss) override { after_->observe(loss); }
  std::string text() override {
    const std::string length =
        options_.steps > 0 ? fmt::format("steps={}", options_.steps) : fmt::format("epochs={}", options_.epochs);
    return fmt::format("warmup:{},start={}+{}", length, options_.start_factor, after_->text());
  }
  bool follows_length() const override { return after_->follows_length(); }
  nlohmann::json state() const override { return after_->state(); }
  void load_state(const nlohmann::json& state) override { after_->load_state(state); }

 private:
  int64_t length(const TrainingPosition& at) const {
    if (options_.steps > 0) return options_.steps;
    return std::llround(options_.epochs * static_cast<double>(at.steps_per_epoch));
  }
  /// Where the training stands for the schedule that follows: the warm-up's steps are not part of it.
  TrainingPosition rest(TrainingPosition at) const {
    const int64_t steps = length(at);
    at.step = std::max<int64_t>(at.step - steps, 0);
    at.total_steps = std::max<int64_t>(at.total_steps - steps, 1);
    return at;
  }
  SchedulePtr after_;
};

/// "momentum=0.85..0.95" as momentum_low and momentum_high.
std::vector<TextOption> with_ranges(const std::vector<TextOption>& options) {
  std::vector<TextOption> result;
  for (const TextOption& option : options) {
    const size_t dots = option.name.empty() ? std::string::npos : option.value.find("..");
    if (dots == std::string::npos) {
      result.push_back(option);
    } else {
      result.push_back({.name = option.name + "_low", .value = option.value.substr(0, dots)});
      result.push_back({.name = option.name + "_high", .value = option.value.substr(dots + 2)});
    }
  }
  return result;
}

/// Where the next schedule's name follows a plus, which numbers may hold too.
size_t plus_before_name(const std::string& text) {
  for (size_t at = 0; at + 1 < text.size(); ++at)
    if (text[at] == '+' && std::isalpha(static_cast<unsigned char>(text[at + 1])) != 0) return at;
  return text.size();
}

}  // namespace

SchedulePtr constant_schedule() { return std::make_shared<Constant>(); }
SchedulePtr step_schedule(StepOptions options) { return std::make_shared<Step>(checked("step schedule", options)); }
SchedulePtr multi_step_schedule(MultiStepOptions options) {
  return std::make_shared<MultiStep>(checked("multistep schedule", options));
}
SchedulePtr cosine_schedule(CosineOptions options) {
  return std::make_shared<Cosine>(checked("cosine schedule", options));
}
SchedulePtr one_cycle_schedule(OneCycleOptions options) {
  return std::make_shared<OneCycle>(checked("onecycle schedule", options));
}
SchedulePtr plateau_schedule(PlateauOptions options) {
  return std::make_shared<Plateau>(checked("plateau schedule", options));
}
SchedulePtr warmup_schedule(WarmupOptions options, SchedulePtr after) {
  auto schedule = std::make_shared<Warmup>(options, std::move(after));
  check_ranges("warmup schedule", [&](FieldVisitor& f) { schedule->fields(f); });
  return schedule;
}

Registry<SchedulePtr()>& schedule_registry() {
  static Registry<SchedulePtr()> schedules("schedule", {{"constant", [] { return std::make_shared<Constant>(); }},
                                                        {"step", [] { return std::make_shared<Step>(); }},
                                                        {"multistep", [] { return std::make_shared<MultiStep>(); }},
                                                        {"cosine", [] { return std::make_shared<Cosine>(); }},
                                                        {"onecycle", [] { return std::make_shared<OneCycle>(); }},
                                                        {"plateau", [] { return std::make_shared<Plateau>(); }},
                                                        {"warmup", [] { return std::make_shared<Warmup>(); }}});
  return schedules;
}

SchedulePtr parse_schedule(const std::string& text) {
  const size_t plus = plus_before_name(text), colon = std::min(text.find(':'), plus);
  const SchedulePtr schedule = schedule_registry().find("parse_schedule", text.substr(0, colon))();
  if (plus < text.size()) schedule->lead_to(parse_schedule(text.substr(plus + 1)));
  const std::string options = colon < plus ? text.substr(colon + 1, plus - colon - 1) : "";
  read_text_fields(fmt::format("parse_schedule '{}'", text.substr(0, plus)).c_str(),
                   with_ranges(split_options(options)), [&](FieldVisitor& f) { schedule->fields(f); });
  return schedule;
}

}  // namespace espalier
