// Time and memory of training steps: training_step MODEL [BATCH] [STEPS] [DEVICE] [PRECISION].
// Prints min and median step times, and what the allocator took from the system after the first ten steps: a loop in
// its steady state takes nothing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "espalier.h"

namespace {

using namespace espalier;

int64_t positive(const char* text) {
  const int64_t value = std::atoll(text);
  check(value > 0, "training_step", "expected a positive number, got '{}'", text);
  return value;
}

void run(const std::string& name, int64_t batch, int64_t steps, Device device) {
  constexpr int64_t kWarmUp = 10;
  set_seed(0);
  const ModulePtr model = make_model(name);
  const Shape image = model_image(name);
  model->to(device);
  Sgd optimizer(*model, {.lr = 0.01, .momentum = 0.9});
  const Variable images = randn({batch, image[0], image[1], image[2]}).to(device);
  Tensor labels = Tensor::zeros({batch}, DType::i64);
  for (int64_t i = 0; i < batch; ++i) labels.select(0, i).fill_(static_cast<double>(i % 10));
  labels = labels.to(device);

  std::vector<double> seconds, enqueued;
  MemoryStats warm;
  double first_loss = 0, last_loss = 0;
  for (int64_t step = 0; step < steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    optimizer.zero_grad();
    const Variable loss = cross_entropy((*model)(images), labels);
    loss.backward();
    optimizer.step();
    const auto since_start = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    enqueued.push_back(since_start());
    synchronize(device);
    seconds.push_back(since_start());
    last_loss = loss.item();
    if (step == 0) first_loss = last_loss;
    if (step + 1 == std::min(kWarmUp, steps)) warm = memory_stats(device);
  }
  const MemoryStats end = memory_stats(device);
  std::sort(seconds.begin(), seconds.end());
  std::sort(enqueued.begin(), enqueued.end());
  const double fastest = seconds.front(), median = seconds[seconds.size() / 2];
  std::printf("%s, batch %lld, %lld steps, %s %s, %d threads\n", name.c_str(), static_cast<long long>(batch),
              static_cast<long long>(steps), device.name().c_str(), name_of(matmul_precision()), num_threads());
  std::printf("  step        min %.3f ms, median %.3f ms\n", fastest * 1e3, median * 1e3);
  if (!device.is_cpu())  // where this is most of the step, the GPU waits for the host
    std::printf("  enqueued    median %.3f ms\n", enqueued[enqueued.size() / 2] * 1e3);
  std::printf("  images/s    %.0f (median)\n", static_cast<double>(batch) / median);
  std::printf("  loss        %.4f -> %.4f\n", first_loss, last_loss);
  std::printf("  peak        %.1f MB after %lld steps, %.1f MB at the end\n", static_cast<double>(warm.peak) / 1e6,
              static_cast<long long>(std::min(kWarmUp, steps)), static_cast<double>(end.peak) / 1e6);
  std::printf("  in use      %.1f MB -> %.1f MB\n", static_cast<double>(warm.current) / 1e6,
              static_cast<double>(end.current) / 1e6);
  std::printf("  taken from the system since: %llu blocks\n",
              static_cast<unsigned long long>(end.system_calls - warm.system_calls));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 6) {
    std::fprintf(
        stderr,
        "usage: training_step MODEL [BATCH] [STEPS] [DEVICE] [PRECISION]\nexample: training_step resnet20 128 1000\n");
    return 2;
  }
  try {
    if (argc > 5) set_matmul_precision(parse_matmul_precision(argv[5]));
    run(argv[1], argc > 2 ? positive(argv[2]) : 128, argc > 3 ? positive(argv[3]) : 50,
        Device::parse(argc > 4 ? argv[4] : "cpu"));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
