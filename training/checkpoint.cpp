#include "training/checkpoint.h"

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "core/ops.h"
#include "core/random.h"
#include "layers/size_budget.h"
#include "layers/transforms.h"

namespace espalier {

namespace {
constexpr char kOptimizerPrefix[] = "optimizer/";
constexpr char kExtraPrefix[] = "extra/";
constexpr char kTransformPrefix[] = "transforms/";
constexpr char kMaskSuffix[] = ".mask";
constexpr char kFormat[] = "espalier-checkpoint-1";

/// A file may stand for a network of that many bytes, whatever it holds, and for one that is so many times as large as
/// what it holds: nothing but a bit is left of a channel that is masked. More would be memory on a file's word.
constexpr double kSmallNetwork = 64 << 20, kMostCompression = 256;
double most_network_bytes(uint64_t stored) { return kSmallNetwork + kMostCompression * static_cast<double>(stored); }

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
std::vector<SavedMask> unpack_masks(const nlohmann::json& described, uint64_t stored, NamedTensors& tensors) {
  std::vector<SavedMask> masks;
  double claimed = 0;
  const auto find = [&](const std::string& name) {
    const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first == name; });
    check(found != tensors.end(), "masks", "tensor '{}' is missing", name);
    return found;
  };
  for (const auto& [name, entry] : described.items()) {
    const Shape shape(whole_numbers(entry.at("shape")));
    double bytes = sizeof(float);
    for (const int64_t size : shape) bytes *= static_cast<double>(size);
    claimed += bytes;
    check(claimed <= most_network_bytes(stored), "masks",
          "'{}' of shape {} would take {:.0f} bytes, {:.0f} with those before it; expected at most {:.0f} of a file "
          "with {} bytes of tensors",
          name, shape, bytes, claimed, most_network_bytes(stored), stored);
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

std::string describe_frozen(const Module& module) {
  nlohmann::json names = nlohmann::json::array();
  for (const auto& [name, parameter] : module.named_parameters())
    if (!parameter.requires_grad()) names.push_back(name);
  return names.dump();
}

std::string describe(const std::vector<Tie>& ties) {
  nlohmann::json names = nlohmann::json::object();
  for (const Tie& tie : ties) names[tie.name] = tie.first;
  return names.dump();
}

std::vector<Tie> parse_ties(const nlohmann::json& described) {
  std::vector<Tie> ties;
  for (const auto& [name, first] : described.get<std::map<std::string, std::string>>()) ties.push_back({name, first});
  return ties;
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
  for (const char* stale : {"optimizer", "masks", "ties", "transforms"}) metadata.erase(stale);
  metadata["format"] = kFormat;
  metadata["model"] = module.config().dump();
  metadata["frozen"] = describe_frozen(module);
  if (const std::vector<Tie> ties = module.ties(); !ties.empty()) metadata["ties"] = describe(ties);
  if (const nlohmann::json transforms = transforms_config(module); !transforms.is_null()) {
    metadata["transforms"] = transforms.dump();
    for (const auto& [name, tensor] : state_of(*parameter_transforms(module)))
      tensors.emplace_back(kTransformPrefix + name, tensor);
  }
  if (optimizer != nullptr) {
    const OptimizerState state = optimizer->state_dict();
    metadata["optimizer"] = nlohmann::json{{"type", state.type}, {"scalars", state.scalars}}.dump();
    for (const auto& [name, tensor] : state.tensors) tensors.emplace_back(kOptimizerPrefix + name, tensor);
  }
  for (const auto& [name, tensor] : extra) tensors.emplace_back(kExtraPrefix + name, tensor);
  if (const std::string masks = pack_masks(module, tensors); !masks.empty()) metadata["masks"] = masks;
  save_safetensors(path, tensors, metadata);
}

namespace {
/// Gives a metadata entry to `use` as JSON, if the file has it. Throws FileError for what it can't use.
template <class Use>
void read_entry(const Checkpoint& checkpoint, const char* name, Use use) {
  const auto text = checkpoint.metadata.find(name);
  if (text == checkpoint.metadata.end()) return;
  try {
    use(parse_json(text->second));
  } catch (const std::exception& error) {
    fail<FileError>("load_checkpoint", "{}: the metadata entry '{}' is not what a checkpoint holds: {}",
                    checkpoint.path, name, error.what());
  }
}
}  // namespace

std::optional<std::string> find_nonfinite(const Module& module) {
  for (const auto& [name, parameter] : module.named_parameters())
    if (parameter.numel() > 0 && !std::isfinite(max(abs(parameter.data())).item())) return name;
  return std::nullopt;
}

Checkpoint load_checkpoint(const std::string& path) {
  SafetensorsFile file = load_safetensors(path);
  Checkpoint result{.path = path,
                    .model_config = {},
                    .model = {},
                    .masks = {},
                    .ties = {},
                    .frozen = {},
                    .optimizer = {},
                    .extra = {},
                    .metadata = std::move(file.metadata),
                    .stored_bytes = 0};
  for (auto& [name, tensor] : file.tensors) {
    result.stored_bytes += tensor.bytes();
    if (name.starts_with(kOptimizerPrefix)) {
      result.optimizer.tensors.emplace_back(name.substr(sizeof(kOptimizerPrefix) - 1), tensor);
    } else if (name.starts_with(kExtraPrefix)) {
      result.extra.emplace_back(name.substr(sizeof(kExtraPrefix) - 1), tensor);
    } else if (name.starts_with(kTransformPrefix)) {
      result.transform_state.emplace_back(name.substr(sizeof(kTransformPrefix) - 1), tensor);
    } else {
      result.model.emplace_back(name, tensor);
    }
  }
  if (const auto config = result.metadata.find("model"); config != result.metadata.end())
    result.model_config = config->second;
  if (const auto transforms = result.metadata.find("transforms"); transforms != result.metadata.end())
    result.transforms = transforms->second;
  read_entry(result, "optimizer", [&](const nlohmann::json& entry) {
    result.optimizer.type = entry.at("type");
    result.optimizer.scalars = entry.at("scalars");
  });
  read_entry(result, "masks", [&](const nlohmann::json& entry) {
    result.masks = unpack_masks(entry, result.stored_bytes, result.model);
  });
  read_entry(result, "ties", [&](const nlohmann::json& entry) { result.ties = parse_ties(entry); });
  read_entry(result, "frozen", [&](const nlohmann::json& entry) { result.frozen.emplace(entry); });
  return result;
}

std::string Checkpoint::stored_name(const std::string& name) const {
  std::string stored = name;
  for (const Tie& tie : ties)  // of the module that holds the tensor
    if (name.starts_with(tie.name + ".")) stored = tie.first + name.substr(tie.name.size());
  for (const Tie& tie : ties)
    if (stored == tie.name) return tie.first;
  return stored;
}

namespace {
/// What a network may take whose tensors, and their further uses, are the checkpoint's.
uint64_t network_bytes(const Checkpoint& checkpoint) {
  const auto bytes_under = [&](const std::string& name) {
    double bytes = 0;
    for (const auto& [full, tensor] : checkpoint.model)
      if (name.empty() || full == name || full.starts_with(name + "."))
        bytes += static_cast<double>(SizeBudget::bytes_of(tensor.numel()));
    return bytes;
  };
  double bytes = bytes_under("");
  for (const Tie& tie : checkpoint.ties) bytes += bytes_under(tie.first);
  for (const auto& [name, tensor] : checkpoint.transform_state)
    bytes += static_cast<double>(SizeBudget::bytes_of(tensor.numel()));
  return static_cast<uint64_t>(std::min(kSmallNetwork + bytes, most_network_bytes(checkpoint.stored_bytes)));
}

nlohmann::json transforms_of(const Checkpoint& checkpoint) {
  return checkpoint.transforms.empty() ? nlohmann::json() : parse_json(checkpoint.transforms);
}

/// Puts a module's transforms back as they were when it goes away, unless dismissed.
class OwnTransforms {
 public:
  explicit OwnTransforms(Module& module) : module_(module), own_(parameter_transforms(module)) {
    for (const auto& [name, tensor] : state_of(*own_)) state_.emplace_back(name, tensor.clone());
    for (const auto& [name, part] : module.named_modules()) outputs_.emplace_back(part, part->output_transform());
  }
  ~OwnTransforms() {
    if (is_dismissed_) return;
    for (const auto& [part, transform] : outputs_) part->set_output_transform(transform);
    set_parameter_transforms(module_, *own_);
    load_state(*own_, state_);
  }
  OwnTransforms(const OwnTransforms&) = delete;
  OwnTransforms& operator=(const OwnTransforms&) = delete;
  void dismiss() { is_dismissed_ = true; }

 private:
  Module& module_;
  std::shared_ptr<Sequential> own_;
  NamedTensors state_;
  std::vector<std::pair<ModulePtr, ModulePtr>> outputs_;
  bool is_dismissed_ = false;
};
}  // namespace

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
  OwnTransforms own_transforms(module);
  try {
    const SizeBudget budget(network_bytes(checkpoint), "the file's tensors are fewer");
    build_transforms(module, transforms_of(checkpoint));
    load_state(*parameter_transforms(module), checkpoint.transform_state);
  } catch (const std::exception& error) {
    problems += fmt::format("\nits transforms: {}", error.what());
  }
  const std::vector<Tie> tied = module.ties();
  for (const Tie& tie : checkpoint.ties)
    if (std::find(tied.begin(), tied.end(), tie) == tied.end())
      problems +=
          fmt::format("\n'{}' is '{}' in the file, but not in this network; call tie on it first", tie.name, tie.first);
  std::map<std::string, Parameter> parameters;
  for (const auto& [name, parameter] : module.named_parameters()) parameters.emplace(name, parameter);
  for (const std::string& name : checkpoint.frozen.value_or(std::vector<std::string>()))
    if (!parameters.contains(name)) problems += fmt::format("\n'{}' is frozen in the file, but no parameter", name);
  for (const SavedMask& saved : checkpoint.masks)
    if (!parameters.contains(saved.parameter))
      problems += fmt::format("\n'{}' is masked in the file, but no parameter", saved.parameter);
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
  own_transforms.dismiss();
  unmasked.dismiss();
  if (checkpoint.frozen) {
    for (auto& [name, parameter] : parameters) parameter.set_requires_grad(true);
    for (const std::string& name : *checkpoint.frozen) parameters.at(name).set_requires_grad(false);
  }
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
    const SizeBudget budget(
        network_bytes(checkpoint),
        fmt::format("its tensors hold {} bytes; the file is damaged, or no program wrote it", checkpoint.stored_bytes));
    module = module_from_config(parse_json(checkpoint.model_config));
    build_transforms(*module, transforms_of(checkpoint));
    for (const Tie& tie : checkpoint.ties) module->tie(tie);
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
