#include "training/checkpoint.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/ops.h"
#include "core/random.h"

namespace espalier {

namespace {
constexpr char kOptimizerPrefix[] = "optimizer/";
constexpr char kExtraPrefix[] = "extra/";
constexpr char kMaskSuffix[] = ".mask";
constexpr char kFormat[] = "espalier-checkpoint-1";

/// Positions of the weights that exist, in row-major order.
Tensor remaining_positions(const Mask& mask) {
  const std::vector<bool> exists = mask.expand().to(Device::cpu()).to_vector<bool>();
  std::vector<int64_t> positions;
  for (size_t i = 0; i < exists.size(); ++i)
    if (exists[i]) positions.push_back(static_cast<int64_t>(i));
  const auto count = static_cast<int64_t>(positions.size());
  return Tensor::from(positions, {count});
}

/// Replaces masked parameters by their remaining values and their bits; returns the metadata entry, "" without masks.
std::string pack_masks(const Module& module, NamedTensors& tensors) {
  nlohmann::json described;
  std::map<std::string, Parameter> masked;
  for (const auto& [name, parameter] : module.named_parameters())
    if (parameter.mask().defined()) masked.emplace(name, parameter);
  NamedTensors bits;
  for (auto& [name, tensor] : tensors) {
    const auto found = masked.find(name);
    if (found == masked.end()) continue;
    const Mask& mask = found->second.mask();
    described[name] = {{"shape", std::vector<int64_t>(mask.shape().begin(), mask.shape().end())},
                       {"pattern", mask.pattern().to_string()},
                       {"flow", name_of(found->second.gradient_flow())}};
    tensor = index_select(tensor.to(Device::cpu()).reshape({-1}), 0, remaining_positions(mask));
    bits.emplace_back(name + kMaskSuffix, mask.packed());
  }
  tensors.insert(tensors.end(), bits.begin(), bits.end());
  return masked.empty() ? "" : described.dump();
}

/// The inverse: full tensors and masks. Throws ArgumentError or a JSON error for what does not fit together.
std::vector<SavedMask> unpack_masks(const std::string& text, NamedTensors& tensors) {
  std::vector<SavedMask> masks;
  const auto find = [&](const std::string& name) {
    const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first == name; });
    check(found != tensors.end(), "masks", "tensor '{}' is missing", name);
    return found;
  };
  const nlohmann::json described = nlohmann::json::parse(text);
  for (const auto& [name, entry] : described.items()) {
    const Shape shape(entry.at("shape").get<std::vector<int64_t>>());
    const auto bits = find(name + kMaskSuffix);
    const Mask mask = Mask::from_packed(shape, Pattern::parse(entry.at("pattern").get<std::string>()), bits->second);
    tensors.erase(bits);
    Tensor& values = find(name)->second;
    check(values.rank() == 1 && values.numel() == mask.count_elements(), "masks",
          "'{}' expects {} values, one for each weight of its mask, got shape {}", name, mask.count_elements(),
          values.shape());
    const Tensor full = Tensor::zeros({shape.numel()}, values.dtype());
    values = index_add(full, 0, remaining_positions(mask), values).reshape(shape);
    masks.push_back({name, mask, parse_gradient_flow(entry.at("flow").get<std::string>())});
  }
  return masks;
}

/// Takes a module's masks off while alive, unless dismissed.
class WithoutMasks {
 public:
  explicit WithoutMasks(const Module& module) {
    for (Parameter& parameter : module.parameters()) {
      if (!parameter.mask().defined()) continue;
      before_.push_back({parameter, parameter.mask(), parameter.gradient_flow()});
      parameter.clear_mask();
    }
  }
  ~WithoutMasks() {
    for (auto& [parameter, mask, flow] : before_) parameter.set_mask(mask, flow);
  }
  void dismiss() { before_.clear(); }

 private:
  struct Masked {
    Parameter parameter;
    Mask mask;
    GradientFlow flow;
  };
  std::vector<Masked> before_;
};
}  // namespace

void save_checkpoint(const std::string& path, const Module& module, const Optimizer* optimizer,
                     std::map<std::string, std::string> metadata, const NamedTensors& extra) {
  NamedTensors tensors = state_of(module);
  metadata["format"] = kFormat;
  metadata["model"] = module.config().dump();
  if (optimizer != nullptr) {
    const OptimizerState state = optimizer->state_dict();
    metadata["optimizer"] = nlohmann::json{{"type", state.type}, {"scalars", state.scalars}}.dump();
    for (const auto& [name, tensor] : state.tensors) tensors.emplace_back(kOptimizerPrefix + name, tensor);
  }
  for (const auto& [name, tensor] : extra) tensors.emplace_back(kExtraPrefix + name, tensor);
  if (const std::string masks = pack_masks(module, tensors); !masks.empty()) metadata["masks"] = masks;
  save_safetensors(path, tensors, metadata);
}

Checkpoint load_checkpoint(const std::string& path) {
  SafetensorsFile file = load_safetensors(path);
  Checkpoint result{.path = path,
                    .model_config = {},
                    .model = {},
                    .masks = {},
                    .optimizer = {},
                    .extra = {},
                    .metadata = std::move(file.metadata)};
  for (auto& [name, tensor] : file.tensors) {
    if (name.starts_with(kOptimizerPrefix)) {
      result.optimizer.tensors.emplace_back(name.substr(sizeof(kOptimizerPrefix) - 1), tensor);
    } else if (name.starts_with(kExtraPrefix)) {
      result.extra.emplace_back(name.substr(sizeof(kExtraPrefix) - 1), tensor);
    } else {
      result.model.emplace_back(name, tensor);
    }
  }
  if (const auto config = result.metadata.find("model"); config != result.metadata.end())
    result.model_config = config->second;
  if (const auto text = result.metadata.find("optimizer"); text != result.metadata.end()) {
    try {
      const nlohmann::json json = nlohmann::json::parse(text->second);
      result.optimizer.type = json.at("type");
      result.optimizer.scalars = json.at("scalars");
    } catch (const nlohmann::json::exception& error) {
      fail<FileError>("load_checkpoint", "{}: the metadata entry 'optimizer' is not what a checkpoint holds: {}", path,
                      error.what());
    }
  }
  if (const auto text = result.metadata.find("masks"); text != result.metadata.end()) {
    try {
      result.masks = unpack_masks(text->second, result.model);
    } catch (const std::exception& error) {
      fail<FileError>("load_checkpoint", "{}: the masks are not what a checkpoint holds: {}", path, error.what());
    }
  }
  return result;
}

void restore(const Checkpoint& checkpoint, Module& module, Optimizer* optimizer) {
  std::string problems;
  if (optimizer != nullptr) {
    try {
      if (checkpoint.optimizer.type.empty())
        fail<FileError>("restore", "the file has no optimiser state; it holds a network only");
      optimizer->check_state_dict(checkpoint.optimizer);
    } catch (const Error& error) {
      problems += fmt::format("\n{}", error.what());
    }
  }
  // load_state changes all or nothing; with a misfit of the optimiser it still runs, to list the network's misfits too.
  WithoutMasks unmasked(module);
  NamedTensors before;
  if (!problems.empty())
    for (const auto& [name, tensor] : state_of(module)) before.emplace_back(name, tensor.clone());
  try {
    load_state(module, checkpoint.model);
    if (!before.empty()) load_state(module, before);
  } catch (const Error& error) {
    problems += fmt::format("\n{}", error.what());
  }
  if (!problems.empty()) fail<FileError>("restore", "{} does not fit:{}", checkpoint.path, problems);
  unmasked.dismiss();
  std::map<std::string, Parameter> parameters;
  for (const auto& [name, parameter] : module.named_parameters()) parameters.emplace(name, parameter);
  for (const SavedMask& saved : checkpoint.masks) parameters.at(saved.parameter).set_mask(saved.mask, saved.flow);
  if (optimizer != nullptr) optimizer->load_state_dict(checkpoint.optimizer);
}

ModulePtr load_model(const Checkpoint& checkpoint) {
  if (checkpoint.model_config.empty())
    fail<FileError>("load_model",
                    "{} has no 'model' entry in its metadata, so the network cannot be rebuilt; build it yourself and "
                    "use restore(load_checkpoint(path), module)",
                    checkpoint.path);
  // The fresh parameters are overwritten: whatever they drew is put back.
  const Generator before = default_generator();
  ModulePtr module;
  try {
    module = module_from_config(nlohmann::json::parse(checkpoint.model_config));
  } catch (const std::exception& error) {
    default_generator() = before;
    fail<FileError>("load_model", "{}: the network's configuration cannot be used: {}", checkpoint.path, error.what());
  }
  default_generator() = before;
  restore(checkpoint, *module);
  module->eval();
  return module;
}

ModulePtr load_model(const std::string& path) { return load_model(load_checkpoint(path)); }

}  // namespace espalier
