// Every criterion on networks that aren't classifiers of images: a regression, a classifier of sequences, an
// autoencoder, two heads. It scores all weights with numbers, and a Pruner prunes by it; or it says what to use.
#include <gtest/gtest.h>

#include "core/ops.h"
#include "layers/models/zoo.h"
#include "pruning/criteria/criterion.h"
#include "pruning/distillation/distillation.h"
#include "pruning/pruner.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/structure/compact.h"
#include "pruning/structure/graph.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;

struct Task {
  std::string name;
  Dataset data;
  ModulePtr network;
  Bundle example;
};

/// Of the class or value that a few random numbers have; 24 examples.
Task task_of(const std::string& name) {
  Generator generator(7);
  Dataset data{.name = name, .source = "", .images = randn({24, 6}, generator), .labels = {}};
  std::string model = "mlp:10";
  if (name == "sequence") {
    data.images = randn({24, 5, 3}, generator);
    std::vector<int64_t> lengths, labels;
    for (int64_t i = 0; i < 24; ++i) lengths.push_back(1 + i % 5), labels.push_back(i % 2);
    data.inputs.emplace_back("lengths", Tensor::from(lengths, {24}));
    data.labels = Tensor::from(labels, {24});
    data.class_names = {"a", "b"};
    model = "lstm-rows:6";
  } else if (name == "autoencoder") {
    data.reconstructs = true;
  } else {
    data.labels = sum(data.images, {1}, true);
  }
  if (name == "heads") {
    std::vector<int64_t> labels;
    for (int64_t i = 0; i < 24; ++i) labels.push_back(i % 3);
    data.targets.push_back({.name = "kind", .values = Tensor::from(labels, {24}), .class_names = {"a", "b", "c"}});
  }
  compute_statistics(data);
  ModelOptions options{.input = data.input_shape()};
  for (const Target& target : data.all_targets()) options.heads.push_back(target.outputs());
  set_seed(3);
  Task task{name, data, make_model(model, options), {}};
  Variables example;
  for (const Tensor& input : data.example()) example.emplace_back(input);
  task.example = example;
  return task;
}

const std::vector<std::string> kTasks = {"regression", "sequence", "autoencoder", "heads"};

class OtherTargets : public testing::TestWithParam<std::string> {};

TEST_P(OtherTargets, EveryCriterionScoresWeightsAndChannelsOrSaysWhatToUse) {
  for (const std::string& name : criterion_names()) {
    SCOPED_TRACE(name);
    for (const bool channels : {false, true}) {
      Task task = task_of(GetParam());
      const std::vector<Site> sites =
          channels ? channel_sites(DependencyGraph::trace(*task.network, task.example)) : weight_sites(*task.network);
      ASSERT_FALSE(sites.empty());
      try {
        Pruner pruner(task.network, sites,
                      {.criterion = make_criterion(name), .allocation = {.scope = Scope::layer}, .data = task.data});
        for (const auto& of_site : pruner.scores())
          for (const double score : of_site) EXPECT_TRUE(std::isfinite(score));
        pruner.prune(0.5);
        EXPECT_GT(count_sparsity(sites).sparsity(), 0.2);
      } catch (const ArgumentError& error) {
        // Whole units only, a layer that the network doesn't have, or a training that wasn't watched.
        const std::string message = error.what();
        const auto says = [&](const char* what) { return message.find(what) != std::string::npos; };
        EXPECT_TRUE(says("choose by ") || says("use ") || says("expected") || says("among the callbacks")) << message;
        const std::vector<std::string> excused = {"connections", "bn-scale", "fpgm",         "apoz",
                                                  "hrank",       "movement", "unit-gradient"};
        EXPECT_NE(std::find(excused.begin(), excused.end(), name), excused.end()) << message;
      }
    }
  }
}

TEST_P(OtherTargets, CompactionComputesTheSame) {
  Task task = task_of(GetParam());
  Pruner pruner(task.network, channel_sites(DependencyGraph::trace(*task.network, task.example)),
                {.criterion = make_criterion("taylor"), .allocation = {.scope = Scope::layer}, .data = task.data});
  pruner.prune(0.5);
  const Evaluation before = evaluate(*task.network, task.data);
  const int64_t parameters = task.network->num_parameters();
  const CompactionReport report = compact(*task.network, task.example);
  EXPECT_TRUE(report.kept_whole.empty()) << report.to_table();
  EXPECT_LT(task.network->num_parameters(), parameters);
  const Evaluation after = evaluate(*task.network, task.data);
  EXPECT_NEAR(after.loss, before.loss, 1e-5 * std::abs(before.loss));
  ASSERT_EQ(after.metrics.size(), before.metrics.size());
}

TEST_P(OtherTargets, AStudentLearnsFromATeacher) {
  Task task = task_of(GetParam());
  const ModulePtr teacher = task.network->clone(), student = task_of(GetParam()).network;
  for (const Parameter& parameter : student->parameters()) {
    Tensor values = parameter.data();
    values.copy_(values * 0.5);
  }
  const auto learning = std::make_shared<Distillation>(
      student, teacher, task.data,
      DistillationOptions{
          .terms = {{1, knowledge_distillation({.temperature = 2, .alpha = 1})}, {0.1, relational_distance()}}});
  const auto gap = [&] {
    const NoGrad no_grad;
    const DataLoader loader(task.data, {.batch_size = 24, .prefetch = 0});
    BatchStream stream = loader.batches();
    const Batch batch = *stream.next();
    double total = 0;
    const Bundle own = outputs_of(*student, batch), wanted = outputs_of(*teacher, batch);
    for (size_t i = 0; i < own.size(); ++i) {  // of classes only the probabilities are learnt
      const bool is_classes = task.data.all_targets()[i].is_classes();
      const Variable a = is_classes ? softmax(own[i]) : own[i], b = is_classes ? softmax(wanted[i]) : wanted[i];
      total += mean(square(a - b)).item();
    }
    return total;
  };
  const double before = gap();
  Trainer(student, std::make_shared<Adam>(learning->parameters(), AdamOptions{.lr = 0.01}),
          with_distillation({.epochs = 20, .batch_size = 8, .progress = ProgressMode::silent}, learning))
      .fit(task.data);
  EXPECT_LT(gap(), 0.5 * before);
}

TEST_P(OtherTargets, ReconstructionBringsTheMaskedNetworkNearer) {
  Task task = task_of(GetParam());
  if (GetParam() == "sequence") return;  // the layers of an LSTM have no reconstruction
  const ModulePtr dense = task.network->clone();
  Pruner pruner(task.network, weight_sites(*task.network), {.allocation = {.scope = Scope::layer}});
  pruner.prune(0.6);
  const auto gap = [&] {
    const NoGrad no_grad;
    const EvalMode mode(*task.network);
    const Variable x = task.data.images;
    return mean(square((*task.network)(x).data() - (*dense)(x).data())).item();
  };
  const double before = gap();
  reconstruct(*task.network, *dense, task.data, {.batch_size = 24});
  EXPECT_LT(gap(), before);
}

INSTANTIATE_TEST_SUITE_P(Tasks, OtherTargets, testing::ValuesIn(kTasks));

TEST(OneTarget, SynFlowSaysWhatToUseForWords) {
  Task task = task_of("regression");
  task.data.images = Tensor::full({24, 6}, 1, DType::i64);
  const std::vector<Parameter> parameters = task.network->parameters();
  CriterionInput input{.module = *task.network, .data = &task.data};
  expect_contains(testing_support::message_of([&] { make_criterion("synflow")->score(parameters, input); }),
                  "use snip or taylor");
}

TEST(OneTarget, GraspKnowsATrainedRegression) {
  Task task = task_of("regression");
  for (const Parameter& parameter : task.network->parameters()) {
    Tensor values = parameter.data();
    values.fill_(0);
  }
  // y = relu(sum x) - relu(-sum x): right to the bit, where the data is not normalised.
  task.data.mean = task.data.stddev = {};
  Tensor first = task.network->parameters()[0].data(), last = task.network->parameters()[2].data();
  for (int64_t i = 0; i < 6; ++i) first.data<float>()[i] = 1, first.data<float>()[6 + i] = -1;
  last.data<float>()[0] = 1;
  last.data<float>()[1] = -1;
  CriterionInput input{.module = *task.network, .data = &task.data};
  expect_contains(testing_support::message_of([&] { make_criterion("grasp")->check_state(input); }),
                  "this one is trained");
}

}  // namespace
}  // namespace espalier
