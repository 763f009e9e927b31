#include "training/schedule.h"

#include <cmath>
#include <numbers>

#include <nlohmann/json.hpp>

#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

/// Ten epochs of ten steps.
TrainingPosition at(int64_t step) {
  return {.step = step, .total_steps = 100, .epoch = step / 10, .steps_per_epoch = 10};
}

TEST(Schedule, ConstantStepAndMultiStep) {
  EXPECT_EQ(constant_schedule()->lr(0.3, at(77)), 0.3);
  const SchedulePtr step = step_schedule({.every = 3, .gamma = 0.5});
  EXPECT_EQ(step->lr(8, at(29)), 8);
  EXPECT_EQ(step->lr(8, at(30)), 4);
  EXPECT_EQ(step->lr(8, at(99)), 1);
  const SchedulePtr multi = multi_step_schedule({.milestones = {2, 5}, .gamma = 0.5});
  EXPECT_EQ(multi->lr(8, at(19)), 8);
  EXPECT_EQ(multi->lr(8, at(20)), 4);
  EXPECT_EQ(multi->lr(8, at(50)), 2);
}

TEST(Schedule, Cosine) {
  const SchedulePtr cosine = cosine_schedule();
  EXPECT_DOUBLE_EQ(cosine->lr(0.2, at(0)), 0.2);
  EXPECT_DOUBLE_EQ(cosine->lr(0.2, at(50)), 0.1);
  EXPECT_NEAR(cosine->lr(0.2, at(25)), 0.1 * (1 + std::cos(std::numbers::pi / 4)), 1e-15);
  EXPECT_NEAR(cosine->lr(0.2, at(100)), 0, 1e-17);
  EXPECT_DOUBLE_EQ(cosine_schedule({.final_factor = 0.1})->lr(0.2, at(100)), 0.02);
}

TEST(Schedule, OneCycle) {
  const SchedulePtr cycle =
      one_cycle_schedule({.max = 1, .start = 0.3, .div = 25, .momentum_low = 0.85, .momentum_high = 0.95});
  EXPECT_NEAR(cycle->lr(7, at(0)), 1.0 / 25, 1e-15);
  EXPECT_DOUBLE_EQ(cycle->lr(7, at(29)), 1);
  EXPECT_DOUBLE_EQ(cycle->lr(7, at(99)), 1.0 / 25 / 1e4);
  // Half-way up: the mean of both ends.
  EXPECT_NEAR(cycle->lr(7, {.step = 7, .total_steps = 50}), (1 + 1.0 / 25) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(cycle->momentum(at(0)).value(), 0.95);
  EXPECT_DOUBLE_EQ(cycle->momentum(at(29)).value(), 0.85);
  EXPECT_DOUBLE_EQ(cycle->momentum(at(99)).value(), 0.95);
  EXPECT_DOUBLE_EQ(one_cycle_schedule()->lr(0.5, at(29)), 0.5);
  EXPECT_FALSE(one_cycle_schedule()->momentum(at(3)).has_value());
}

TEST(Schedule, Plateau) {
  const SchedulePtr plateau = plateau_schedule({.gamma = 0.5, .patience = 1, .cooldown = 1, .min_lr = 0.3});
  const std::vector<std::pair<double, double>> loss_and_lr = {{1.0, 1},    {0.9, 1},    {0.9, 1},    {0.95, 0.5},
                                                              {0.95, 0.5}, {0.95, 0.5}, {0.95, 0.3}, {0.1, 0.3}};
  SchedulePtr copy = plateau_schedule({.gamma = 0.5, .patience = 1, .cooldown = 1, .min_lr = 0.3});
  for (const auto& [loss, lr] : loss_and_lr) {
    plateau->observe(loss);
    EXPECT_DOUBLE_EQ(plateau->lr(1, at(0)), lr);
    // A copy that goes through text after every epoch stays in step.
    const std::string saved = copy->state().dump();
    copy = parse_schedule(copy->text());
    copy->load_state(nlohmann::json::parse(saved));
    copy->observe(loss);
    EXPECT_DOUBLE_EQ(copy->lr(1, at(0)), lr);
  }
}

TEST(Schedule, WarmupRisesThenHandsOver) {
  const SchedulePtr warm = warmup_schedule({.epochs = 2, .start_factor = 0.1}, cosine_schedule());
  EXPECT_NEAR(warm->lr(1, at(0)), 0.1 + 0.9 / 21, 1e-15);
  EXPECT_NEAR(warm->lr(1, at(19)), 0.1 + 0.9 * 20 / 21, 1e-15);
  EXPECT_DOUBLE_EQ(warm->lr(1, at(20)), 1);
  EXPECT_DOUBLE_EQ(warm->lr(1, at(60)), 0.5);  // half of the remaining 80 steps
  const SchedulePtr multi = warmup_schedule({.steps = 5}, multi_step_schedule({.milestones = {3}}));
  EXPECT_DOUBLE_EQ(multi->lr(1, at(29)), 1);
  EXPECT_DOUBLE_EQ(multi->lr(1, at(30)), 0.1);  // epochs count from the start of the training
}

TEST(Schedule, TextRoundTrips) {
  for (const char* text :
       {"constant", "step:30,0.1", "step:every=7,gamma=0.3", "multistep:80,120,gamma=0.2", "multistep:3,5", "cosine",
        "cosine:0.01", "onecycle", "onecycle:0.1", "onecycle:max=0.1,start=0.25,momentum=0.85..0.95",
        "plateau:patience=5", "plateau:0.5,3", "warmup:2+cosine", "warmup:steps=5,start=0.2+multistep:4,8"}) {
    SCOPED_TRACE(text);
    const SchedulePtr one = parse_schedule(text), two = parse_schedule(one->text());
    EXPECT_EQ(one->text(), two->text());
    for (int64_t step = 0; step < 100; ++step) {
      EXPECT_EQ(one->lr(0.1, at(step)), two->lr(0.1, at(step)));
      EXPECT_EQ(one->momentum(at(step)), two->momentum(at(step)));
    }
  }
  EXPECT_EQ(parse_schedule("step:30,0.1")->lr(1, {.epoch = 30}), 0.1);
}

/// Full rate in every n-th epoch, half in the others: a schedule that only this program knows.
class Every : public Schedule {
 public:
  std::string name() const override { return "every"; }
  void fields(FieldVisitor& f) override { f("n", n_, at_least(1), "Epochs"); }
  double lr(double base, const TrainingPosition& at) const override { return at.epoch % n_ == 0 ? base : base / 2; }

 private:
  int64_t n_ = 2;
};

TEST(Schedule, OnesOfAProgramHaveNamesAndOptions) {
  schedule_registry().replace("every", [] { return std::make_shared<Every>(); });
  const SchedulePtr schedule = parse_schedule("warmup:1+every:n=3");
  EXPECT_EQ(schedule->lr(1, at(30)), 1);
  EXPECT_EQ(schedule->lr(1, at(40)), 0.5);
  EXPECT_EQ(parse_schedule("every:3")->text(), "every:n=3");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("every:n=0"); }),
                  "n: expected a number of at least 1, got 0");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("cosine+step"); }), "leads to no other schedule");
  EXPECT_EQ(parse_schedule("onecycle:final=1e+4")->text(), "onecycle:start=0.3,div=25,final=10000");
}

TEST(Schedule, BadTextIsExplained) {
  expect_contains(message_of<ArgumentError>([] { parse_schedule("cosin"); }), "did you mean 'cosine'");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("step:30,gama=0.1"); }), "did you mean 'gamma'");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("step:x"); }),
                  "every: expected a whole number, got 'x'");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("cosine:0,1,2"); }), "too many arguments");
  expect_contains(message_of<ArgumentError>([] { parse_schedule("warmup:5"); }), "warmup:5+cosine");
  for (const char* text : {"", "step:0", "multistep", "multistep:5,3", "warmup:0+cosine", "plateau:1.5",
                           "onecycle:momentum=0.9", "step:1e99", "onecycle:-1"})
    EXPECT_THROW(parse_schedule(text), ArgumentError) << text;
}

}  // namespace
}  // namespace espalier
