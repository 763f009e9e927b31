// Recovery on networks small enough to know what has to come out.
#include <cmath>

#include <gtest/gtest.h>

#include "core/random.h"
#include "layers/conv.h"
#include "pruning/pruner.h"
#include "pruning/recovery/init_from.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/recovery/regrow.h"
#include "pruning/recovery/statistics.h"
#include "pruning/structure/graph.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using testing_support::copy_of;
using testing_support::digits;
using testing_support::expect_contains;
using testing_support::expect_identical;
using testing_support::message_of;
using testing_support::small_network;
using testing_support::TemporaryFolder;

/// Random images of a shape; normalised as they are.
Dataset random_images(int64_t count, int64_t channels, int64_t size, uint64_t seed = 1) {
  Generator generator(seed);
  std::vector<uint8_t> pixels(static_cast<size_t>(count * channels * size * size));
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(generator.next_below(256));
  std::vector<int64_t> labels(static_cast<size_t>(count));
  for (int64_t& label : labels) label = static_cast<int64_t>(generator.next_below(3));
  Dataset data{.name = "random",
               .source = "",
               .images = Tensor::from<uint8_t>(pixels, {count, channels, size, size}),
               .labels = Tensor::from<int64_t>(labels, {count}),
               .class_names = {"a", "b", "c"}};
  compute_statistics(data);
  return data;
}

Tensor batch_of(const Dataset& data) {
  const DataLoader loader(data, {.batch_size = data.size(), .prefetch = 0});
  return loader.batches().next()->images;
}

void mask_columns(Parameter weight, const std::vector<int64_t>& columns) {
  std::vector<bool> exists(static_cast<size_t>(weight.size(1)), true);
  for (const int64_t c : columns) exists[static_cast<size_t>(c)] = false;
  weight.set_mask(Mask::from_units(weight.shape(), Pattern::channel(1), exists));
}

double mean_square(const Tensor& a, const Tensor& b) { return mean(square(a - b)).item(); }

// --- reconstruction -------------------------------------------------------------------------------------------------

TEST(Reconstruct, FindsTheExactWeightsWhereTheRemainingInputsCanSayEverything) {
  // Feature 3 of the hidden layer is always the sum of features 0 and 1, so its weights can move to theirs.
  set_seed(1);
  const ModulePtr dense = share(Sequential(Flatten(), Linear(4, 4, {.bias = false}), Linear(4, 2)));
  Parameter first = dense->find<Linear>("1")->weight();
  std::vector<float> w = first.data().to_vector<float>();
  for (size_t i = 0; i < 4; ++i) w[12 + i] = w[i] + w[4 + i];
  first.set_data(Tensor::from<float>(w, {4, 4}));
  const ModulePtr pruned = dense->clone();
  const Parameter weight = pruned->find<Linear>("2")->weight();
  const std::vector<float> old = weight.data().to_vector<float>();
  mask_columns(weight, {3});
  const Dataset data = random_images(100, 1, 2);
  const Reconstruction result = reconstruct_layer(*pruned, "2", *dense, data, {.ridge = 1e-12});
  EXPECT_GT(result.before, 1e-3);
  EXPECT_LT(result.after, 1e-10 * result.before);
  EXPECT_EQ(result.samples, 100);
  const std::vector<float> now = weight.data().to_vector<float>();
  for (size_t row = 0; row < 2; ++row) {
    EXPECT_NEAR(now[row * 4], old[row * 4] + old[row * 4 + 3], 1e-4);
    EXPECT_NEAR(now[row * 4 + 1], old[row * 4 + 1] + old[row * 4 + 3], 1e-4);
    EXPECT_NEAR(now[row * 4 + 2], old[row * 4 + 2], 1e-4);
    EXPECT_EQ(now[row * 4 + 3], 0);
  }
  const Tensor x = batch_of(data);
  EXPECT_LT(mean_square((*pruned)(x).data(), (*dense)(x).data()), 1e-10);
}

TEST(Reconstruct, FitsTheBiasToAConstantInput) {
  set_seed(2);
  const ModulePtr dense = share(Sequential(Flatten(), Linear(4, 2)));
  const ModulePtr pruned = dense->clone();
  const Linear& layer = *pruned->find<Linear>("1");
  mask_columns(layer.weight(), {0, 1, 2, 3});
  const Dataset data = random_images(50, 1, 2);
  const Tensor wanted = (*dense)(batch_of(data)).data();
  const Reconstruction result = reconstruct_layer(*pruned, "1", *dense, data, {.ridge = 1e-12});
  const std::vector<float> means = mean(wanted, {0}).to_vector<float>(), bias = layer.bias().data().to_vector<float>();
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(bias[i], means[i], 1e-5);  // the best constant is the mean
  EXPECT_NEAR(result.after, mean(variance(wanted, {0}, false, 0)).item(), 1e-5 * result.before);
}

struct ConvCase {
  const char* name;
  Conv2dOptions options;
};

TEST(Reconstruct, ReportsTheTrueErrorOfConvolutionsAndLowersIt) {
  const std::vector<ConvCase> cases = {
      {"plain", {.kernel = 3, .padding = 1}},
      {"strided", {.kernel = {3, 2}, .stride = 2, .padding = {1, 0}, .dilation = {1, 2}}},
      {"grouped", {.kernel = 3, .padding = 1, .groups = 2}},
      {"without bias", {.kernel = 1, .bias = false}}};
  for (const ConvCase& c : cases) {
    set_seed(3);
    const ModulePtr dense = share(Sequential(Conv2d(4, 6, c.options)));
    const ModulePtr pruned = dense->clone();
    Pruner(pruned, weight_sites(*pruned)).prune(0.5);
    const Mask mask = pruned->parameters()[0].mask();
    const Dataset data = random_images(40, 4, 6);
    const Tensor x = batch_of(data);
    const Tensor wanted = (*dense)(x).data();
    const double before = mean_square((*pruned)(x).data(), wanted);
    const Reconstruction result = reconstruct_layer(*pruned, "0", *dense, data, {.positions = 100, .ridge = 1e-9});
    const double after = mean_square((*pruned)(x).data(), wanted);
    // f32 outputs: their error is in the seventh digit of values of about 1.
    EXPECT_NEAR(result.before, before, 1e-5 * before) << c.name;
    EXPECT_NEAR(result.after, after, 1e-5 * before) << c.name;
    EXPECT_LT(after, before) << c.name;
    EXPECT_EQ(result.samples, 40 * wanted.size(2) * wanted.size(3)) << c.name;
    EXPECT_TRUE(pruned->parameters()[0].mask() == mask);
    EXPECT_TRUE(identical(pruned->parameters()[0].data(), mask.apply(pruned->parameters()[0].data()))) << c.name;
    // Least squares: no small step along the gradient of the error is left.
    const Variable loss = mse_loss((*pruned)(x), wanted);
    loss.backward();
    for (const Parameter& p : pruned->parameters())
      EXPECT_LT(max(abs(p.grad())).item(), 1e-4 * std::sqrt(before)) << c.name << " " << p.name();
  }
}

TEST(Reconstruct, SampledPositionsAndFewExamplesNeverMakeTheSampledErrorLarger) {
  for (const uint64_t seed : {1, 2, 3}) {
    const ModulePtr dense = small_network(seed);
    const ModulePtr pruned = dense->clone();
    Pruner(pruned, weight_sites(*pruned)).prune(0.9);
    for (const double ridge : {0.0, 1e-6, 1.0})
      for (const Reconstruction& r : reconstruct(*pruned, *dense, digits(8), {.ridge = ridge, .seed = seed})) {
        EXPECT_LE(r.after, r.before) << r.layer;
        EXPECT_TRUE(std::isfinite(r.after));
      }
  }
}

TEST(Reconstruct, ANetworkComesNearerToItsDenseSelf) {
  set_seed(4);
  auto net = share(Sequential());
  net->add("conv1", Conv2d(1, 6, {.kernel = 3, .padding = 1}));
  net->add("relu1", ReLU());
  net->add("conv2", Conv2d(6, 6, {.kernel = 3}));
  net->add("relu2", ReLU());
  net->add("flatten", Flatten());
  net->add("fc", Linear(216, 10));
  const ModulePtr pruned = net->clone();
  pruned->train();
  Pruner(pruned, weight_sites(*pruned), {.allocation = {.scope = Scope::layer}}).prune(0.6);
  const Tensor x = batch_of(digits(600));
  const double before = mean_square((*pruned)(x).data(), (*net)(x).data());
  const auto results = reconstruct(*pruned, *net, digits(600), {.batches = 20});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].layer, "conv1");
  EXPECT_EQ(results[2].layer, "fc");
  EXPECT_LT(mean_square((*pruned)(x).data(), (*net)(x).data()), 0.5 * before);
  EXPECT_TRUE(pruned->is_training());
  for (const Parameter& p : net->parameters()) EXPECT_FALSE(p.mask().defined());
}

/// conv - BatchNorm - ReLU - conv - flatten - fc, whose first convolution loses three of six channels.
struct ChannelPruned {
  ModulePtr dense, pruned;
  explicit ChannelPruned(uint64_t seed) {
    set_seed(seed);
    auto net = share(Sequential());
    net->add("conv1", Conv2d(1, 6, {.kernel = 3, .padding = 1}));
    net->add("norm", BatchNorm2d(6));
    net->add("relu1", ReLU());
    net->add("conv2", Conv2d(6, 6, {.kernel = 3, .stride = 2}));
    net->add("flatten", Flatten());
    net->add("fc", Linear(54, 10));
    recalibrate_batch_norm(*net, digits(200));
    dense = net;
    dense->eval();
    pruned = dense->clone();
    const auto sites = channel_sites(DependencyGraph::trace(*pruned, batch_of(digits(1))));
    Pruner(pruned, {sites[0]}).prune(0.5);
  }
};

TEST(Reconstruct, LayersThatReadMaskedChannelsMakeUpForThem) {
  const ChannelPruned nets(5);
  const Tensor x = batch_of(digits(400));
  const double before = mean_square((*nets.pruned)(x).data(), (*nets.dense)(x).data());
  ASSERT_FALSE(nets.pruned->find<Conv2d>("conv2")->weight().mask().defined());
  const auto results = reconstruct(*nets.pruned, *nets.dense, digits(400));
  // conv1's remaining channels are what they were; conv2 reads the masked ones; fc has all of its inputs.
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].layer, "conv2");
  EXPECT_LT(results[1].after, 0.5 * results[1].before);
  EXPECT_LT(mean_square((*nets.pruned)(x).data(), (*nets.dense)(x).data()), 0.5 * before);
}

TEST(Reconstruct, BadInput) {
  const ModulePtr dense = small_network(1), pruned = dense->clone();
  expect_contains(message_of<ArgumentError>([&] { reconstruct_layer(*pruned, "9", *dense, digits(8)); }), "'9'");
  expect_contains(message_of<ArgumentError>([&] { reconstruct_layer(*pruned, "3", *dense, digits(8)); }), "ReLU");
  EXPECT_THROW(reconstruct_layer(*pruned, "1", *dense, Dataset{}), ArgumentError);
  EXPECT_THROW(reconstruct_layer(*pruned, "1", *dense, digits(8), {.ridge = -1}), ArgumentError);
  const ModulePtr other = share(Sequential(Flatten(), Linear(64, 12), BatchNorm1d(12), ReLU(), Linear(12, 10)));
  expect_contains(message_of<ArgumentError>([&] { reconstruct_layer(*other, "1", *dense, digits(8)); }), "(8,12)");
  EXPECT_TRUE(reconstruct(*pruned, *dense, digits(8)).empty());  // nothing is masked
}

// --- statistics -----------------------------------------------------------------------------------------------------

TEST(RecalibrateBatchNorm, GivesTheMeanAndVarianceOfTheData) {
  const ModulePtr net = small_network(3);  // Flatten, Linear, BatchNorm1d, ReLU, Dropout, Linear
  const auto norm = net->find<BatchNorm1d>("2");
  const Tensor x = batch_of(digits(100));
  net->train();
  const NamedTensors weights = copy_of({{"w", net->parameters()[0].data()}});
  const PhiloxState random = default_generator().state();
  EXPECT_EQ(recalibrate_batch_norm(*net, digits(100), {.batch_size = 100}), 1);
  EXPECT_EQ(default_generator().state(), random);  // no dropout
  const Tensor inputs = linear(flatten(Variable(x)), net->parameters()[0], net->parameters()[1]).data();
  // Sums of 100 f32 values.
  EXPECT_TRUE(all_close(norm->running_mean(), mean(inputs, {0}), 1e-5, 1e-5));
  EXPECT_TRUE(all_close(norm->running_var(), variance(inputs, {0}), 1e-4, 1e-6));
  EXPECT_EQ(norm->options().momentum, 0.1);
  EXPECT_TRUE(net->is_training() && norm->is_training());
  expect_identical(weights, {{"w", net->parameters()[0].data()}});
}

TEST(RecalibrateBatchNorm, AveragesFullBatches) {
  const ModulePtr net = small_network(3);
  net->eval();
  const auto norm = net->find<BatchNorm1d>("2");
  EXPECT_EQ(recalibrate_batch_norm(*net, digits(100), {.batch_size = 30, .batches = 9, .seed = 4}), 1);
  EXPECT_EQ(norm->num_batches_tracked().item(), 3);
  EXPECT_FALSE(net->is_training());
  const DataLoader loader(digits(100), {.batch_size = 30, .shuffle = true, .seed = 4, .prefetch = 0});
  Tensor means = Tensor::zeros({24}), variances = Tensor::zeros({24});
  int64_t number = 0;
  for (const Batch& batch : loader.batches()) {
    if (++number > 3) break;
    const Tensor inputs = linear(flatten(Variable(batch.images)), net->parameters()[0], net->parameters()[1]).data();
    means = means + mean(inputs, {0}) * (1.0 / 3);
    variances = variances + variance(inputs, {0}) * (1.0 / 3);
  }
  EXPECT_TRUE(all_close(norm->running_mean(), means, 1e-5, 1e-5));
  EXPECT_TRUE(all_close(norm->running_var(), variances, 1e-4, 1e-6));
  EXPECT_EQ(recalibrate_batch_norm(*share(Sequential(Flatten(), Linear(64, 3))), digits(10)), 0);
}

TEST(CompensateBias, MakesTheMeanOutputsEqual) {
  set_seed(6);
  auto dense = share(Sequential());
  dense->add("conv", Conv2d(1, 5, {.kernel = 3}));
  dense->add("relu", ReLU());
  dense->add("plain", Conv2d(5, 4, {.kernel = 3, .bias = false}));
  dense->add("norm", BatchNorm2d(4));
  dense->add("relu2", ReLU());
  dense->add("flatten", Flatten());
  dense->add("fc", Linear(64, 10));
  recalibrate_batch_norm(*dense, digits(100));
  dense->eval();
  const ModulePtr pruned = dense->clone();
  Pruner(pruned, weight_sites(*pruned), {.allocation = {.scope = Scope::layer}}).prune(0.5);
  const NamedTensors running = copy_of(pruned->named_buffers());
  const std::vector<Compensation> results =
      compensate_bias(*pruned, *dense, digits(200), {.batch_size = 100, .batches = 2});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].target, "conv.bias");
  EXPECT_EQ(results[1].target, "norm.bias");
  EXPECT_EQ(results[2].target, "fc.bias");
  for (const Compensation& r : results) {
    EXPECT_GT(r.largest_shift, 0) << r.layer;
    EXPECT_EQ(r.largest_remaining, 0) << r.layer;
  }
  expect_identical(running, pruned->named_buffers());
  // The means of what the next layer gets: conv, norm and fc.
  std::map<std::string, Tensor> means[2];
  const Tensor x = batch_of(digits(200));
  int which = 0;
  for (const ModulePtr& net : {ModulePtr(dense), pruned}) {
    std::map<const Module*, std::string> watched;
    for (const char* name : {"conv", "norm", "fc"}) watched[net->find(name).get()] = name;
    const ForwardObserver observer([&](Module& module, const Variable&, const Variable& y) {
      if (watched.contains(&module))
        means[which][watched[&module]] =
            y.rank() == 4 ? mean(y.data().to(DType::f64), {0, 2, 3}) : mean(y.data().to(DType::f64), {0});
    });
    (*net)(x);
    ++which;
  }
  for (const char* name : {"conv", "norm", "fc"})
    EXPECT_TRUE(all_close(means[0][name], means[1][name], 1e-4, 1e-5)) << name;
}

TEST(CompensateBias, LayersThatReadMaskedChannelsGetTheirMeansBack) {
  const ChannelPruned nets(5);
  const auto results = compensate_bias(*nets.pruned, *nets.dense, digits(400));
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].target, "conv2.bias");
  EXPECT_GT(results[1].largest_shift, 0.01);
  std::vector<Tensor> means;
  for (const ModulePtr& net : {nets.dense, nets.pruned}) {
    const ModulePtr conv = net->find("conv2");
    const ForwardObserver observer([&](Module& module, const Variable&, const Variable& y) {
      if (&module == conv.get()) means.push_back(mean(y.data(), {0, 2, 3}));
    });
    (*net)(batch_of(digits(400)));
  }
  EXPECT_TRUE(all_close(means[0], means[1], 1e-4, 1e-5));
}

TEST(CompensateBias, LeavesRemovedOutputsAndLayersWithoutBiasAlone) {
  set_seed(7);
  const ModulePtr dense = share(Sequential(Flatten(), Linear(64, 8, {.bias = false}), Linear(8, 4)));
  const ModulePtr pruned = dense->clone();
  Pruner(pruned, {site_of("1", pruned->parameters()[0], Pattern::element())}).prune(0.5);
  Parameter last = pruned->parameters()[1], bias = pruned->parameters()[2];
  last.set_mask(Mask::from_units(last.shape(), Pattern::channel(0), {true, false, true, true}));
  bias.set_mask(Mask::from_units(bias.shape(), Pattern::channel(0), {true, false, true, true}));
  const auto results = compensate_bias(*pruned, *dense, digits(100));
  ASSERT_EQ(results.size(), 2u);
  expect_contains(results[0].target, "nothing");
  EXPECT_GT(results[0].largest_remaining, 0);
  EXPECT_EQ(bias.data().to_vector<float>()[1], 0);
  EXPECT_EQ(results[1].largest_remaining, 0);
}

// --- regrowth -------------------------------------------------------------------------------------------------------

TEST(Regrow, BringsBackTheLargestGradientsAtZero) {
  const ModulePtr net = share(Sequential(Linear(4, 2, {.bias = false}), Linear(2, 2, {.bias = false})));
  Parameter a = net->parameters()[0], b = net->parameters()[1];
  a.set_data(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  b.set_data(Tensor::from<float>({1, 2, 3, 4}, {2, 2}));
  const std::vector<Site> sites = weight_sites(*net);
  set_existing_units(sites[0], {true, false, false, true, false, true, true, false});
  set_existing_units(sites[1], {false, true, true, false});
  const Saliencies gradients = {{a.id(), Tensor::from<float>({9, -3, 1, 9, 0.5F, 9, 9, 2}, {2, 4})},
                                {b.id(), Tensor::from<float>({2.5F, 9, 9, -0.1F}, {2, 2})}};
  EXPECT_EQ(regrow(sites, gradients, 3), (std::vector<int64_t>{2, 1}));  // -3, 2.5, 2
  EXPECT_EQ(a.data().to_vector<float>(), (std::vector<float>{1, 0, 0, 4, 0, 6, 7, 0}));
  EXPECT_EQ(a.mask().units(), (std::vector<bool>{true, true, false, true, false, true, true, true}));
  EXPECT_EQ(b.mask().units(), (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(regrow(sites[0], gradients, 1, {.flow = GradientFlow::dense}), 1);
  EXPECT_TRUE(a.mask().exists(2));
  EXPECT_EQ(a.gradient_flow(), GradientFlow::dense);
  EXPECT_EQ(regrow(sites, gradients, 100), (std::vector<int64_t>{1, 1}));  // all there are
  EXPECT_EQ(regrow(sites, gradients, 100), (std::vector<int64_t>{0, 0}));
  EXPECT_THROW(regrow(sites, gradients, -1), ArgumentError);
}

TEST(Regrow, SumsOverTheUnitsOfAPattern) {
  const ModulePtr net = share(Sequential(Linear(4, 2, {.bias = false})));
  Parameter w = net->parameters()[0];
  const Site site = site_of("0.weight", w, Pattern::block(1, 2));
  set_existing_units(site, {false, true, false, false});
  const Saliencies gradients = {{w.id(), Tensor::from<float>({3, 0, 0, 0, 2, -2, 1, 1}, {2, 4})}};
  EXPECT_EQ(regrow(site, gradients, 1), 1);  // sums 3, -, 4, 2
  EXPECT_EQ(w.mask().units(), (std::vector<bool>{false, true, true, false}));
}

TEST(DenseGradients, AreThoseOfTheDenseWeightAndTouchNothing) {
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 10)));
  Parameter weight = net->parameters()[0];
  Pruner(net, weight_sites(*net)).prune(0.8);
  const std::vector<Site> sites = weight_sites(*net);
  const Saliencies found =
      dense_gradients(*net, sites, digits(60), {.batch_size = 25, .batches = 10});  // 25, 25 and 10 examples
  EXPECT_EQ(weight.gradient_flow(), GradientFlow::masked);
  EXPECT_FALSE(weight.grad().defined());
  EXPECT_NEAR(weight.mask().sparsity(), 0.8, 0.01);
  // d CE/d W = (softmax - one hot)^T x / N over all examples.
  const Tensor x = batch_of(digits(60)).reshape({60, 64});
  const Tensor p = softmax((*net)(x)).data() - one_hot(digits(60).labels, 10);
  const Tensor expected = matmul(p.transpose(0, 1), x) * (1.0 / 60);
  EXPECT_TRUE(all_close(found.at(weight.id()), expected, 1e-4, 1e-6));
}

// --- from another checkpoint ----------------------------------------------------------------------------------------

TEST(InitFrom, CopiesSlicesAndReportsWhatIsLeft) {
  const TemporaryFolder folder;
  set_seed(8);
  auto wide = share(Sequential());
  wide->add("fc1", Linear(4, 3));
  wide->add("fc2", Linear(3, 2));
  wide->add("old", Linear(2, 2, {.bias = false}));
  save_checkpoint(folder.file("wide"), *wide);
  set_seed(9);
  auto narrow = share(Sequential());
  narrow->add("fc1", Linear(4, 2));
  narrow->add("fc2", Linear(2, 2));
  narrow->add("head", Linear(2, 5));
  const Tensor head = narrow->find<Linear>("head")->weight().data().clone();
  const Parameter identity = narrow->find<Linear>("fc1")->weight();
  const InitReport report = init_from(load_checkpoint(folder.file("wide")), *narrow,
                                      {{"fc1.weight", {{.axis = 0, .from = {2, 0}}}},
                                       {"fc1.bias", {{.axis = 0, .from = {2, -1}}}},
                                       {"fc2.weight", {{.axis = -1, .from = {2, 0}}}}});
  EXPECT_EQ(report.copied, (std::vector<std::string>{"fc2.bias"}));
  EXPECT_EQ(report.sliced, (std::vector<std::string>{"fc1.weight", "fc1.bias", "fc2.weight"}));
  ASSERT_EQ(report.left.size(), 2u);
  expect_contains(report.left[0], "head.weight");
  EXPECT_EQ(report.unused, (std::vector<std::string>{"old.weight"}));
  expect_contains(report.to_string(), "sliced: 3 (fc1.weight, fc1.bias, fc2.weight)");

  const auto from = [&](const char* layer) { return wide->find<Linear>(layer)->weight().data().to_vector<float>(); };
  const std::vector<float> w1 = from("fc1"), w2 = from("fc2");
  EXPECT_EQ(identity.data().to_vector<float>(),
            (std::vector<float>{w1[8], w1[9], w1[10], w1[11], w1[0], w1[1], w1[2], w1[3]}));
  EXPECT_EQ(narrow->find<Linear>("fc2")->weight().data().to_vector<float>(),
            (std::vector<float>{w2[2], w2[0], w2[5], w2[3]}));
  EXPECT_EQ(narrow->find<Linear>("fc1")->bias().data().to_vector<float>()[0],
            wide->find<Linear>("fc1")->bias().data().to_vector<float>()[2]);
  EXPECT_TRUE(identical(head, narrow->find<Linear>("head")->weight().data()));
}

TEST(InitFrom, MasksComeAlongAndTheModulesOwnStay) {
  const TemporaryFolder folder;
  const ModulePtr source = share(Sequential(Linear(4, 2, {.bias = false})));
  source->parameters()[0].set_data(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  source->parameters()[0].set_mask(Mask::from_units({2, 4}, Pattern::channel(1), {true, false, true, true}));
  save_checkpoint(folder.file("masked"), *source);
  const Checkpoint checkpoint = load_checkpoint(folder.file("masked"));

  const ModulePtr same = share(Sequential(Linear(4, 2, {.bias = false})));
  init_from(checkpoint, *same);
  EXPECT_EQ(same->parameters()[0].mask().pattern(), Pattern::channel(1));
  EXPECT_EQ(same->parameters()[0].data().to_vector<float>(), (std::vector<float>{1, 0, 3, 4, 5, 0, 7, 8}));

  const ModulePtr sliced = share(Sequential(Linear(2, 2, {.bias = false})));
  sliced->parameters()[0].set_mask(Mask::from_units({2, 2}, Pattern::element(), {true, true, true, false}));
  init_from(checkpoint, *sliced, {{"0.weight", {{.axis = 1, .from = {1, 3}}}}});
  EXPECT_EQ(sliced->parameters()[0].data().to_vector<float>(), (std::vector<float>{0, 4, 0, 0}));
  EXPECT_EQ(sliced->parameters()[0].mask().units(), (std::vector<bool>{false, true, false, false}));
}

TEST(InitFrom, BatchNormStatisticsAndCountersComeToo) {
  const TemporaryFolder folder;
  const ModulePtr source = small_network(1), target = small_network(2);
  recalibrate_batch_norm(*source, digits(64));
  save_checkpoint(folder.file("a"), *source);
  const InitReport report = init_from(load_checkpoint(folder.file("a")), *target);
  EXPECT_TRUE(report.left.empty() && report.unused.empty() && report.sliced.empty());
  expect_identical(state_of(*source), state_of(*target));
}

TEST(InitFrom, BadMapsChangeNothing) {
  const TemporaryFolder folder;
  const ModulePtr source = share(Sequential(Linear(4, 3))), target = share(Sequential(Linear(4, 2)));
  save_checkpoint(folder.file("a"), *source);
  const Checkpoint checkpoint = load_checkpoint(folder.file("a"));
  const NamedTensors before = copy_of(state_of(*target));
  const auto message = [&](const IndexMaps& maps) {
    return message_of<ArgumentError>([&] { init_from(checkpoint, *target, maps); });
  };
  expect_contains(message({{"0.wieght", {{.axis = 0, .from = {0, 1}}}}}), "did you mean '0.weight'");
  expect_contains(message({{"0.weight", {{.axis = 0, .from = {0, 3}}}}}), "(3,4)");
  expect_contains(message({{"0.weight", {{.axis = 0, .from = {0}}}}}), "(2,4)");
  expect_contains(message({{"0.weight", {{.axis = 2, .from = {0, 1}}}}}), "axis");
  expect_contains(message({{"0.weight", {{.axis = 1, .from = {0, 1, 2, 3}}}}}), "axis 0");
  expect_identical(before, state_of(*target));
}

}  // namespace
}  // namespace espalier
