// Lesson 3: a convolutional network on real images, with the Trainer.
//
// LeNet-5 (LeCun et al. 1998, in the form that Caffe ships) learns MNIST. The Trainer does what lesson 2 did by hand,
// and what a longer training needs: a learning-rate schedule, validation, a progress bar, Ctrl-C, checkpoints.
//
//   build/release/examples/03_lenet_mnist [DATA [IMAGES]]
//
// DATA is mnist, fashion-mnist or digits; "auto" (the default) takes the first of these that is on this machine.
// IMAGES limits the training images, for a quick look.
#include <cstdlib>
#include <filesystem>
#include <string>

#include <espalier/espalier.h>

using namespace espalier;

// MNIST if it is here. `espalier datasets download mnist` gets it; ESPALIER_DATA names a folder that has it.
std::string find_data() {
  for (const char* name : {"mnist", "fashion-mnist"}) {
    if (!locate_dataset(name).empty()) return name;
    fmt::print("{} isn't on this machine (espalier datasets download {} gets it)\n", name, name);
  }
  return "digits";
}

// The network, layer by layer, for images of `side` x `side` pixels. With 28x28:
Sequential lenet5(int64_t side) {
  const int64_t left = ((side - 4) / 2 - 4) / 2;  // a 5x5 window costs 4 pixels, a pooling halves
  return Sequential(                              // (N, 1,28,28)
      Conv2d(1, 20, {.kernel = 5}),               // (N,20,24,24)  20 small patterns, looked for everywhere
      MaxPool2d({.kernel = 2}),                   // (N,20,12,12)  where exactly does not matter
      ReLU(),                                     //
      Conv2d(20, 50, {.kernel = 5}),              // (N,50, 8, 8)  50 patterns of those patterns
      MaxPool2d({.kernel = 2}),                   // (N,50, 4, 4)
      ReLU(),                                     //
      Flatten(),                                  // (N,800)
      Linear(50 * left * left, 500), ReLU(),      // (N,500)
      Linear(500, 10));                           // (N,10)        a score for each class
}

// digits are 8x8, too small for two 5x5 windows: every pixel becomes 2x2.
Dataset enlarged(Dataset data) {
  const int64_t n = data.size(), h = data.height(), w = data.width();
  data.images = data.images.reshape({n, 1, h, 1, w, 1}).expand({n, 1, h, 2, w, 2}).reshape({n, 1, 2 * h, 2 * w});
  return data;
}

int lesson(const std::string& name, int64_t limit) {
  Splits data = load_dataset(name);
  if (name == "digits") data = {enlarged(data.train), enlarged(data.test)};
  if (limit > 0) data.train = data.train.subset(Generator(0).permutation(data.train.size())).first(limit);
  fmt::print("{}: {} training and {} test images\n\n", name, data.train.size(), data.test.size());

  set_seed(0);
  const ModulePtr network = share(lenet5(data.train.height()));
  // A summary shows the shapes that the comments above promise. MACs are multiply-accumulates, the work for one image.
  fmt::print("{}\n", summarize(*network, {1, 1, data.train.height(), data.train.width()}).to_table());

  // Weight decay pulls weights towards 0, against overfitting. Biases are left alone: they cannot overfit much, and
  // need their size.
  const auto optimizer =
      std::make_shared<Sgd>(no_decay_groups(*network, 5e-4), SgdOptions{.lr = 0.05, .momentum = 0.9, .nesterov = true});

  // One-cycle: the learning rate rises to 0.05 and falls to almost 0, step by step (Smith & Topin 2019). A tenth of the
  // training images is set aside for validation: looking at the test set while choosing would be cheating.
  const std::string folder = (std::filesystem::temp_directory_path() / "espalier-lesson-3").string();
  TrainerOptions options;
  options.epochs = name == "digits" ? 20 : 2;
  options.batch_size = 64;
  options.schedule = one_cycle_schedule();
  options.validation_fraction = 0.1;
  options.run_folder = folder;
  options.overwrite = true;
  Trainer trainer(network, optimizer, options);
  const TrainingResult training = trainer.fit(data.train);
  if (training.stop == StopReason::interrupted) return 130;

  const Evaluation result = trainer.evaluate(data.test);
  fmt::print("\ntest accuracy {:.2f} %, loss {:.4f}\n", 100 * result.accuracy(), result.loss);

  // A checkpoint is a safetensors file with the network's description in it: the network comes back without its code.
  const std::string path = folder + "/lenet5.safetensors";
  save_checkpoint(path, *network);
  const ModulePtr loaded = load_model(path);
  const double again = evaluate(*loaded, data.test).accuracy();
  fmt::print("loaded from {}: {:.2f} %\n", path, 100 * again);

  // The claims of this lesson; a tenth of the images teaches less.
  const double expected = name == "mnist"    ? (limit > 0 ? 0.90 : 0.98)
                          : name == "digits" ? 0.90
                                             : (limit > 0 ? 0.70 : 0.85);
  if (result.accuracy() < expected || again != result.accuracy()) {
    fmt::print(stderr, "expected an accuracy of at least {}, the same after loading; got {} and {}\n", expected,
               result.accuracy(), again);
    return 1;
  }
  fmt::print("\nThe same from the command line, with more epochs: espalier train --model lenet5 --data {}\n", name);
  fmt::print("Next: 04_lstm_rows\n");
  return 0;
}

int main(int argc, char** argv) {
  try {
    const std::string data = argc > 1 ? argv[1] : "auto";
    return lesson(data == "auto" ? find_data() : data, argc > 2 ? std::atoll(argv[2]) : 0);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
