#include "training/schedule.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace espalier {

nlohmann::json Schedule::state() const { return nlohmann::json::object(); }
void Schedule::load_state(const nlohmann::json&) {}

namespace {

/// From `from` (fraction 0) to `to` (fraction 1) along half a cosine.
double anneal(double from, double to, double fraction) {
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * fraction));
}

class Constant : public Schedule {
 public:
  double lr(double base, const TrainingPosition&) const override { return base; }
  std::string text() const override { return "constant"; }
  bool follows_length() const override { return false; }
};

class Step : public Schedule {
 public:
  explicit Step(StepOptions options) : options_(options) {
    check(options.every > 0, "step schedule", "expected every > 0 epochs, got {}", options.every);
    check(options.gamma > 0, "step schedule", "expected gamma > 0, got {}", options.gamma);
  }
  double lr(double base, const TrainingPosition& at) const override {
    return base * std::pow(options_.gamma, static_cast<double>(at.epoch / options_.every));
  }
  std::string text() const override { return fmt::format("step:every={},gamma={}", options_.every, options_.gamma); }
  bool follows_length() const override { return false; }

 private:
  StepOptions options_;
};

class MultiStep : public Schedule {
 public:
  explicit MultiStep(MultiStepOptions options) : options_(std::move(options)) {
    check(!options_.milestones.empty(), "multistep schedule", "expected at least one milestone (an epoch), got none");
    check(std::is_sorted(options_.milestones.begin(), options_.milestones.end()), "multistep schedule",
          "expected increasing milestones, got {}", fmt::join(options_.milestones, ","));
    check(options_.gamma > 0, "multistep schedule", "expected gamma > 0, got {}", options_.gamma);
  }
  double lr(double base, const TrainingPosition& at) const override {
    const auto reached = std::upper_bound(options_.milestones.begin(), options_.milestones.end(), at.epoch);
    return base * std::pow(options_.gamma, static_cast<double>(reached - options_.milestones.begin()));
  }
  std::string text() const override {
    return fmt::format("multistep:{},gamma={}", fmt::join(options_.milestones, ","), options_.gamma);
  }
  bool follows_length() const override { return false; }

 private:
  MultiStepOptions options_;
};

class Cosine : public Schedule {
 public:
  explicit Cosine(CosineOptions options) : options_(options) {
    check(options.final_factor >= 0 && options.final_factor <= 1, "cosine schedule",
          "expected a final factor from 0 to 1, got {}", options.final_factor);
  }
  double lr(double base, const TrainingPosition& at) const override {
    const double done = static_cast<double>(at.step) / static_cast<double>(std::max<int64_t>(at.total_steps, 1));
    return anneal(base, base * options_.final_factor, std::min(done, 1.0));
  }
  std::string text() const override { return fmt::format("cosine:final={}", options_.final_factor); }

 private:
  CosineOptions options_;
};

class OneCycle : public Schedule {
 public:
  explicit OneCycle(OneCycleOptions options) : options_(options) {
    check(options.max.value_or(1) > 0, "onecycle schedule", "expected max > 0, got {}", options.max.value_or(1));
    check(options.start >= 0 && options.start <= 1, "onecycle schedule", "expected 0 <= start <= 1, got {}",
          options.start);
    check(options.div > 0 && options.final_div > 0, "onecycle schedule", "expected div and final > 0, got {} and {}",
          options.div, options.final_div);
    check(options.momentum_low.has_value() == options.momentum_high.has_value(), "onecycle schedule",
          "expected both momenta or none");
  }
  double lr(double base, const TrainingPosition& at) const override {
    const double max = options_.max.value_or(base), first = max / options_.div;
    return cycle(at, first, max, first / options_.final_div);
  }
  std::optional<double> momentum(const TrainingPosition& at) const override {
    if (!options_.momentum_low) return std::nullopt;
    return cycle(at, *options_.momentum_high, *options_.momentum_low, *options_.momentum_high);
  }
  std::string text() const override {
    std::string text =
        fmt::format("onecycle:start={},div={},final={}", options_.start, options_.div, options_.final_div);
    if (options_.max) text += fmt::format(",max={}", *options_.max);
    if (options_.momentum_low) text += fmt::format(",momentum={}..{}", *options_.momentum_low, *options_.momentum_high);
    return text;
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
  OneCycleOptions options_;
};

class Plateau : public Schedule {
 public:
  explicit Plateau(PlateauOptions options) : options_(options) {
    check(options.gamma > 0 && options.gamma < 1, "plateau schedule", "expected 0 < gamma < 1, got {}", options.gamma);
    check(options.patience >= 0 && options.cooldown >= 0, "plateau schedule",
          "expected patience and cooldown >= 0 epochs, got {} and {}", options.patience, options.cooldown);
  }
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
  std::string text() const override {
    return fmt::format("plateau:gamma={},patience={},threshold={},cooldown={},min={}", options_.gamma,
                       options_.patience, options_.threshold, options_.cooldown, options_.min_lr);
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
  PlateauOptions options_;
  double factor_ = 1, best_ = std::numeric_limits<double>::infinity();
  int64_t bad_epochs_ = 0, cooldown_left_ = 0;
};

class Warmup : public Schedule {
 public:
  Warmup(WarmupOptions options, SchedulePtr after) : options_(options), after_(std::move(after)) {
    check(after_ != nullptr, "warmup schedule", "expected a schedule to follow, got none");
    check(options.steps >= 0 && options.epochs >= 0 && (options.steps > 0 || options.epochs > 0), "warmup schedule",
          "expected epochs > 0 or steps > 0, got {} and {}", options.epochs, options.steps);
    check(options.start_factor >= 0 && options.start_factor <= 1, "warmup schedule",
          "expected a start factor from 0 to 1, got {}", options.start_factor);
  }
  double lr(double base, const TrainingPosition& at) const override {
    const int64_t steps = length(at);
    if (at.step >= steps) return after_->lr(base, rest(at));
    const double done = static_cast<double>(at.step + 1) / static_cast<double>(steps + 1);
    return after_->lr(base, rest(at)) * (options_.start_factor + (1 - options_.start_factor) * done);
  }
  std::optional<double> momentum(const TrainingPosition& at) const override { return after_->momentum(rest(at)); }
  void observe(double loss) override { after_->observe(loss); }
  std::string text() const override {
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
  WarmupOptions options_;
  SchedulePtr after_;
};

/// The arguments of a schedule's text: "a,b,name=c".
class Arguments {
 public:
  enum Where { anywhere, by_name };
  Arguments(const std::string& schedule, const std::string& text) : schedule_(schedule) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      const std::string part = text.substr(begin, comma - begin);
      const size_t equals = part.find('=');
      if (equals == std::string::npos) {
        positional_.push_back(part);
      } else {
        named_[part.substr(0, equals)] = part.substr(equals + 1);
      }
      begin = comma + 1;
    }
  }

  /// Reads the named or else the next positional argument into *out, if there is one.
  template <class T>
  void read(const std::string& name, T* out, Where where = anywhere) {
    if (const auto text = take(name, where == anywhere)) *out = number<T>(name, *text);
  }
  template <class T>
  void read(const std::string& name, std::optional<T>* out) {
    if (const auto text = take(name, true)) *out = number<T>(name, *text);
  }
  /// LOW..HIGH, by name only.
  void read_range(const std::string& name, std::optional<double>* low, std::optional<double>* high) {
    const auto text = take(name, false);
    if (!text) return;
    const size_t dots = text->find("..");
    check(dots != std::string::npos, "parse_schedule", "expected {}=LOW..HIGH in '{}', got '{}'", name, schedule_,
          *text);
    *low = number<double>(name, text->substr(0, dots));
    *high = number<double>(name, text->substr(dots + 2));
  }
  /// All remaining positional arguments.
  std::vector<int64_t> read_list(const std::string& name) {
    std::vector<int64_t> values;
    for (; next_ < positional_.size(); ++next_) values.push_back(number<int64_t>(name, positional_[next_]));
    return values;
  }
  /// Throws if an argument was not read.
  void finish() const {
    if (!named_.empty())
      fail("parse_schedule", "unknown argument '{}' of '{}'{}; known: {}", named_.begin()->first, schedule_,
           did_you_mean(named_.begin()->first, known_), fmt::join(known_, ", "));
    check(next_ == positional_.size(), "parse_schedule", "'{}' has too many arguments; known: {}", schedule_,
          fmt::join(known_, ", "));
  }

 private:
  std::optional<std::string> take(const std::string& name, bool positional) {
    known_.push_back(name);
    if (const auto found = named_.find(name); found != named_.end()) {
      std::string text = found->second;
      named_.erase(found);
      return text;
    }
    if (positional && next_ < positional_.size()) return positional_[next_++];
    return std::nullopt;
  }
  template <class T>
  T number(const std::string& name, const std::string& text) const {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    check(error == std::errc{} && end == text.data() + text.size(), "parse_schedule",
          "expected {} for '{}' in '{}', got '{}'", std::is_integral_v<T> ? "an integer" : "a number", name, schedule_,
          text);
    return value;
  }

  std::string schedule_;
  std::vector<std::string> positional_, known_;
  std::map<std::string, std::string> named_;
  size_t next_ = 0;
};

}  // namespace

SchedulePtr constant_schedule() { return std::make_shared<Constant>(); }
SchedulePtr step_schedule(StepOptions options) { return std::make_shared<Step>(options); }
SchedulePtr multi_step_schedule(MultiStepOptions options) { return std::make_shared<MultiStep>(std::move(options)); }
SchedulePtr cosine_schedule(CosineOptions options) { return std::make_shared<Cosine>(options); }
SchedulePtr one_cycle_schedule(OneCycleOptions options) { return std::make_shared<OneCycle>(options); }
SchedulePtr plateau_schedule(PlateauOptions options) { return std::make_shared<Plateau>(options); }
SchedulePtr warmup_schedule(WarmupOptions options, SchedulePtr after) {
  return std::make_shared<Warmup>(options, std::move(after));
}

SchedulePtr parse_schedule(const std::string& text) {
  const size_t colon = std::min(text.find(':'), text.size()), plus = std::min(text.find('+'), text.size());
  const std::string name = text.substr(0, std::min(colon, plus));
  if (name == "warmup") {
    check(plus < text.size(), "parse_schedule", "expected warmup:EPOCHS+SCHEDULE, such as warmup:5+cosine, got '{}'",
          text);
    const std::string own = text.substr(0, plus);
    Arguments arguments(own, colon < plus ? own.substr(colon + 1) : "");
    WarmupOptions options;
    arguments.read("steps", &options.steps, Arguments::by_name);
    arguments.read("epochs", &options.epochs);
    arguments.read("start", &options.start_factor);
    arguments.finish();
    return warmup_schedule(options, parse_schedule(text.substr(plus + 1)));
  }
  Arguments arguments(text, colon < text.size() ? text.substr(colon + 1) : "");
  SchedulePtr schedule;
  if (name == "constant") {
    schedule = constant_schedule();
  } else if (name == "step") {
    StepOptions options;
    arguments.read("every", &options.every);
    arguments.read("gamma", &options.gamma);
    schedule = step_schedule(options);
  } else if (name == "multistep") {
    MultiStepOptions options;
    arguments.read("gamma", &options.gamma, Arguments::by_name);
    options.milestones = arguments.read_list("milestones");
    schedule = multi_step_schedule(std::move(options));
  } else if (name == "cosine") {
    CosineOptions options;
    arguments.read("final", &options.final_factor);
    schedule = cosine_schedule(options);
  } else if (name == "onecycle") {
    OneCycleOptions options;
    arguments.read("max", &options.max);
    arguments.read("start", &options.start);
    arguments.read("div", &options.div);
    arguments.read("final", &options.final_div);
    arguments.read_range("momentum", &options.momentum_low, &options.momentum_high);
    schedule = one_cycle_schedule(options);
  } else if (name == "plateau") {
    PlateauOptions options;
    arguments.read("gamma", &options.gamma);
    arguments.read("patience", &options.patience);
    arguments.read("threshold", &options.threshold);
    arguments.read("cooldown", &options.cooldown);
    arguments.read("min", &options.min_lr);
    schedule = plateau_schedule(options);
  } else {
    const std::vector<std::string> known = {"constant", "step", "multistep", "cosine", "onecycle", "plateau", "warmup"};
    fail("parse_schedule", "unknown schedule '{}'{}; known: {}", name, did_you_mean(name, known),
         fmt::join(known, ", "));
  }
  arguments.finish();
  return schedule;
}

}  // namespace espalier
