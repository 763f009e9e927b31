// Lesson 2: a network learns to read digits. Every line of the training loop is in this file.
//
// The data are 1,797 handwritten digits of 8x8 pixels that are part of the library, so nothing is downloaded. The
// network is a multilayer perceptron: 64 pixels -> 64 units -> 32 units -> 10 scores, one for each digit.
//
//   cmake --build build/release --target 02_mlp_digits && build/release/examples/02_mlp_digits
#include <cstdlib>

#include <espalier/espalier.h>

using namespace espalier;

int lesson() {
  // Random numbers (first weights, order of the images) come from a seed: every run gives the same result.
  set_seed(0);

  // 1. Data. Images are bytes, u8 (N,1,8,8); labels are i64 (N). The test set is for the end only: what a network says
  //    about images it was trained on proves nothing.
  const Splits digits = load_dataset("digits");
  fmt::print("{} images to learn from, {} to be tested with\n", digits.train.size(), digits.test.size());

  // The loader makes batches: 32 images in random order, another one in each epoch, as f32 with mean 0 and deviation 1.
  // A thread prepares the next batch while the network works on this one.
  const DataLoader loader(digits.train, {.batch_size = 32, .shuffle = true, .seed = 0});

  // 2. Network. A layer is a value with parameters in it; Sequential runs one after the other.
  //    (32,1,8,8) -> (32,64) -> (32,64) -> (32,32) -> (32,10)
  Sequential network(Flatten(), Linear(64, 64), ReLU(), Linear(64, 32), ReLU(), Linear(32, 10));
  fmt::print("{} parameters\n\n", network.num_parameters());

  // 3. Optimiser. Stochastic gradient descent: each step goes against the gradient of one batch's loss. Momentum keeps
  //    a part of the last step's direction, which smooths the path.
  Sgd optimizer(network, {.lr = 0.05, .momentum = 0.9, .nesterov = true});

  // 4. Training. An epoch is one pass over all images.
  constexpr int kEpochs = 15;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    // A constant step would keep jumping around the minimum, so it shrinks.
    optimizer.set_lr(0.05 * (1.0 - static_cast<double>(epoch) / kEpochs));
    Average mean_loss;
    for (const Batch& batch : loader.batches(epoch)) {
      const Variable scores = network(batch.images);              // forward: (B,10)
      const Variable loss = cross_entropy(scores, batch.labels);  // how surprised it is by the right answers
      optimizer.zero_grad();                                      // forget the gradients of the last batch
      loss.backward();                                            // d loss / d parameter, for every parameter
      optimizer.step();                                           // and a step downhill
      mean_loss.add(loss.item(), batch.size());
    }
    if (epoch % 3 == 2) fmt::print("epoch {:2}  mean loss {:.4f}\n", epoch + 1, mean_loss.value());
  }

  // 5. Test. evaluate() runs the network on images it has never seen and counts.
  const Evaluation result = evaluate(network, digits.test);
  fmt::print("\n{}\n", result.confusion.to_table());
  fmt::print("{} of {} test images right: {:.2f} %\n", result.confusion.correct(), result.examples(),
             100 * result.accuracy());

  // 6. One image. The scores become probabilities by softmax.
  const Dataset one = digits.test.subset({100});
  const Tensor pixels = Transform(one.mean, one.stddev).normalize(one.images);  // (1,1,8,8)
  const NoGrad no_grad;
  const Tensor probabilities = softmax(network(pixels)).data();
  const auto answer = static_cast<int64_t>(argmax(probabilities, 1).item());
  fmt::print("test image 100 is a {}, the network says {} ({:.1f} % sure)\n", one.labels.item(), answer,
             100 * max(probabilities).item());

  // The claim of this lesson.
  constexpr double kExpected = 0.95;
  if (result.accuracy() < kExpected) {
    fmt::print(stderr, "expected an accuracy of at least {}, got {}\n", kExpected, result.accuracy());
    return 1;
  }
  fmt::print("\nNext: 03_lenet_mnist, where a Trainer does steps 3 to 5\n");
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
