// Lesson 5: masks. Which weights exist is a fact of its own, kept beside the weights, and everything obeys it.
//
// A mask has a pattern (single weights, blocks, 2 of 4, channels, ...) and one bit for each unit of the pattern. Zeros
// are a consequence of a mask, never the other way round: a weight that happens to be 0 exists all the same.
//
//   cmake --build build/release --target 05_masks && build/release/examples/05_masks
#include <filesystem>
#include <string>

#include <espalier/espalier.h>

using namespace espalier;

// How many weights aren't exactly 0.
int64_t count_nonzero(const Tensor& weight) { return static_cast<int64_t>(sum((weight != 0.0).to(DType::f64)).item()); }

int lesson() {
  set_seed(0);

  // 1. One weight, many patterns: 8 neurons (rows) with 16 inputs each (columns). A unit's score is the sum of |w| over
  //    its weights; here the better half of the units stays. A dark character is a weight that exists.
  Linear layer(16, 8);
  const Tensor weight = layer.weight().data();
  const Tensor magnitude = abs(weight);
  for (const Pattern& pattern :
       {Pattern::element(), Pattern::block(2, 4), Pattern::n_of_m(2, 4), Pattern::channel(0), Pattern::channel(1)}) {
    const Tensor scores = Mask::sum_over_units(magnitude, pattern);
    const Mask mask = Mask::from_scores(weight.shape(), pattern, scores, scores.numel() / 2);
    fmt::print("{}: {} units, {} kept\n{}\n", pattern.to_string(), mask.num_units(), mask.count(), mask.draw(16, 8));
  }

  // 2. Algebra. Masks of one shape combine with &, |, ^ and ~. Of two patterns the result is a mask of single weights.
  const Mask rows =
      Mask::from_scores(weight.shape(), Pattern::channel(0), Mask::sum_over_units(magnitude, Pattern::channel(0)), 4);
  const Mask singles = Mask::from_scores(weight.shape(), Pattern::element(), magnitude, 64);
  const Mask both = rows & singles;
  fmt::print("rows {}, singles {}, rows & singles {}, rows | singles {} of {} weights\n\n", rows.count_elements(),
             singles.count_elements(), both.count_elements(), (rows | singles).count_elements(), both.num_elements());

  // 3. Training. The same 400 of 4,096 weights are left in the first layer of two networks. In one the others are only
  //    set to 0: the next gradient, momentum or weight decay moves them again. In the other they are masked.
  const Splits digits = load_dataset("digits");
  const ModulePtr masked = share(Sequential(Flatten(), Linear(64, 64), ReLU(), Linear(64, 10)));
  const ModulePtr zeroed = masked->clone();
  Parameter weight_masked = masked->find<Linear>("1")->weight(), weight_zeroed = zeroed->find<Linear>("1")->weight();
  const Mask mask =
      Mask::from_scores(weight_masked.shape(), Pattern::element(), abs(weight_masked.data()), /*keep=*/400);
  weight_masked.set_mask(mask);
  weight_zeroed.set_data(mask.apply(weight_zeroed.data()));
  for (const ModulePtr& network : {zeroed, masked}) {
    const auto optimizer = std::make_shared<Adam>(*network, AdamOptions{.lr = 3e-3, .weight_decay = 1e-3});
    Trainer trainer(network, optimizer, {.epochs = 15, .batch_size = 32, .progress = ProgressMode::silent});
    trainer.fit(digits.train);
    const Tensor now = network->find<Linear>("1")->weight().data();
    fmt::print("{}: after training {:4} of {} weights are not 0; test accuracy {:.2f} %\n",
               network == masked ? "masked       " : "only set to 0", count_nonzero(now), now.numel(),
               100 * trainer.evaluate(digits.test).accuracy());
  }

  // 4. Files. Of a masked weight a checkpoint holds the values that exist and one bit for each unit; the mask comes
  // back
  //    with the network. PNG pictures are for whoever has no terminal.
  const std::string folder = (std::filesystem::temp_directory_path() / "espalier-lesson-5").string();
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/masked.safetensors";
  save_checkpoint(path, *masked);
  save_checkpoint(folder + "/zeroed.safetensors", *zeroed);
  save_mask_png(folder + "/mask.png", mask, 6);
  const Parameter loaded = load_model(path)->find<Linear>("1")->weight();
  fmt::print("\nin the files: {} bytes without a mask, {} with it; picture in {}/mask.png\n",
             std::filesystem::file_size(folder + "/zeroed.safetensors"), std::filesystem::file_size(path), folder);

  // The claims of this lesson. Fewer than 400 may be left: training can make an existing weight 0 by chance.
  const int64_t left = count_nonzero(weight_masked.data()), revived = count_nonzero(weight_zeroed.data());
  const bool same = loaded.mask() == mask && identical(loaded.data(), weight_masked.data());
  if (left > 400 || revived <= 400 || !both.is_subset_of(singles) || !same) {
    fmt::print(stderr,
               "expected at most 400 masked weights, more where they were only set to 0, and the same mask from ");
    fmt::print(stderr, "the file; got {}, {} and {}\n", left, revived, same ? "the same" : "another one");
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
