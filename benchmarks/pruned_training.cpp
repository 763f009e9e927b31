// How many images a second a training takes while it prunes, beside one that doesn't.
//   pruned_training [MODEL=lenet300] [EPOCHS=5] [ROUNDS=5] [IMAGES=60000]
// The whole of it, data loading included: in each round every method trains the network from the same start, next to a
// training without any method. The images are noise: what they show makes no difference to the time.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <numeric>

#include <espalier/espalier.h>

#include "benchmarks/program.h"

using namespace espalier;

namespace {

using MakeCallback = std::function<std::shared_ptr<Callback>(const ModulePtr&)>;

struct Method {
  const char* name;
  MakeCallback callback;
};

std::shared_ptr<Callback> gradual(const ModulePtr& network, const CriterionPtr& criterion) {
  return std::make_shared<GradualPruning>(
      std::make_shared<Pruner>(network, weight_sites(*network), PrunerOptions{.criterion = criterion}),
      GradualOptions{.sparsity = 0.95});
}

std::vector<Method> methods() {
  return {
      {"gradual, magnitude", [](const ModulePtr& n) { return gradual(n, magnitude_criterion()); }},
      {"gradual, random", [](const ModulePtr& n) { return gradual(n, make_criterion("random")); }},
      {"surgery", [](const ModulePtr& n) { return std::make_shared<NetworkSurgery>(weight_sites(*n)); }},
      {"RigL, 90 %", [](const ModulePtr& n) { return std::make_shared<SparseTraining>(weight_sites(*n)); }},
      {"SET, 90 %",
       [](const ModulePtr& n) {
         return std::make_shared<SparseTraining>(weight_sites(*n), SparseTrainingOptions{.growth = Growth::random});
       }},
  };
}

Dataset noise(const Shape& image, int64_t count) {
  Dataset data{.name = "noise", .source = "random numbers", .images = {}, .labels = {}};
  std::vector<uint8_t> pixels(static_cast<size_t>(count * image.numel()));
  std::vector<int64_t> labels(static_cast<size_t>(count));
  Generator generator(0);
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(255 * generator.next_uniform());
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<int64_t>(i % 10);
  data.images = Tensor::from(pixels, {count, image[0], image[1], image[2]});
  data.labels = Tensor::from(labels, {count});
  for (int digit = 0; digit < 10; ++digit) data.class_names.push_back(std::to_string(digit));
  compute_statistics(data);
  return data;
}

/// Seconds of each epoch.
std::vector<double> train(const std::string& model, const Dataset& data, int64_t epochs, const MakeCallback& callback) {
  struct Clock : Callback {
    std::chrono::steady_clock::time_point last;
    std::vector<double> seconds;
    void on_epoch_begin(Trainer&, int64_t) override { last = std::chrono::steady_clock::now(); }
    void on_epoch_end(Trainer&, const EpochRecord&) override {
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - last).count());
    }
  };
  set_seed(0);
  const ModulePtr network = make_model(model);
  const auto clock = std::make_shared<Clock>();
  TrainerOptions options{.epochs = epochs, .progress = ProgressMode::silent};
  if (callback) options.callbacks.push_back(callback(network));
  options.callbacks.push_back(clock);
  Trainer(network, std::make_shared<Sgd>(*network, SgdOptions{.lr = 1e-3, .momentum = 0.9}), options).fit(data);
  return clock->seconds;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int run(int argc, char** argv) {
  const std::string model = argc > 1 ? argv[1] : "lenet300";
  const auto number = [&](int i, int64_t fallback) { return argc > i ? std::atoll(argv[i]) : fallback; };
  const int64_t epochs = number(2, 5), rounds = number(3, 5), images = number(4, 60000);
  check(epochs >= 1 && rounds >= 1 && images >= 128, "pruned_training",
        "expected epochs, rounds of at least 1, 128 images or more, got {}, {}, {}", epochs, rounds, images);
  const Dataset data = noise(model_image(model), images);
  const std::vector<Method> all = methods();
  struct Times {
    std::vector<double> plain, speed;        ///< images/s, of each round
    std::vector<double> ratio, worst_epoch;  ///< of the plain training's speed
  };
  std::vector<Times> times(all.size());
  train(model, data, 1, {});
  for (int64_t round = 0; round < rounds; ++round)
    for (size_t m = 0; m < all.size(); ++m) {
      const bool plain_first = round % 2 == 0;
      std::vector<double> plain, own;
      if (plain_first) plain = train(model, data, epochs, {});
      own = train(model, data, epochs, all[m].callback);
      if (!plain_first) plain = train(model, data, epochs, {});
      double worst = 1e9;
      for (size_t e = 0; e < own.size(); ++e) worst = std::min(worst, plain[e] / own[e]);
      const double plain_sum = std::accumulate(plain.begin(), plain.end(), 0.0);
      const double own_sum = std::accumulate(own.begin(), own.end(), 0.0);
      times[m].plain.push_back(static_cast<double>(images * epochs) / plain_sum);
      times[m].speed.push_back(static_cast<double>(images * epochs) / own_sum);
      times[m].ratio.push_back(plain_sum / own_sum);
      times[m].worst_epoch.push_back(worst);
    }
  fmt::print("{}, {} epochs of {} images, {} rounds, {} threads\n", model, epochs, images, rounds, num_threads());
  fmt::print("{:<22}{:>14}{:>12}{:>10}{:>10}{:>16}\n", "method", "plain, img/s", "pruned", "ratio", "least",
             "slowest epoch");
  for (size_t m = 0; m < all.size(); ++m) {
    const Times& t = times[m];
    fmt::print("{:<22}{:>14.0f}{:>12.0f}{:>10.3f}{:>10.3f}{:>16.3f}\n", all[m].name, median(t.plain), median(t.speed),
               median(t.ratio), *std::min_element(t.ratio.begin(), t.ratio.end()), median(t.worst_epoch));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return espalier::run_program(run, argc, argv); }
