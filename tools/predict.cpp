// espalier predict: what a trained network sees in a PNG image.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "core/ops.h"
#include "datasets/augment.h"
#include "datasets/image.h"
#include "pipeline/model_file.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace espalier::tools {

namespace {

struct PredictFlags {
  std::vector<std::string> images;
  std::string model, invert = "auto", style = "auto";
  int64_t top = 5;
  bool show = false;
};

constexpr double kBright = 0.5;  ///< a border above it counts as a bright background
constexpr double kDark = 0.4;  ///< grey data below it on average are bright strokes on black (MNIST 0.13, Fashion 0.29)

bool wants_inversion(const std::string& invert, const Tensor& image, const DataDescription& data) {
  if (invert == "yes") return true;
  if (invert == "no") return false;
  return data.input[0] == 1 && data.mean[0] < kDark && border_brightness(image) > kBright;
}

/// The image as the network was trained to see it, u8 (C,H,W).
Tensor prepare(const std::string& path, const DataDescription& data, const std::string& invert, bool* was_inverted) {
  Tensor image = to_channels(read_png(path), data.input[0]);
  *was_inverted = wants_inversion(invert, image, data);
  if (*was_inverted) image = inverted(image);
  return fitted(image, data.input[1], data.input[2]);
}

std::string class_name(const DataDescription& data, int64_t index) {
  return index < static_cast<int64_t>(data.classes.size()) ? printable(data.classes[static_cast<size_t>(index)])
                                                           : std::to_string(index);
}

nlohmann::json predict(const PredictFlags& options, const Output& output, const ModelFile& file,
                       const std::string& path) {
  const DataDescription& data = *file.data;
  bool was_inverted = false;
  const Tensor image = prepare(path, data, options.invert, &was_inverted);
  const Tensor batch = Transform(data.mean, data.stddev).normalize(image.unsqueeze(0));  // (1,C,H,W)
  const NoGrad no_grad;
  const Variable logits = (*file.module)(batch);
  check(logits.rank() == 2 && logits.size(0) == 1, "predict", "{}: expected outputs (1,classes), got {}", file.path,
        logits.shape());
  if (!std::isfinite(max(abs(logits.data())).item()))
    fail<NumericError>("predict",
                       "{}: expected outputs that are numbers, got NaN or infinite ones for {}; train the "
                       "network again, with a lower learning rate",
                       file.path, path);
  const Sorted best = topk(softmax(logits).data(), std::min<int64_t>(options.top, logits.size(1)));
  const std::vector<double> probabilities = best.values.to_vector<double>();
  const std::vector<int64_t> classes = best.index.to_vector<int64_t>();

  const Palette palette = parse_palette(options.style, output.stream());
  output.result("{}{}", printable(path), was_inverted ? "  (inverted: dark on bright)" : "");
  if (options.show)
    for (const std::string& line : draw(image, palette)) output.picture("  " + line);
  size_t width = 0;
  for (int64_t c : classes) width = std::max(width, width_of(class_name(data, c)));
  nlohmann::json predictions = nlohmann::json::array();
  for (size_t i = 0; i < classes.size(); ++i) {
    const std::string name = class_name(data, classes[i]);
    output.picture(fmt::format("  {}{}  {:6.2f} % {}", name, std::string(width - width_of(name), ' '),
                               100 * probabilities[i], bar(probabilities[i], 40, palette)));
    predictions.push_back({{"class", name}, {"index", classes[i]}, {"probability", probabilities[i]}});
  }
  return {{"image", path}, {"inverted", was_inverted}, {"predictions", predictions}};
}

int run(const PredictFlags& options, Output& output) {
  check(options.invert == "auto" || options.invert == "yes" || options.invert == "no", "predict",
        "--invert: expected auto, yes or no, got '{}'{}", options.invert,
        did_you_mean(options.invert, {"auto", "yes", "no"}));
  check(options.top > 0, "predict", "--top: expected at least 1, got {}", options.top);
  const ModelFile file = open_model(find_model(options.model));
  if (!file.data) {
    fail<FileError>("predict",
                    "{} has no 'data' entry in its metadata, so how to feed it an image is unknown; use a file that "
                    "espalier train wrote",
                    file.path);
  }
  if (!file.data->is_image() || file.data->classes.empty() || file.data->mean.empty())
    fail<ArgumentError>("predict", "{}: expected a network that tells the class of an image, found one for {}",
                        file.path, printable(file.data->name));
  output.result("{}, trained on {}", file.path, printable(file.data->name));
  nlohmann::json images = nlohmann::json::array();
  for (const std::string& path : options.images) images.push_back(predict(options, output, file, path));
  output.finish({{"command", "predict"}, {"model", file.path}, {"images", images}});
  return kSuccess;
}

}  // namespace

void add_predict(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "predict", "Say what is in a PNG image",
                  {"espalier predict shoe.png                                  with the newest model below runs/",
                   "espalier predict digit.png --model runs/lenet5-mnist --show",
                   "espalier predict *.png --model runs/demo/model.safetensors --top 1 --json",
                   "espalier datasets show mnist --index 7 --save digit.png    makes a PNG to try"});
  app->footer(
      "The image is turned grey or RGB and resized (bilinear, aspect ratio kept) as the network needs it. Networks\n"
      "trained on bright strokes on black, such as MNIST's, get an image with a bright border inverted, so that "
      "pencil\n"
      "on paper works; --invert no leaves it as it is.\n\n" +
      app->get_footer());
  auto options = std::make_shared<PredictFlags>();
  app->add_option("image", options->images, "PNG files")->type_name("IMAGE")->required();
  app->add_option("--model,-m", options->model, "Checkpoint, or folder of a run (default: the newest\nbelow runs/)")
      ->type_name("MODEL");
  app->add_option("--top", options->top, "Classes to list (default: 5)")->type_name("N");
  app->add_option("--invert", options->invert, "auto, yes or no (default: auto)")->type_name("WHEN");
  app->add_flag("--show", options->show, std::string("Draw the image as the network sees it"));
  app->add_option("--style", options->style, "auto, ascii or colour (default: auto)")->type_name("NAME");
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
