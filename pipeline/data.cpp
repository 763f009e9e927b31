#include "pipeline/data.h"

#include <algorithm>

#include "datasets/data_kind.h"
#include "training/loss.h"
#include "training/metric.h"

namespace espalier {

Splits load_data(const std::string& name, const std::string& data_dir, const std::string& loss,
                 const std::string& metric) {
  if (!loss.empty()) loss_registry().find("loss", loss);
  Splits data = load_dataset(name, {.data_dir = data_dir});
  for (Dataset* part : {&data.train, &data.test}) {
    part->loss = loss;
    part->metric = metric;
  }
  const Metrics known(data.train);  // throws for a metric that isn't
  return data;
}

ModelOptions model_options(const Dataset& data) {
  ModelOptions options{.input = data.input_shape()};
  for (const Target& target : data.all_targets()) options.heads.push_back(target.outputs());
  return options;
}

ModelOptions model_options(const std::string& name, const std::string& data_dir) {
  if (names_own_data(name)) return model_options(load_dataset(name, {.data_dir = data_dir}).train);
  const DatasetInfo& data = dataset_info(name);
  return {.input = {data.channels, data.height, data.width}, .heads = {{data.num_classes()}}};
}

Bundle example_of(const Dataset& data, Device device) {
  Variables inputs;
  for (const Tensor& input : data.example()) inputs.emplace_back(input.to(device));
  return inputs;
}

int64_t image_side(const Dataset& data) { return data.has_images() ? std::min(data.height(), data.width()) : 0; }

std::string shape_text(const Dataset& data) {
  const Shape input = data.input_shape();
  std::string text = data.has_images() ? fmt::format("images {}", fmt::join(input.begin(), input.end(), "x"))
                                       : fmt::format("inputs {}", input);
  for (const auto& [name, values] : data.inputs) text += fmt::format(" with {}", name);
  if (data.is_classification()) return text + fmt::format(" in {} classes", data.num_classes());
  if (data.reconstructs) text += " to give back";
  for (const Target& target : data.all_targets())
    if (target.is_classes())
      text += fmt::format(", {} classes", target.class_names.size());
    else if (!data.reconstructs)
      text += fmt::format(", targets {}", target.outputs());
  return text;
}

}  // namespace espalier
