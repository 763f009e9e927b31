// espalier models: the networks that can be built by name.
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "layers/models/zoo.h"
#include "layers/summary.h"
#include "pipeline/data.h"
#include "pruning/structure/graph.h"
#include "tools/commands.h"

namespace espalier::tools {

namespace {

struct ModelShowFlags {
  std::string model, data;
  ModelOptions network = {.classes = 0};
  int64_t batch_size = 1;
  bool groups = false, dot = false;
  std::string explain;
};

/// The channels that go together, instead of the layers: what protect and sparsity_of name.
int show_groups(const ModelShowFlags& options, Module& network, const Tensor& example, Output& output) {
  const DependencyGraph graph = DependencyGraph::trace(network, example);
  if (!options.explain.empty())
    output.result("{}", graph.explain(options.explain));
  else
    output.result("{}", options.dot ? graph.to_dot() : graph.to_table());
  nlohmann::json groups = nlohmann::json::array();
  for (const ChannelGroup& group : graph.groups())
    groups.push_back({{"name", group.name}, {"units", group.units}, {"fixed", group.fixed}});
  output.finish({{"command", "models show"}, {"model", options.model}, {"groups", groups}});
  return kSuccess;
}

int list(Output& output) {
  std::vector<std::vector<std::string>> rows = {{"name", "image", "parameters", "MACs", "what it is"}};
  nlohmann::json models = nlohmann::json::array();
  for (const ModelInfo& info : model_catalogue()) {
    const size_t colon = info.name.find(':');  // sizes have to follow
    const std::string name = colon == std::string::npos ? info.name : info.name.substr(0, colon) + ":64";
    const ModulePtr module = make_model(name);
    const Shape image = model_image(name);
    const ModelSummary summary = summarize(*module, {1, image[0], image[1], image[2]});
    const bool sized = name == info.name;
    rows.push_back({info.name, fmt::format("{}x{}x{}", image[0], image[1], image[2]),
                    sized ? grouped(summary.parameters) : "", sized ? grouped(summary.macs) : "", info.description});
    models.push_back({{"name", info.name},
                      {"description", info.description},
                      {"image", std::vector<int64_t>(image.begin(), image.end())},
                      {"parameters", sized ? nlohmann::json(summary.parameters) : nlohmann::json()},
                      {"macs", sized ? nlohmann::json(summary.macs) : nlohmann::json()}});
  }
  output.result("{}", table(rows, {2, 3}));
  output.result(
      "Parameters and multiply-accumulates (MACs) for 10 classes and these images; any data set's images do.");
  output.finish({{"command", "models list"}, {"models", models}});
  return kSuccess;
}

int show(const ModelShowFlags& options, Output& output) {
  ModelOptions network = options.network;
  if (!options.data.empty()) {
    check(network.in_channels == 0 && network.height == 0 && network.width == 0 && network.classes == 0, "models show",
          "expected --data or sizes, got both");
    network = model_options(options.data, "");
    network.classes = network.heads[0].numel();
  }
  if (network.classes == 0) network.classes = 10;
  check(options.batch_size > 0, "models show", "--batch-size: expected at least 1, got {}", options.batch_size);
  const ModulePtr module = make_model(options.model, network);
  const Shape input = network.input.rank() > 0 ? network.input : model_image(options.model, network);
  Shape batch = input;
  batch.insert(0, options.batch_size);
  if (options.groups || options.dot || !options.explain.empty()) {
    batch[0] = 1;
    return show_groups(options, *module, Tensor::zeros(batch), output);
  }
  const ModelSummary summary = summarize(*module, batch);
  output.result("{} for {} {} in {} classes\n\n{}", options.model, input.rank() == 3 ? "images" : "inputs",
                fmt::join(input.begin(), input.end(), "x"), network.classes, summary.to_table());
  output.result("MACs: multiply-accumulates for {}; FLOPs are twice that.",
                options.batch_size == 1 ? "one image" : fmt::format("{} images", options.batch_size));
  nlohmann::json json = summary.to_json();
  json["command"] = "models show";
  json["model"] = options.model;
  output.finish(json);
  return kSuccess;
}

}  // namespace

void add_models(CLI::App& parent, Commands& commands) {
  CLI::App* group = add_command(parent, "models", "List and show the networks that can be trained",
                                {"espalier models list", "espalier models show resnet20"});
  CLI::App* list_app = add_command(*group, "list", "List the networks", {"espalier models list"});
  add_json_flag(*list_app);
  commands.push_back({list_app, list});

  CLI::App* show_app =
      add_command(*group, "show", "Show a network's layers, shapes, parameters and MACs",
                  {"espalier models show resnet20", "espalier models show lenet5 --data fashion-mnist",
                   "espalier models show mlp:256,128 --channels 3 --size 32 --classes 100",
                   "espalier models show resnet20 --groups", "espalier models show resnet20 --dot > resnet20.dot"});
  auto options = std::make_shared<ModelShowFlags>();
  // 0 stands for a size that is not given.
  const CLI::Validator positive(
      [](std::string& text) {
        const bool fits = text.find_first_not_of("0123456789") == std::string::npos &&
                          text.find_first_not_of('0') != std::string::npos;
        return fits ? "" : fmt::format("expected a whole number of at least 1, got {}", text);
      },
      "");
  show_app->add_option("model", options->model, "Name of the network")->type_name("NAME")->required();
  show_app->add_option("--data,-d", options->data, "Size it for the images of a data set")->type_name("NAME");
  show_app->add_option("--channels", options->network.in_channels, "Channels of the images")
      ->type_name("N")
      ->check(positive);
  show_app->add_option("--size", options->network.height, "Height and width of the images")
      ->type_name("N")
      ->check(positive);
  show_app->add_option("--classes", options->network.classes, "Outputs (default: 10)")->type_name("N")->check(positive);
  show_app->add_option("--batch-size,-b", options->batch_size, "Images that shapes and MACs are for (default: 1)")
      ->type_name("N");
  show_app->add_flag("--groups", options->groups, "Instead: the channels that go together when channels\nare pruned");
  show_app->add_option("--explain", options->explain, "Instead: what one unit of such a group is")->type_name("GROUP");
  show_app->add_flag("--dot", options->dot, std::string("Instead: those groups as a drawing for Graphviz"));
  add_json_flag(*show_app);
  commands.push_back({show_app, [options](Output& output) { return show(*options, output); }});
}

}  // namespace espalier::tools
