// Training on the device: the CPU's numbers, masks that hold, checkpoints that move between devices and resume.
#include "tests/training/support.h"

#include "autograd/ops.h"
#include "core/ops.h"
#include "layers/models/zoo.h"
#include "pruning/pruner.h"
#include "pruning/schedules/gradual.h"
#include "tests/cuda/difference.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

const Device kCuda = Device::cuda();

/// Digits at twice their size, 16x16: the smallest images LeNet-5 takes.
Dataset large_digits(int64_t count) {
  Dataset data = digits(count);
  const int64_t n = data.size();
  data.images = data.images.reshape({n, 1, 8, 1, 8, 1}).expand({n, 1, 8, 2, 8, 2}).clone().reshape({n, 1, 16, 16});
  return data;
}

struct Trained {
  ModulePtr net;
  TrainingResult result;
};

/// LeNet-5 for `epochs` passes over 160 digits in batches of 16, ten steps each, pruned to 80 % on the way.
Trained train_lenet(Device device, int64_t epochs) {
  set_seed(1);
  const ModulePtr net = make_model("lenet5", {.height = 16});
  const Dataset data = large_digits(160);
  const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
  const auto pruning =
      std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8, .begin = 0.2, .end = 0.6, .every = 5});
  Trainer trainer(
      net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-4}),
      {.epochs = epochs, .batch_size = 16, .device = device, .progress = ProgressMode::silent, .callbacks = {pruning}});
  TrainingResult result = trainer.fit(data);
  return {net, std::move(result)};
}

/// Issue: 50 steps agree within 1e-4 relative, masks identical.
TEST(CudaTraining, LeNetFollowsTheCpuForFiftySteps) {
  const Trained here = train_lenet(Device::cpu(), 5), there = train_lenet(kCuda, 5);
  ASSERT_EQ(here.result.step, 50);
  ASSERT_EQ(there.result.step, 50);
  for (size_t i = 0; i < here.result.history.size(); ++i) {
    const double loss = here.result.history[i].train_loss;
    EXPECT_NEAR(there.result.history[i].train_loss, loss, 1e-4 * loss) << "epoch " << i + 1;
  }
  EXPECT_LT(here.result.history.back().train_loss, 0.7 * here.result.history.front().train_loss);
  const auto a = here.net->named_parameters(), b = there.net->named_parameters();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, difference(b[i].second.data(), a[i].second.data()));
  fmt::print("largest relative difference of a parameter: {:.1e}\n", largest);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(b[i].second.data().device(), kCuda);
    EXPECT_LT(difference(b[i].second.data(), a[i].second.data()), 1e-4) << a[i].first;
    ASSERT_EQ(a[i].second.mask().defined(), b[i].second.mask().defined()) << a[i].first;
    if (!a[i].second.mask().defined()) continue;
    EXPECT_TRUE(a[i].second.mask() == b[i].second.mask().to(Device::cpu())) << a[i].first;
    const Tensor masked = b[i].second.mask().expand(DType::f32) == 0.0;
    EXPECT_EQ(sum(where(masked, abs(b[i].second.data()), Tensor::scalar(0, DType::f32, kCuda))).item(), 0)
        << a[i].first << ": a masked weight is not 0";
  }
}

TEST(CudaTraining, EveryOptimiserFollowsTheCpu) {
  for (const char* name : {"sgd", "adam", "adamw", "rmsprop"}) {
    const auto run = [&](Device device) {
      // No bias stands before a BatchNorm: its gradient would be rounding alone, which Adam makes as large as any.
      set_seed(3);
      const ModulePtr net = share(Sequential(Flatten(), Linear(64, 24), ReLU(), Linear(24, 10)));
      net->parameters()[0].set_mask(
          Mask::from_scores({24, 64}, Pattern::element(), net->parameters()[0].data(), 24 * 32));
      std::shared_ptr<Optimizer> optimizer =
          make_optimizer(name, net->named_parameters(), {.lr = 0.01, .momentum = 0.8, .weight_decay = 1e-3});
      Trainer(net, optimizer,
              {.epochs = 1, .batch_size = 16, .clip_norm = 1, .device = device, .progress = ProgressMode::silent})
          .fit(digits(160));
      return net;
    };
    const NamedTensors a = state_of(*run(Device::cpu())), b = state_of(*run(kCuda));
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_LT(difference(b[i].second, a[i].second), 2e-4) << name << " " << a[i].first;
  }
}

TEST(CudaTraining, CheckpointsMoveBetweenDevices) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(5);
  net->parameters()[0].set_mask(Mask::from_scores({24, 64}, Pattern::block(1, 4), rand({24 * 16}), 100));
  // The bias before the BatchNorm has a gradient of rounding alone: epsilon keeps Adam from making a step of it.
  constexpr AdamOptions kAdam{.epsilon = 1e-3};
  Adam optimizer(*net, kAdam);
  const auto step = [](Module& module, Optimizer& o, Device device) {
    module.train();
    Generator generator(9);
    const Tensor x = rand({8, 1, 8, 8}, generator).to(device);
    o.zero_grad();
    set_seed(2);
    sum(square(module(x))).backward();
    o.step();
  };
  net->to(kCuda);
  step(*net, optimizer, kCuda);
  save_checkpoint(folder.file("there.safetensors"), *net, &optimizer);

  // Restored on the CPU, and on the device into a network that lives there.
  const ModulePtr here = small_network(6), there = small_network(7);
  there->to(kCuda);
  Adam optimizer_here(*here, kAdam), optimizer_there(*there, kAdam);
  const Checkpoint checkpoint = load_checkpoint(folder.file("there.safetensors"));
  restore(checkpoint, *here, &optimizer_here);
  restore(checkpoint, *there, &optimizer_there);
  expect_identical(state_of(*here), state_of(*net));
  expect_identical(state_of(*there), state_of(*net));
  EXPECT_TRUE(here->parameters()[0].mask() == net->parameters()[0].mask());
  EXPECT_EQ(there->parameters()[0].mask().device(), kCuda);

  step(*net, optimizer, kCuda);
  step(*there, optimizer_there, kCuda);
  step(*here, optimizer_here, Device::cpu());
  expect_identical(state_of(*there), state_of(*net));
  const auto a = state_of(*here), b = state_of(*net);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_LT(difference(b[i].second, a[i].second), 1e-4) << a[i].first;
}

TEST(CudaTraining, ResumesToTheSameBits) {
  const TemporaryFolder whole, parts;
  const auto run = [&](const std::string& folder, int64_t epochs, bool resume) {
    const ModulePtr net = small_network(4);
    Trainer trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9}),
                    {.epochs = epochs,
                     .batch_size = 32,
                     .run_folder = folder,
                     .resume = resume,
                     .device = kCuda,
                     .progress = ProgressMode::silent});
    trainer.fit(digits(128));
    return copy_of(state_of(*net));
  };
  const NamedTensors expected = run(whole.file("run"), 2, false);
  run(parts.file("run"), 1, false);
  expect_identical(run(parts.file("run"), 2, true), expected);
}

TEST(CudaTraining, EvaluationCountsTheSame) {
  const ModulePtr net = small_network(8);
  const Evaluation here = evaluate(*net, digits_test());
  const Evaluation there = evaluate(*net, digits_test(), {.device = kCuda});
  EXPECT_EQ(there.accuracy(), here.accuracy());
  EXPECT_NEAR(there.loss, here.loss, 1e-5);
}

TEST(CudaTraining, LossesOfWrongTargetsAreErrors) {
  const Variable logits(Tensor::zeros({2, 3}, DType::f32, kCuda));
  const Variable loss = cross_entropy(logits, Tensor::from<int64_t>({0, 3}, {2}).to(kCuda));
  EXPECT_THROW(loss.item(), ArgumentError);
  const Variable ignored = cross_entropy(logits, Tensor::from<int64_t>({-100, 2}, {2}).to(kCuda));
  EXPECT_NEAR(ignored.item(), std::log(3.0), 1e-6);
}

}  // namespace
}  // namespace espalier
