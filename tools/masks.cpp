// espalier masks: what is left of each layer, as pictures.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "core/file_errors.h"
#include "pipeline/model_file.h"
#include "pruning/picture.h"
#include "tools/commands.h"

namespace espalier::tools {

namespace {

struct MasksFlags {
  std::string model, png;
  int width = 64, height = 16;
};

int run(const MasksFlags& options, Output& output) {
  check(options.width > 0 && options.height > 0 && options.width <= 1000 && options.height <= 1000, "masks",
        "expected --width and --height from 1 to 1000, got {} and {}", options.width, options.height);
  const ModelFile file = open_model(find_model(options.model));
  if (!options.png.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options.png, error);
    if (error) fail<WriteError>("masks", "cannot write to {}: {}", options.png, error.message());
  }
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, parameter] : file.module->named_parameters()) {
    const Mask& mask = parameter.mask();
    if (!mask.defined()) continue;
    output.result("{} {}, {}: {} of {} weights, {:.2f} % masked", name, mask.shape().to_string(),
                  mask.pattern().to_string(), grouped(mask.count_elements()), grouped(mask.num_elements()),
                  100 * mask.sparsity());
    output.result("{}", mask.draw(options.width, options.height));
    nlohmann::json entry = {{"name", name},
                            {"pattern", mask.pattern().to_string()},
                            {"weights", mask.num_elements()},
                            {"remaining", mask.count_elements()}};
    if (!options.png.empty()) {
      entry["png"] = fmt::format("{}/{}.png", options.png, name);
      save_mask_png(entry["png"], mask);
    }
    list.push_back(std::move(entry));
  }
  if (list.empty()) output.result("{} has no masks: every weight exists", file.path);
  output.finish({{"command", "masks"}, {"model", file.path}, {"masks", list}});
  return kSuccess;
}

}  // namespace

void add_masks(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "masks", "Draw what is left of each layer",
                  {"espalier masks runs/lenet5-mnist/prune", "espalier masks runs/lenet5-mnist/prune --png pictures"});
  auto options = std::make_shared<MasksFlags>();
  add_model(*app, options->model);
  app->add_option("--png", options->png, "Also write a picture of each mask to this folder")->type_name("DIR");
  app->add_option("--width", options->width, "Columns of a drawing (default: 64)")->type_name("N");
  app->add_option("--height", options->height, "Lines of a drawing (default: 16)")->type_name("N");
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
