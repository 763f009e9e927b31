// Lesson 30: the GPU. The same program on another device: tensors are copied there, kernels run in the order of their
// calls while the CPU goes on, and masks travel with the weights. Without a GPU it says what is missing, and ends.
#include <cmath>

#include <espalier/espalier.h>

using namespace espalier;

int lesson(Device device) {
  // 1. A tensor lives on one device. Operations want all their operands on the same one, and say so otherwise.
  const Tensor here = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  const Tensor there = here.to(device);
  fmt::print("{}\n{}\n", describe(here), describe(there));
  try {
    here + there;
  } catch (const ArgumentError& error) {
    fmt::print("{}\n\n", error.what());
  }

  // 2. Random numbers are a function of seed and position, so dropout masks are the same bits everywhere.
  Tensor coins_here = Tensor::empty({1000}), coins_there = Tensor::empty({1000}, DType::f32, device);
  Generator first(7), second(7);
  bernoulli_(coins_here, 0.3, first);
  bernoulli_(coins_there, 0.3, second);
  const bool same_coins = identical(coins_here, coins_there.to(Device::cpu()));

  // 3. A network is trained and pruned by naming the device; module, batches, masks and optimiser state go there.
  const auto train = [](Device on) {
    set_seed(1);
    const ModulePtr net = make_model("mlp:32", {.height = 8});
    const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
    Trainer trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9}),
                    {.epochs = 3,
                     .batch_size = 32,
                     .device = on,
                     .progress = ProgressMode::silent,
                     .callbacks = {std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8})}});
    trainer.fit(load_dataset("digits").train.first(320));
    return net;
  };
  const ModulePtr a = train(Device::cpu()), b = train(device);
  bool same_masks = true;
  double difference = 0;
  for (size_t i = 0; i < a->parameters().size(); ++i) {
    const Parameter p = a->parameters()[i], q = b->parameters()[i];
    difference = std::max(difference, max(abs(p.data() - q.data().to(Device::cpu()))).item());
    if (p.mask().defined()) same_masks = same_masks && p.mask() == q.mask().to(Device::cpu());
  }
  fmt::print("coins the same: {}; masks the same: {}; weights differ by {:.1e} at most\n", same_coins, same_masks,
             difference);

  // 4. Kernels run after the call that started them has returned: stop the clock after synchronize(), not before.
  const MemoryStats memory = memory_stats(device);
  synchronize(device);
  fmt::print("memory on {}: {} bytes in use, {} at most\n", device.name(), memory.current, memory.peak);
  if (!same_coins || !same_masks || !(difference < 1e-3)) {
    fmt::print(stderr, "expected the same coins, the same masks and nearly the same weights on both devices\n");
    return 1;
  }
  return 0;
}

int main() {
  try {
    if (!cuda::is_available()) {
      fmt::print("No GPU: {}\n", cuda::why_unavailable());
      return 0;
    }
    return lesson(Device::cuda());
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
