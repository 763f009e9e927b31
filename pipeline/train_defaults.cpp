#include "pipeline/train_defaults.h"

#include <algorithm>

#include "core/error.h"

namespace espalier {

namespace {

/// "resnet" fits "resnet20", "mlp" fits "mlp:64,32", "lenet5" fits itself only, "emnist" fits "emnist-letters".
bool fits(std::string_view pattern, std::string_view name) {
  if (!name.starts_with(pattern)) return false;
  const std::string_view rest = name.substr(pattern.size());
  const bool numbered = rest.find_first_not_of("0123456789") == std::string_view::npos &&
                        (pattern.empty() || pattern.back() < '0' || pattern.back() > '9');
  return pattern.empty() || rest.empty() || rest[0] == ':' || rest[0] == '-' || numbered;
}

}  // namespace

const TrainDefaults& defaults_for(const std::string& model, const std::string& data) {
  return *std::find_if(kTrainDefaults.begin(), kTrainDefaults.end(),
                       [&](const TrainDefaults& line) { return fits(line.model, model) && fits(line.data, data); });
}

std::optional<double> default_lr(const std::string& optimizer) {
  for (const auto& [name, lr] : kLearningRates)
    if (name == optimizer) return lr;
  return std::nullopt;
}

std::vector<Augmentation> parse_augment(const std::string& text, int64_t side) {
  static const std::vector<std::string> kParts = {"none", "crop", "shift", "reflect", "flip", "affine", "cutout"};
  const int64_t padding = std::min<int64_t>(4, std::max<int64_t>(1, side / 7));
  std::vector<Augmentation> result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('-', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    if (part == "crop")
      result.push_back(RandomCrop{.padding = padding});
    else if (part == "shift")
      result.push_back(RandomCrop{.padding = std::max<int64_t>(1, side / 14)});
    else if (part == "reflect")
      result.push_back(RandomCrop{.padding = padding, .reflect = true});
    else if (part == "flip")
      result.push_back(HorizontalFlip{});
    else if (part == "affine")
      result.push_back(RandomAffine{.degrees = 10, .translate = 0.1, .min_scale = 0.9, .max_scale = 1.1});
    else if (part == "cutout")
      result.push_back(Cutout{.size = std::max<int64_t>(1, side / 4)});
    else
      check(part == "none" && text == "none", "train",
            "augment: expected none, or parts of {} joined by '-' such as crop-flip, got '{}'{}",
            fmt::join(kParts.begin() + 1, kParts.end(), ", "), text, did_you_mean(part, kParts));
  }
  return result;
}

}  // namespace espalier
