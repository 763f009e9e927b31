// Students and teachers on `digits`: what is touched, what is remembered, what is learned.
#include <gtest/gtest.h>

#include "layers/conv.h"
#include "layers/pooling.h"
#include "pruning/distillation/distillation.h"
#include "pruning/schedules/gradual.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using testing_support::copy_of;
using testing_support::digits;
using testing_support::digits_test;
using testing_support::expect_contains;
using testing_support::expect_identical;
using testing_support::message_of;
using testing_support::small_network;
using testing_support::StopAt;
using testing_support::TemporaryFolder;

ModulePtr conv_network(uint64_t seed, int64_t channels, int64_t classes = 10) {
  set_seed(seed);
  auto net = share(Sequential());
  net->add("conv", Conv2d(1, channels, {.kernel = 3, .padding = 1}));
  net->add("relu", ReLU());
  net->add("flatten", Flatten());
  net->add("fc", Linear(channels * 64, classes));
  return net;
}

TrainerOptions options_for(int64_t epochs) {
  return {.epochs = epochs, .batch_size = 32, .seed = 7, .progress = ProgressMode::silent};
}

std::shared_ptr<Optimizer> sgd(NamedParameters parameters) {
  return std::make_shared<Sgd>(std::move(parameters), SgdOptions{.lr = 0.05, .momentum = 0.9});
}

TEST(Distillation, LeavesTheTeacherAsItIs) {
  const ModulePtr teacher = small_network(1), student = small_network(2);
  teacher->train();
  const NamedTensors before = copy_of(state_of(*teacher));
  const auto distillation = std::make_shared<Distillation>(
      student, teacher, digits(64),
      DistillationOptions{.terms = {{1, knowledge_distillation()}, {1, relational_distance()}}});
  Trainer trainer(student, sgd(distillation->parameters()), with_distillation(options_for(2), distillation));
  trainer.fit(digits(64));
  expect_identical(state_of(*teacher), before);
  EXPECT_TRUE(teacher->is_training());
  for (const auto& [name, module] : teacher->named_modules()) EXPECT_TRUE(module->is_training()) << name;
  for (const Parameter& p : teacher->parameters()) {
    EXPECT_FALSE(p.grad().defined());
    EXPECT_TRUE(p.requires_grad());
  }
}

TEST(Distillation, EvaluationKeepsCrossEntropyAndCostsNoTeacher) {
  const ModulePtr teacher = small_network(1), student = small_network(2);
  const auto distillation = std::make_shared<Distillation>(student, teacher, digits(64));
  Trainer trainer(student, sgd(distillation->parameters()), with_distillation(options_for(1), distillation));
  const TrainingResult result = trainer.fit(digits(64), digits_test());
  EXPECT_EQ(distillation->teacher()->forwards(), 2);  // two batches
  EXPECT_EQ(*result.history.back().validation_loss, evaluate(*student, digits_test()).loss);
}

TEST(Distillation, CachedOutputsGiveWhatFreshOnesGive) {
  const auto run = [](TeacherCache cache, int64_t& forwards) {
    const ModulePtr teacher = small_network(1), student = small_network(2);
    const auto distillation =
        std::make_shared<Distillation>(student, teacher, digits(100), DistillationOptions{.cache = cache});
    Trainer trainer(student, sgd(distillation->parameters()), with_distillation(options_for(3), distillation));
    const double loss = trainer.fit(digits(100)).history.back().train_loss;
    forwards = distillation->teacher()->forwards();
    return std::pair(loss, copy_of(state_of(*student)));
  };
  int64_t with = 0, without = 0, always = 0;
  const auto cached = run(TeacherCache::automatic, with), fresh = run(TeacherCache::never, without),
             demanded = run(TeacherCache::always, always);
  EXPECT_EQ(with, 4);
  EXPECT_EQ(always, 4);
  EXPECT_EQ(without, 12);
  // A row of a matrix product may differ in its last bit with the batch it is computed in.
  EXPECT_NEAR(cached.first, fresh.first, 1e-5);
  for (size_t i = 0; i < cached.second.size(); ++i)
    EXPECT_TRUE(all_close(cached.second[i].second, fresh.second[i].second, 1e-3, 1e-4)) << cached.second[i].first;
  expect_identical(cached.second, demanded.second);
}

TEST(Distillation, CachedRowsAreThoseOfTheExamples) {
  const ModulePtr net = small_network(1);
  Teacher teacher(net);
  const DataLoader forwards(digits(50), {.batch_size = 10, .prefetch = 0}),
      shuffled(digits(50), {.batch_size = 25, .shuffle = true, .seed = 3, .prefetch = 0});
  for (const Batch& batch : forwards.batches()) teacher(batch);
  EXPECT_EQ(teacher.cached(), 50);
  EXPECT_EQ(teacher.forwards(), 5);
  for (const Batch& batch : shuffled.batches(4)) {
    const Tensor cached = teacher(batch).outputs.data();
    const EvalMode mode(*net);
    EXPECT_TRUE(all_close(cached, (*net)(batch.images).data(), 1e-5, 1e-6));
  }
  EXPECT_EQ(teacher.forwards(), 5);
}

TEST(Distillation, TheCacheFollowsTheTeacherAndTheImages) {
  const ModulePtr net = small_network(1);
  Teacher teacher(net);
  const DataLoader loader(digits(20), {.batch_size = 20, .prefetch = 0});
  const DataLoader moved(digits(20), {.batch_size = 20, .prefetch = 0, .augmentations = {RandomCrop{.padding = 2}}});
  const Batch batch = *loader.batches().next(), augmented = *moved.batches(1).next();
  const auto fresh = [&](const Batch& b) {
    const EvalMode mode(*net);
    return (*net)(b.images).data();
  };
  teacher(batch);
  EXPECT_TRUE(identical(teacher(augmented).outputs.data(), fresh(augmented)));  // not those of the plain images
  EXPECT_TRUE(identical(teacher(batch).outputs.data(), fresh(batch)));
  Tensor weight = net->parameters()[0].data();
  weight.copy_(weight * 2.0);
  EXPECT_TRUE(identical(teacher(batch).outputs.data(), fresh(batch)));

  Teacher strict(net, TeacherCache::always);
  strict(batch);
  expect_contains(message_of<ArgumentError>([&] { strict(augmented); }), "another one than before");
}

TEST(Distillation, AugmentationsBypassTheCacheOrRefuseIt) {
  const ModulePtr teacher = small_network(1), student = small_network(2);
  TrainerOptions options = options_for(2);
  options.augmentations = {RandomCrop{.padding = 1}};
  const auto automatic = std::make_shared<Distillation>(student, teacher, digits(64));
  Trainer trainer(student, sgd(automatic->parameters()), with_distillation(options, automatic));
  trainer.fit(digits(64));
  EXPECT_EQ(automatic->teacher()->forwards(), 4);
  EXPECT_EQ(automatic->teacher()->cached(), 0);

  const auto always =
      std::make_shared<Distillation>(student, teacher, digits(64), DistillationOptions{.cache = TeacherCache::always});
  Trainer refused(student, sgd(always->parameters()), with_distillation(options, always));
  expect_contains(message_of<ArgumentError>([&] { refused.fit(digits(64)); }), "augmentations");
}

TEST(Distillation, ProjectionsAreTrainedAlong) {
  const ModulePtr teacher = conv_network(1, 6), student = conv_network(2, 3);
  const PhiloxState random = default_generator().state();
  const auto distillation = std::make_shared<Distillation>(
      student, teacher, digits(64),
      DistillationOptions{
          .terms = {{1, label_loss()}, {10, hint("conv", "conv")}, {0.5, attention_transfer({{"relu", "relu"}})}}});
  EXPECT_EQ(default_generator().state(), random);
  const NamedParameters projections = distillation->projections();
  ASSERT_EQ(projections.size(), 2u);
  EXPECT_EQ(projections[0].first, "distillation.0.weight");
  EXPECT_EQ(projections[0].second.shape(), Shape({6, 3, 1, 1}));
  EXPECT_EQ(distillation->parameters().size(), student->named_parameters().size() + 2);
  const Tensor before = projections[0].second.data().clone();
  Trainer trainer(student, sgd(distillation->parameters()), with_distillation(options_for(5), distillation));
  const TrainingResult result = trainer.fit(digits(200));
  EXPECT_FALSE(identical(before, projections[0].second.data()));
  EXPECT_LT(result.history.back().train_loss, 0.8 * result.history.front().train_loss);
}

TEST(Distillation, AnInterruptedTrainingResumesToTheSameBits) {
  const auto make = [](const std::string& folder, bool resume) {
    const ModulePtr teacher = conv_network(1, 6), student = conv_network(2, 3);
    const auto distillation = std::make_shared<Distillation>(
        student, teacher, digits(100),
        DistillationOptions{.terms = {{1, knowledge_distillation()}, {1, hint("conv", "conv")}}});
    TrainerOptions options = options_for(3);
    options.run_folder = folder;
    options.resume = resume;
    return std::pair(distillation, with_distillation(options, distillation));
  };
  const TemporaryFolder folder;
  auto [straight, straight_options] = make(folder.file("a"), false);
  Trainer(straight->student(), sgd(straight->parameters()), straight_options).fit(digits(100));
  auto [first, first_options] = make(folder.file("b"), false);
  first_options.callbacks.push_back(std::make_shared<StopAt>(6));
  Trainer(first->student(), sgd(first->parameters()), first_options).fit(digits(100));
  auto [second, second_options] = make(folder.file("b"), true);
  Trainer(second->student(), sgd(second->parameters()), second_options).fit(digits(100));
  expect_identical(state_of(*second->student()), state_of(*straight->student()));
  EXPECT_TRUE(identical(second->projections()[0].second.data(), straight->projections()[0].second.data()));
}

TEST(Distillation, ACacheResumesToTheSameBitsAndKnowsItsTeacher) {
  const Teacher first(small_network(1));
  Teacher teacher(small_network(1)), again(small_network(1)), other(small_network(2));
  const DataLoader loader(digits(40), {.batch_size = 16, .shuffle = true, .prefetch = 0});
  for (const Batch& batch : loader.batches()) teacher(batch);
  again.load_state(teacher.state());
  EXPECT_EQ(again.cached(), 40);
  for (const Batch& batch : loader.batches(1))
    EXPECT_TRUE(identical(again(batch).outputs.data(), teacher(batch).outputs.data()));
  EXPECT_EQ(again.forwards(), 0);
  expect_contains(message_of<FileError>([&] { other.load_state(teacher.state()); }), "another teacher");
}

TEST(Distillation, RunsBesideAPruningSchedule) {
  const ModulePtr student = small_network(2);
  const auto distillation = self_distillation(student, digits(200));
  EXPECT_NE(distillation->teacher()->module(), student);
  expect_identical(state_of(*distillation->teacher()->module()), state_of(*student));
  auto pruner = std::make_shared<Pruner>(student, weight_sites(*student));
  TrainerOptions options = with_distillation(options_for(3), distillation);
  options.callbacks.push_back(std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8, .end = 0.5}));
  Trainer(student, sgd(distillation->parameters()), options).fit(digits(200));
  EXPECT_NEAR(pruner->sparsity(), 0.8, 1e-3);
  for (const Parameter& p : distillation->teacher()->module()->parameters()) EXPECT_FALSE(p.mask().defined());
}

TEST(DistillMany, EveryStudentEndsAsIfItWereAlone) {
  const auto terms = [](int which) {
    std::vector<std::vector<WeightedTerm>> all = {{{1, knowledge_distillation({.temperature = 2})}},
                                                  {{1, label_loss()}, {2, hint("2", "2")}},
                                                  {{0.5, knowledge_distillation()}, {3, relational_angle()}}};
    return all[static_cast<size_t>(which)];
  };
  const auto pruning = [](const ModulePtr& net) {
    return std::make_shared<GradualPruning>(std::make_shared<Pruner>(net, weight_sites(*net)),
                                            GradualOptions{.sparsity = 0.5, .end = 0.6});
  };
  TrainerOptions options = options_for(3);
  options.clip_norm = 1;
  std::vector<NamedTensors> alone;
  std::vector<TrainingResult> results;
  for (int i = 0; i < 3; ++i) {  // dropout included: each student has its own random numbers
    const ModulePtr student = small_network(10 + static_cast<uint64_t>(i));
    const auto d = std::make_shared<Distillation>(student, small_network(1), digits(100),
                                                  DistillationOptions{.terms = terms(i), .cache = TeacherCache::never});
    TrainerOptions own = with_distillation(options, d);
    own.schedule = cosine_schedule();
    own.callbacks.push_back(pruning(student));
    results.push_back(Trainer(student, sgd(d->parameters()), own).fit(digits(100), digits_test()));
    alone.push_back(copy_of(state_of(*student)));
  }

  const auto teacher = std::make_shared<Teacher>(small_network(1), TeacherCache::never);
  std::vector<Student> students;
  for (int i = 0; i < 3; ++i) {
    const ModulePtr student = small_network(10 + static_cast<uint64_t>(i));
    const auto d =
        std::make_shared<Distillation>(student, teacher, digits(100), DistillationOptions{.terms = terms(i)});
    students.push_back({.distillation = d,
                        .optimizer = sgd(d->parameters()),
                        .schedule = cosine_schedule(),
                        .callbacks = {pruning(student)}});
  }
  const std::vector<TrainingResult> together = distill_many(students, options, digits(100), digits_test());
  EXPECT_EQ(teacher->forwards(), 3 * 4);  // one for each batch, not for each student
  for (size_t i = 0; i < 3; ++i) {
    expect_identical(state_of(*students[i].distillation->student()), alone[i]);
    ASSERT_EQ(together[i].history.size(), results[i].history.size());
    EXPECT_EQ(together[i].best_epoch, results[i].best_epoch);
    EXPECT_EQ(together[i].step, results[i].step);
    for (size_t e = 0; e < together[i].history.size(); ++e) {
      EXPECT_EQ(together[i].history[e].train_loss, results[i].history[e].train_loss);
      EXPECT_EQ(together[i].history[e].validation_loss, results[i].history[e].validation_loss);
      EXPECT_EQ(together[i].history[e].train_accuracy, results[i].history[e].train_accuracy);
      EXPECT_EQ(together[i].history[e].lr, results[i].history[e].lr);
    }
    EXPECT_EQ(students[i].optimizer->lr(), 0.05);
  }
}

TEST(DistillMany, AStudentMayStopAndTheOthersGoOn) {
  const auto teacher = std::make_shared<Teacher>(small_network(1));
  std::vector<Student> students;
  for (const uint64_t seed : {2, 3}) {
    const auto d = std::make_shared<Distillation>(small_network(seed), teacher, digits(64));
    students.push_back({.distillation = d, .optimizer = sgd(d->parameters())});
  }
  students[0].callbacks = {std::make_shared<StopAt>(3)};
  const auto results = distill_many(students, options_for(3), digits(64));
  EXPECT_EQ(results[0].stop, StopReason::requested);
  EXPECT_EQ(results[0].step, 3);
  EXPECT_EQ(results[1].stop, StopReason::finished);
  EXPECT_EQ(results[1].step, 6);
  EXPECT_EQ(teacher->forwards(), 2);  // cached afterwards
}

/// Asks for the end after the first epoch, and draws a number when the training is over.
struct EndsAfterAnEpoch : Callback {
  void on_epoch_end(Trainer& trainer, const EpochRecord&) override { trainer.request_stop(); }
  void on_train_end(Trainer&) override { drawn = default_generator().next_uniform(); }
  double drawn = 0;
};

TEST(DistillMany, AStudentEndsAsWithATrainer) {
  const auto alone = std::make_shared<EndsAfterAnEpoch>(), beside = std::make_shared<EndsAfterAnEpoch>();
  const auto first = std::make_shared<Distillation>(small_network(2), small_network(1), digits(64));
  TrainerOptions options = with_distillation(options_for(3), first);
  options.callbacks.push_back(alone);
  const TrainingResult expected =
      Trainer(first->student(), sgd(first->parameters()), options).fit(digits(64), digits_test());

  const auto teacher = std::make_shared<Teacher>(small_network(1));
  std::vector<Student> students;
  for (const uint64_t seed : {3, 2}) {
    const auto d = std::make_shared<Distillation>(small_network(seed), teacher, digits(64));
    students.push_back({.distillation = d, .optimizer = sgd(d->parameters())});
  }
  students[1].callbacks = {beside};
  const auto results = distill_many(students, options_for(3), digits(64), digits_test());
  EXPECT_EQ(expected.step, 2);
  EXPECT_EQ(results[1].step, 2) << "the stop comes at once";
  EXPECT_EQ(results[1].stop, expected.stop);
  EXPECT_EQ(results[1].history.size(), 1U);
  EXPECT_EQ(beside->drawn, alone->drawn) << "from the student's own random numbers";
  expect_identical(state_of(*students[1].distillation->student()), state_of(*first->student()));
  EXPECT_EQ(results[0].step, 6);
}

TEST(DistillMany, StartsSchedulesAnewAndTracksMemory) {
  // Nothing is better by nine tenths: the rate falls after the second epoch.
  const SchedulePtr schedule = parse_schedule("plateau:gamma=0.5,patience=0,threshold=0.9");
  const auto rates = [&] {
    const auto d = std::make_shared<Distillation>(small_network(2), small_network(1), digits(64));
    const auto results = distill_many({{.distillation = d, .optimizer = sgd(d->parameters()), .schedule = schedule}},
                                      options_for(3), digits(64));
    std::vector<double> rates;
    for (const EpochRecord& record : results[0].history) {
      rates.push_back(record.lr);
      EXPECT_GT(record.peak_bytes, 0);
    }
    return rates;
  };
  const std::vector<double> first = rates();
  EXPECT_EQ(first, (std::vector<double>{0.05, 0.05, 0.025}));
  EXPECT_EQ(rates(), first);
}

TEST(DistillMany, AValidationLossThatIsNaNThrows) {
  struct Breaks : Callback {
    void on_step_end(Trainer& trainer, const StepRecord&) override {
      Tensor mean = trainer.module()->find<BatchNorm1d>("2")->running_mean();
      mean.fill_(std::nan(""));
    }
  };
  const auto d = std::make_shared<Distillation>(small_network(2), small_network(1), digits(64));
  const Student student{
      .distillation = d, .optimizer = sgd(d->parameters()), .callbacks = {std::make_shared<Breaks>()}};
  expect_contains(message_of<NumericError>([&] { distill_many({student}, options_for(3), digits(64), digits_test()); }),
                  "student 0] the validation loss became NaN");
  EXPECT_EQ(student.optimizer->lr(), 0.05) << "what the training changed is put back";
}

TEST(DistillMany, BadInput) {
  const auto teacher = std::make_shared<Teacher>(small_network(1));
  const auto d = std::make_shared<Distillation>(small_network(2), teacher, digits(10));
  const auto e = std::make_shared<Distillation>(small_network(3), small_network(1), digits(10));
  const Student one{.distillation = d, .optimizer = sgd(d->parameters())},
      other{.distillation = e, .optimizer = sgd(e->parameters())};
  EXPECT_THROW(distill_many({}, options_for(1), digits(64)), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] {
                    distill_many({one, other}, options_for(1), digits(64));
                  }),
                  "another teacher");
  expect_contains(message_of<ArgumentError>([&] { distill_many({one, one}, options_for(1), digits(64)); }), "share");
  TrainerOptions options = options_for(1);
  options.patience = 3;
  expect_contains(message_of<ArgumentError>([&] { distill_many({one}, options, digits(64)); }), "patience");
}

TEST(Distillation, BadInput) {
  const ModulePtr teacher = conv_network(1, 4), student = conv_network(2, 2);
  const auto make = [&](std::vector<WeightedTerm> terms, TeacherCache cache = TeacherCache::automatic) {
    return Distillation(student, teacher, digits(4), {.terms = std::move(terms), .cache = cache});
  };
  const std::string classes =
      message_of<ArgumentError>([&] { Distillation(conv_network(3, 2, 7), teacher, digits(4)); });
  expect_contains(classes, "(2,10)");
  expect_contains(classes, "(2,7)");
  expect_contains(message_of<ArgumentError>([&] { make({{1, hint("conw", "conv")}}); }), "did you mean 'conv'");
  expect_contains(message_of<ArgumentError>([&] { make({{1, hint("conv", "relo")}}); }), "did you mean 'relu'");
  expect_contains(message_of<ArgumentError>([&] { make({{1, hint("conv", "fc")}}); }), "cannot be projected");
  expect_contains(message_of<ArgumentError>([&] { make({{1, hint("conv", "conv")}}, TeacherCache::always); }), "layer");
  expect_contains(message_of<ArgumentError>([&] { make({{-1, label_loss()}}); }), "weight");
  EXPECT_THROW(make({{1, nullptr}}), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { Distillation(student, student, digits(4)); }), "its own teacher");
  expect_contains(message_of<ArgumentError>([&] { parse_teacher_cache("alwais"); }), "always");
  const auto d = std::make_shared<Distillation>(student, teacher, digits(4));
  EXPECT_THROW(with_distillation(with_distillation(options_for(1), d), d), ArgumentError);
}

TEST(Distillation, AStudentLearnsMoreFromATeacherThanFromFewLabels) {
  // The teacher has seen all labels, the student gets the images of 60 examples and what the teacher says of them.
  set_seed(5);
  const ModulePtr teacher = share(Sequential(Flatten(), Linear(64, 64), ReLU(), Linear(64, 10)));
  Trainer tutor(teacher, sgd(teacher->named_parameters()), options_for(15));
  const Dataset few = digits(1437).subset([] {
    std::vector<int64_t> every;
    for (int64_t i = 0; i < 60; ++i) every.push_back(i * 24 - i % 3);
    every[0] = 0;
    return every;
  }());
  const auto pupil = [] {
    set_seed(6);
    return share(Sequential(Flatten(), Linear(64, 24), ReLU(), Linear(24, 10)));
  };
  TrainerOptions options = options_for(60);
  options.batch_size = 20;
  const ModulePtr distilled = pupil(), alone = pupil();
  tutor.fit(digits(1437));
  const auto learning = std::make_shared<Distillation>(
      distilled, teacher, few,
      DistillationOptions{.terms = {{1, knowledge_distillation({.temperature = 3, .alpha = 0.9})}}});
  Trainer(distilled, sgd(learning->parameters()), with_distillation(options, learning)).fit(few);
  Trainer(alone, sgd(alone->named_parameters()), options).fit(few);
  const double with = evaluate(*distilled, digits_test()).accuracy(),
               without = evaluate(*alone, digits_test()).accuracy();
  EXPECT_GT(evaluate(*teacher, digits_test()).accuracy(), 0.93);
  EXPECT_GT(with, without);
}

TEST(FineTuneAndDistill, TrainsTheTeacherThenTheStudent) {
  const ModulePtr teacher = small_network(1), student = small_network(2);
  Trainer tutor(teacher, sgd(teacher->named_parameters()), options_for(4));
  const FineTunedDistillation result =
      fine_tune_and_distill(tutor, student, sgd, options_for(4), {}, digits(400), digits_test());
  EXPECT_EQ(result.teacher.history.size(), 4u);
  EXPECT_EQ(result.student.history.size(), 4u);
  EXPECT_GT(*result.teacher.history.back().validation_accuracy, 0.6);
  EXPECT_GT(*result.student.history.back().validation_accuracy, 0.6);
}

}  // namespace
}  // namespace espalier
