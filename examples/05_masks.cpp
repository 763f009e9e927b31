// Lesson 5: masks. Which weights exist is a fact of its own, kept beside the weights, and everything obeys it.
//
// A mask has a pattern (single weights, blocks, 2 of 4, channels, ...) and one bit for each unit of the pattern. Zeros
// are a consequence of a mask, never the other way round: a weight that happens to be 0 exists all the same.
//
//   cmake --build build/release --target 05_masks && build/release/examples/05_masks
#include <cstdio>

#include <espalier/espalier.h>

using namespace espalier;

int lesson() {
  set_seed(0);

  // 1. One weight, many patterns. 8 neurons with 16 inputs each; a unit's score is the sum of |w| over its weights.
  Linear layer(16, 8);
  Parameter weight = layer.weight();
  const Tensor magnitude = unary(UnaryOp::abs, weight.data());
  for (const Pattern& pattern :
       {Pattern::element(), Pattern::block(2, 4), Pattern::n_of_m(2, 4), Pattern::channel(0), Pattern::channel(1)}) {
    const Tensor scores = Mask::sum_over_units(magnitude, pattern);
    const Mask mask = Mask::from_scores(weight.shape(), pattern, scores, scores.numel() / 2);
    fmt::print("{}: {} units, half of them kept\n{}\n", pattern.to_string(), mask.num_units(), mask.draw(32, 8));
  }

  // 2. Algebra. Masks of one shape combine; two patterns together become single weights.
  const Mask rows =
      Mask::from_scores(weight.shape(), Pattern::channel(0), Mask::sum_over_units(magnitude, Pattern::channel(0)), 4);
  const Mask singles = Mask::from_scores(weight.shape(), Pattern::element(), magnitude, 64);
  const Mask both = rows & singles;
  fmt::print("rows & singles: {} of {} weights; a subset of both: {}\n", both.count_elements(), both.num_elements(),
             both.is_subset_of(singles.as_elements()));

  // 3. Training. Momentum and weight decay would move a weight that is merely set to 0. A masked one stays exactly 0.
  const Splits digits = load_dataset("digits");
  auto network = share(Sequential(Flatten(), Linear(64, 64), ReLU(), Linear(64, 10)));
  Parameter first = network->named_parameters().front().second;
  first.set_mask(Mask::from_scores(first.shape(), Pattern::element(), unary(UnaryOp::abs, first.data()), 400));
  auto optimizer = std::make_shared<Adam>(*network, AdamOptions{.lr = 3e-3, .weight_decay = 1e-3});
  Trainer trainer(network, optimizer, {.epochs = 15, .batch_size = 32, .progress = ProgressMode::silent});
  trainer.fit(digits.train);
  const double nonzero = sum((first.data() != 0.0).to(DType::f64)).item();
  fmt::print("after training {} of {} weights of the first layer are not 0; test accuracy {:.2f} %\n", nonzero,
             first.numel(), 100 * trainer.evaluate(digits.test).accuracy());

  // 4. Files. A masked weight is stored as its remaining values and one bit for each unit.
  const std::string path = "masked.safetensors";
  save_checkpoint(path, *network);
  const ModulePtr loaded = load_model(path);
  const Mask& again = loaded->named_parameters().front().second.mask();
  fmt::print("loaded: the same mask: {}\n", again == first.mask());
  std::remove(path.c_str());

  // The claims of this lesson.
  if (nonzero > 400 || !(again == first.mask())) {
    fmt::print(stderr, "expected at most 400 weights and the same mask\n");
    return 1;
  }
  fmt::print("\nNext: 06_unstructured, where a schedule removes weights while the network trains\n");
  return 0;
}

int main() {
  try {
    return lesson();
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
