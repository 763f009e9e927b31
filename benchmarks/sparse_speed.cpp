// Masked networks on the sparse kernels against the same networks unmasked, on dense ones, in turns:
//   sparse_speed [ROUNDS]
// A Linear of 1024 x 1024 (forward, both gradients, an update by SGD with momentum) at 80, 90 and 95 % masked, then
// lenet300 with every 68th weight: a training step, and inference at batches of 128 and 1. Prints least and median
// milliseconds of both and the ratio of the medians: above 1, the masked network is faster.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <vector>

#include "benchmarks/program.h"
#include "espalier.h"

namespace {

using namespace espalier;

struct Times {
  double least, median;
};

Times times_of(std::vector<double>& seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

/// Both in turns, after three rounds that warm up.
void compare(const std::string& name, int64_t rounds, const std::function<void()>& dense,
             const std::function<void()>& sparse) {
  std::vector<double> seconds[2];
  for (int64_t round = -3; round < rounds; ++round) {
    for (int i = 0; i < 2; ++i) {
      const auto start = std::chrono::steady_clock::now();
      (i == 0 ? dense : sparse)();
      const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (round >= 0) seconds[i].push_back(took);
    }
  }
  const Times d = times_of(seconds[0]), s = times_of(seconds[1]);
  fmt::print("{:<44} {:>8.3f} {:>8.3f}   {:>8.3f} {:>8.3f}   {:>6.2f}x\n", name, d.least * 1e3, d.median * 1e3,
             s.least * 1e3, s.median * 1e3, d.median / s.median);
}

/// Masks all weights but the share `density`, at random.
void mask_at_random(Module& network, double density, Generator& generator) {
  for (Parameter& parameter : network.parameters()) {
    if (parameter.shape().rank() < 2) continue;
    std::vector<bool> exists;
    for (int64_t i = 0; i < parameter.numel(); ++i) exists.push_back(generator.next_uniform() < density);
    parameter.set_mask(Mask::from_units(parameter.shape(), Pattern::element(), exists));
  }
}

/// A training step of a network on one batch, whose inputs have a gradient too where `inner` says so.
std::function<void()> training_step(const ModulePtr& network, const Shape& input, bool inner) {
  auto optimizer = std::make_shared<Sgd>(*network, SgdOptions{.lr = 1e-3, .momentum = 0.9});
  const auto x = std::make_shared<Variable>(randn(input), inner);
  return [=] {
    optimizer->zero_grad();
    x->zero_grad();
    mean(square((*network)(*x))).backward();
    optimizer->step();
  };
}

std::function<void()> inference(const ModulePtr& network, const Shape& input) {
  const Variable x = randn(input);
  return [=] {
    const NoGrad guard;
    (*network)(x);
  };
}

int run(int argc, char** argv) {
  const int64_t rounds = argc > 1 ? std::atoll(argv[1]) : 31;
  check(argc <= 2 && rounds > 0, "sparse_speed", "expected a number of rounds above 0");
  set_seed(0);
  Generator generator(1);
  fmt::print("{} threads, {}\n{:<44} {:>8} {:>8}   {:>8} {:>8}\n", num_threads(), name_of(vector_isa()), "ms",
             "unmasked", "median", "masked", "median");
  for (const double sparsity : {0.8, 0.9, 0.95}) {
    const auto dense = std::make_shared<Linear>(1024, 1024), sparse = std::make_shared<Linear>(1024, 1024);
    mask_at_random(*sparse, 1 - sparsity, generator);
    compare(fmt::format("Linear 1024 x 1024, {:.0f} % masked, step of 128", 100 * sparsity), rounds,
            training_step(dense, {128, 1024}, true), training_step(sparse, {128, 1024}, true));
  }
  const ModulePtr dense = make_model("lenet300"), sparse = make_model("lenet300");
  mask_at_random(*sparse, 1.0 / 68, generator);
  const Shape image = model_image("lenet300");
  for (const int64_t batch : {128, 1}) {
    const Shape input = {batch, image[0], image[1], image[2]};
    if (batch > 1)
      compare("lenet300 at 68x, step of 128", rounds, training_step(dense, input, false),
              training_step(sparse, input, false));
    compare(fmt::format("lenet300 at 68x, inference of {}", batch), rounds, inference(dense, input),
            inference(sparse, input));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program(run, argc, argv); }
