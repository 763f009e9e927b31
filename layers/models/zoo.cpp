#include "layers/models/zoo.h"

#include <charconv>

#include "layers/models/builders.h"
#include "layers/models/heads.h"

namespace espalier {

namespace {
const Shape kGrey28{1, 28, 28}, kColour32{3, 32, 32};

/// "mlp:64,32" -> "mlp" and {64, 32}.
struct ParsedName {
  std::string family;
  std::vector<int64_t> numbers;
};

ParsedName parse(const std::string& name) {
  const size_t colon = name.find(':');
  ParsedName result{name.substr(0, colon), {}};
  if (colon == std::string::npos) return result;
  const char* at = name.data() + colon + 1;
  const char* const end = name.data() + name.size();
  while (true) {
    int64_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    check(error == std::errc() && number > 0 && number <= 1'000'000 && (next == end || *next == ','), "make_model",
          "expected sizes from 1 to 1000000 separated by commas after '{}:', got '{}'", result.family,
          name.substr(colon + 1));
    result.numbers.push_back(number);
    if (next == end) return result;
    at = next + 1;
  }
}

/// The catalogue's line for a name. Throws on unknown names, and on numbers where there are none to give.
const ModelInfo& info_of(const std::string& name, const ParsedName& parsed) {
  for (const ModelInfo& info : model_catalogue()) {
    if (info.name.substr(0, info.name.find(':')) != parsed.family) continue;
    if (parsed.family == "mlp")
      check(!parsed.numbers.empty(), "make_model", "'{}' needs its hidden sizes, such as 'mlp:64,32'", name);
    else if (parsed.family == "lstm-rows")
      check(parsed.numbers.size() <= 1, "make_model", "lstm-rows takes one size, such as 'lstm-rows:128', got '{}'",
            name);
    else
      check(name == info.name, "make_model", "{} takes no sizes, got '{}'", parsed.family, name);
    return info;
  }
  fail("make_model", "unknown model '{}'{}; known: {}", name, did_you_mean(parsed.family, model_names()),
       fmt::join(model_names(), ", "));
}

Shape image_for(const ModelInfo& info, const ModelOptions& o) {
  check(o.in_channels >= 0 && o.height >= 0 && o.width >= 0, "make_model",
        "expected positive channels and image sizes, got {}x{}x{}", o.in_channels, o.height, o.width);
  const int64_t height = o.height ? o.height : o.width, width = o.width ? o.width : o.height;
  return {o.in_channels ? o.in_channels : info.image[0], height ? height : info.image[1],
          width ? width : info.image[2]};
}
}  // namespace

const std::vector<ModelInfo>& model_catalogue() {
  static const std::vector<ModelInfo> kModels = {
      {"lenet300", "LeNet-300-100: two hidden layers (LeCun et al. 1998)", kGrey28},
      {"lenet5", "LeNet-5 as in Caffe: conv 20, conv 50, 500 units (LeCun et al. 1998)", kGrey28},
      {"resnet20", "ResNet-20 for CIFAR, parameter-free shortcuts (He et al. 2016)", kColour32},
      {"resnet32", "ResNet-32 for CIFAR (He et al. 2016)", kColour32},
      {"resnet56", "ResNet-56 for CIFAR (He et al. 2016)", kColour32},
      {"vgg16", "VGG-16 with BatchNorm and a CIFAR head (Simonyan & Zisserman 2015)", kColour32},
      {"vgg19", "VGG-19 with BatchNorm and a CIFAR head (Simonyan & Zisserman 2015)", kColour32},
      {"lstm-rows", "LSTM over the rows of an image or a sequence, 128 units; lstm-rows:64 for another number",
       kGrey28},
      {"mlp:SIZES", "multilayer perceptron with these hidden sizes, such as mlp:64,32", kGrey28},
  };
  return kModels;
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const ModelInfo& info : model_catalogue()) names.push_back(info.name);
  return names;
}

Shape model_image(const std::string& name, const ModelOptions& options) {
  return image_for(info_of(name, parse(name)), options);
}

namespace {
/// One body with the outputs of all heads.
ModulePtr with_heads(const std::string& name, const ModelOptions& options) {
  ModelOptions body = options;
  std::vector<int64_t> sizes;
  int64_t all = 0;
  for (const Shape& head : options.heads) {
    sizes.push_back(head.numel());
    all += head.numel();
  }
  body.heads = {Shape{all}};
  return std::make_shared<Heads>(make_model(name, body), std::move(sizes));
}
}  // namespace

ModulePtr make_model(const std::string& name, const ModelOptions& options) {
  const ParsedName parsed = parse(name);
  const ModelInfo& info = info_of(name, parsed);
  const Shape image = options.input.rank() > 0 ? options.input : image_for(info, options);
  if (options.heads.size() > 1) return with_heads(name, options);
  const int64_t classes = options.heads.empty() ? options.classes : options.heads[0].numel();
  check(classes > 0, "make_model", "expected a positive number of classes, got {}", classes);
  const bool is_perceptron = parsed.family == "mlp" || name == "lenet300", is_lstm = parsed.family == "lstm-rows";
  check(image.rank() == 3 || is_perceptron || (is_lstm && image.rank() == 2), "make_model",
        "{} takes images (C,H,W), got inputs {}; use mlp:64 or, for sequences (T,F), lstm-rows:64", name, image);
  if (name == "lenet300") return build_mlp(image, classes, {300, 100});
  if (name == "lenet5") return build_lenet5(image, classes);
  if (parsed.family.starts_with("resnet")) return build_resnet(image, classes, std::stoll(name.substr(6)));
  if (parsed.family.starts_with("vgg")) return build_vgg(image, classes, std::stoll(name.substr(3)));
  if (is_lstm) {
    const bool every_step = !options.heads.empty() && options.heads[0].rank() == 2;
    return build_lstm_rows(image, every_step ? options.heads[0][1] : classes,
                           parsed.numbers.empty() ? 128 : parsed.numbers[0], every_step);
  }
  return build_mlp(image, classes, parsed.numbers);
}

}  // namespace espalier
