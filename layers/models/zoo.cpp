#include "layers/models/zoo.h"

#include <charconv>
#include <limits>

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

/// What the registry says of a name. Throws on unknown names, and on sizes where there are none to give.
ModelInfo info_of(const std::string& name, const ParsedName& parsed) {
  if (!model_registry().contains(parsed.family))
    fail("make_model", "unknown model '{}'{}; known: {}", name, did_you_mean(parsed.family, model_names()),
         fmt::join(model_names(), ", "));
  ModelInfo info = model_registry().find("make_model", parsed.family)();
  const bool needs_sizes = info.name.find(':') != std::string::npos;
  check(!needs_sizes || !parsed.numbers.empty(), "make_model", "'{}' needs its sizes: {}", name, info.description);
  check(parsed.numbers.size() <= info.most_sizes, "make_model", "{} takes {}, got '{}'", parsed.family,
        info.most_sizes == 0   ? "no sizes"
        : info.most_sizes == 1 ? "one size"
                               : fmt::format("{} sizes", info.most_sizes),
        name);
  return info;
}

Shape image_for(const ModelInfo& info, const ModelOptions& o) {
  check(o.in_channels >= 0 && o.height >= 0 && o.width >= 0, "make_model",
        "expected positive channels and image sizes, got {}x{}x{}", o.in_channels, o.height, o.width);
  const int64_t height = o.height ? o.height : o.width, width = o.width ? o.width : o.height;
  return {o.in_channels ? o.in_channels : info.image[0], height ? height : info.image[1],
          width ? width : info.image[2]};
}
}  // namespace

Registry<ModelInfo()>& model_registry() {
  using Sizes = const std::vector<int64_t>&;
  const auto resnet = [](int64_t depth) {
    return [depth] {
      return ModelInfo{
          fmt::format("resnet{}", depth),
          fmt::format("ResNet-{} for CIFAR, parameter-free shortcuts (He et al. 2016)", depth), kColour32,
          [depth](const Shape& image, const Shape& head, Sizes) { return build_resnet(image, head.numel(), depth); }};
    };
  };
  const auto vgg = [](int64_t depth) {
    return [depth] {
      return ModelInfo{
          fmt::format("vgg{}", depth),
          fmt::format("VGG-{} with BatchNorm and a CIFAR head (Simonyan & Zisserman 2015)", depth), kColour32,
          [depth](const Shape& image, const Shape& head, Sizes) { return build_vgg(image, head.numel(), depth); }};
    };
  };
  static Registry<ModelInfo()> models(
      "model",
      {{"lenet300",
        [] {
          return ModelInfo{"lenet300",
                           "LeNet-300-100: two hidden layers (LeCun et al. 1998)",
                           kGrey28,
                           [](const Shape& image, const Shape& head, Sizes) {
                             return build_mlp(image, head.numel(), {300, 100}); },
                           0,
                           true};
        }},
       {"lenet5",
        [] {
          return ModelInfo{
              "lenet5", "LeNet-5 as in Caffe: conv 20, conv 50, 500 units (LeCun et al. 1998)", kGrey28,
              [](const Shape& image, const Shape& head, Sizes) { return build_lenet5(image, head.numel()); }};
        }},
       {"resnet20", resnet(20)},
       {"resnet32", resnet(32)},
       {"resnet56", resnet(56)},
       {"vgg16", vgg(16)},
       {"vgg19", vgg(19)},
       {"lstm-rows",
        [] {
          return ModelInfo{"lstm-rows",
                           "LSTM over the rows of an image or a sequence, 128 units; lstm-rows:64 for another number",
                           kGrey28,
                           [](const Shape& image, const Shape& head, Sizes sizes) {
                             const bool every_step = head.rank() == 2;
                             return build_lstm_rows(image, every_step ? head[1] : head.numel(),
                                                    sizes.empty() ? 128 : sizes[0], every_step);
                           },
                           1,
                           false,
                           true};
        }},
       {"mlp", [] {
          return ModelInfo{
              "mlp:SIZES",
              "multilayer perceptron with these hidden sizes, such as mlp:64,32",
              kGrey28,
              [](const Shape& image, const Shape& head, Sizes sizes) { return build_mlp(image, head.numel(), sizes); },
              std::numeric_limits<size_t>::max(),
              true};
        }}});
  return models;
}

std::vector<ModelInfo> model_catalogue() {
  std::vector<ModelInfo> infos;
  for (const std::string& name : model_registry().names())
    infos.push_back(model_registry().find("model_catalogue", name)());
  return infos;
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
  const ModelInfo info = info_of(name, parsed);
  const Shape image = options.input.rank() > 0 ? options.input : image_for(info, options);
  if (options.heads.size() > 1) return with_heads(name, options);
  const Shape head = options.heads.empty() ? Shape{options.classes} : options.heads[0];
  check(head.numel() > 0, "make_model", "expected a positive number of classes, got {}", head.numel());
  check(image.rank() == 3 || info.takes_any || (info.takes_sequences && image.rank() == 2), "make_model",
        "{} takes images (C,H,W), got inputs {}; use mlp:64 or, for sequences (T,F), lstm-rows:64", name, image);
  return info.build(image, head, parsed.numbers);
}

}  // namespace espalier
