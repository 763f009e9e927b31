// What `espalier train` does when a flag is not given: one table, by network and data set.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "datasets/augment.h"

namespace espalier {

/// How a training goes. `lr` is the peak of the schedule.
struct TrainDefaults {
  std::string_view model;  ///< the name, or the family before ':' or a number ("mlp", "resnet"); "" any
  std::string_view data;   ///< the name, or how it begins ("emnist"); "" any
  int64_t epochs = 10, batch_size = 128;
  std::string_view optimizer = "sgd";
  double lr = 0.05, momentum = 0.9;
  bool nesterov = true;
  double weight_decay = 5e-4;
  std::string_view schedule = "onecycle";
  double label_smoothing = 0, clip = 0;
  std::string_view augment = "none";
};

/// The first line that fits counts.
inline constexpr std::array kTrainDefaults = {
    TrainDefaults{.model = "", .data = "digits", .epochs = 30, .batch_size = 32, .lr = 0.05},
    TrainDefaults{.model = "",
                  .data = "reconstruct",
                  .epochs = 30,
                  .batch_size = 32,
                  .optimizer = "adam",
                  .lr = 2e-3,
                  .weight_decay = 0},
    TrainDefaults{.model = "",
                  .data = "csv",
                  .epochs = 30,
                  .batch_size = 32,
                  .optimizer = "adam",
                  .lr = 4e-3,
                  .weight_decay = 0,
                  .clip = 1},
    TrainDefaults{.model = "",
                  .data = "npz",
                  .epochs = 30,
                  .batch_size = 32,
                  .optimizer = "adam",
                  .lr = 4e-3,
                  .weight_decay = 0,
                  .clip = 1},
    TrainDefaults{.model = "",
                  .data = "npy",
                  .epochs = 30,
                  .batch_size = 32,
                  .optimizer = "adam",
                  .lr = 4e-3,
                  .weight_decay = 0,
                  .clip = 1},
    TrainDefaults{.model = "lenet300", .data = "", .epochs = 15, .lr = 0.1},
    TrainDefaults{.model = "mlp", .data = "", .epochs = 15, .lr = 0.1},
    TrainDefaults{.model = "lenet5", .data = "cifar", .epochs = 20, .augment = "crop-flip"},
    TrainDefaults{.model = "lenet5", .data = ""},
    TrainDefaults{.model = "lstm-rows", .data = "", .optimizer = "adam", .lr = 4e-3, .weight_decay = 0, .clip = 1},
    TrainDefaults{.model = "resnet", .data = "cifar", .epochs = 15, .lr = 0.2, .augment = "crop-flip"},
    TrainDefaults{.model = "vgg", .data = "cifar", .epochs = 15, .lr = 0.1, .augment = "crop-flip"},
    TrainDefaults{.model = "", .data = "cifar", .epochs = 15, .lr = 0.1, .augment = "crop-flip"},
    TrainDefaults{.model = "", .data = "", .lr = 0.1},
};

/// Learning rates for an optimiser other than the defaults'.
inline constexpr std::array<std::pair<std::string_view, double>, 4> kLearningRates = {
    {{"sgd", 0.05}, {"adam", 2e-3}, {"adamw", 2e-3}, {"rmsprop", 1e-3}}};

const TrainDefaults& defaults_for(const std::string& model, const std::string& data);
/// Nothing for an optimiser that the table doesn't have.
std::optional<double> default_lr(const std::string& optimizer);

/// "none", or parts joined by '-': crop (4 pixels of zeros around; fewer for small images), shift (at most 2 pixels of
/// 28, as Hinton et al. 2015 jitter MNIST), reflect (the same with
/// mirrored borders), flip, affine (10 degrees, 10 % shift, 10 % scale), cutout (a quarter of the side). `side`: the
/// shorter one of the images. Throws ArgumentError for an unknown part, with the nearest.
std::vector<Augmentation> parse_augment(const std::string& text, int64_t side);

}  // namespace espalier
