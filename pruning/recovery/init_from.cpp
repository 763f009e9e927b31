#include "pruning/recovery/init_from.h"

#include <algorithm>
#include <cstring>

namespace espalier {

namespace {
template <class T>
const T* find_by_name(const std::vector<std::pair<std::string, T>>& entries, const std::string& name) {
  for (const auto& [own, value] : entries)
    if (own == name) return &value;
  return nullptr;
}

std::vector<std::string> names_of(const NamedTensors& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

/// For every axis the index map, the identity where none is given. Throws unless it leads from `source` to `target`.
std::vector<std::vector<int64_t>> complete_maps(const std::string& name, const std::vector<AxisMap>& maps,
                                                const Shape& source, const Shape& target) {
  check(source.rank() == target.rank(), "init_from", "'{}' has shape {} in the checkpoint and {} in the module", name,
        source, target);
  std::vector<std::vector<int64_t>> all(static_cast<size_t>(target.rank()));
  for (const AxisMap& map : maps) {
    const int axis = normalize_axis(map.axis, target.rank(), "init_from");
    for (const int64_t index : map.from)
      check(index >= -1 && index < source[axis], "init_from",
            "the map of axis {} of '{}' has the index {}, the checkpoint's shape is {}", map.axis, name, index, source);
    check(static_cast<int64_t>(map.from.size()) == target[axis], "init_from",
          "the map of axis {} of '{}' has {} indices, the module's shape is {}", map.axis, name, map.from.size(),
          target);
    all[static_cast<size_t>(axis)] = map.from;
  }
  for (int axis = 0; axis < target.rank(); ++axis) {
    auto& map = all[static_cast<size_t>(axis)];
    if (!map.empty() || target[axis] == 0) continue;
    check(source[axis] == target[axis], "init_from",
          "axis {} of '{}' is {} long in the checkpoint and {} in the module; give it an index map too", axis, name,
          source[axis], target[axis]);
    for (int64_t i = 0; i < target[axis]; ++i) map.push_back(i);
  }
  return all;
}

/// target, with what the maps take from source; contiguous CPU tensors of one dtype.
Tensor gathered(const Tensor& source, const Tensor& target, const std::vector<std::vector<int64_t>>& maps) {
  const Tensor from = source.to(Device::cpu()).to(target.dtype()).contiguous();
  Tensor result = target.to(Device::cpu()).contiguous().clone();
  const size_t size = size_of(target.dtype());
  const int rank = target.rank();
  std::vector<int64_t> index(static_cast<size_t>(rank), 0);
  for (int64_t i = 0; i < result.numel(); ++i) {
    int64_t place = 0;
    bool known = true;
    for (int axis = 0; axis < rank; ++axis) {
      const int64_t at = maps[static_cast<size_t>(axis)][static_cast<size_t>(index[static_cast<size_t>(axis)])];
      known = known && at >= 0;
      place = place * from.shape()[axis] + at;
    }
    if (known)
      std::memcpy(static_cast<char*>(result.raw()) + static_cast<size_t>(i) * size,
                  static_cast<const char*>(from.raw()) + static_cast<size_t>(place) * size, size);
    for (int axis = rank - 1; axis >= 0; --axis) {
      if (++index[static_cast<size_t>(axis)] < target.shape()[axis]) break;
      index[static_cast<size_t>(axis)] = 0;
    }
  }
  return result;
}

/// What one tensor of the module becomes.
struct Change {
  std::string name;
  Tensor target, value;
  Mask mask = {};  ///< the checkpoint's, in the module's shape
};

std::string list(const char* what, const std::vector<std::string>& names) {
  return fmt::format("{}: {}{}{}\n", what, names.size(), names.empty() ? "" : " (",
                     names.empty() ? "" : fmt::format("{})", fmt::join(names, ", ")));
}
}  // namespace

std::string InitReport::to_string() const {
  return list("copied", copied) + list("sliced", sliced) + list("left", left) + list("unused", unused);
}

InitReport init_from(const Checkpoint& checkpoint, Module& module, const IndexMaps& maps) {
  const NamedTensors own = state_of(module);
  for (const auto& [name, list] : maps) {
    check(find_by_name(own, name) != nullptr, "init_from", "the module has no tensor '{}', which a map names{}", name,
          did_you_mean(name, names_of(own)));
    check(find_by_name(checkpoint.model, checkpoint.stored_name(name)) != nullptr, "init_from",
          "the checkpoint {} has no tensor '{}', which a map names{}", checkpoint.path, name,
          did_you_mean(name, names_of(checkpoint.model)));
  }

  InitReport report;
  std::vector<Change> changes;
  for (const auto& [name, target] : own) {
    const std::string stored = checkpoint.stored_name(name);
    const Tensor* source = find_by_name(checkpoint.model, stored);
    if (source == nullptr) {
      report.left.push_back(name + " (not in the checkpoint)");
      continue;
    }
    const auto saved = std::find_if(checkpoint.masks.begin(), checkpoint.masks.end(),
                                    [&](const SavedMask& mask) { return mask.parameter == stored; });
    const bool masked = saved != checkpoint.masks.end();
    if (const auto map = maps.find(name); map != maps.end()) {
      const auto all = complete_maps(name, map->second, source->shape(), target.shape());
      Change change{name, target, gathered(*source, target, all)};
      if (masked) {
        const Tensor bits = gathered(saved->mask.expand(DType::u8), Tensor::ones(target.shape(), DType::u8), all);
        const std::vector<uint8_t> values = bits.to_vector<uint8_t>();
        change.mask =
            Mask::from_units(target.shape(), Pattern::element(), std::vector<bool>(values.begin(), values.end()));
      }
      changes.push_back(std::move(change));
      report.sliced.push_back(name);
    } else if (source->shape() == target.shape()) {
      changes.push_back({name, target, source->to(target.dtype()), masked ? saved->mask : Mask()});
      report.copied.push_back(name);
    } else {
      report.left.push_back(fmt::format("{} (shape {}, the checkpoint's {})", name, target.shape(), source->shape()));
    }
  }
  for (const auto& [name, tensor] : checkpoint.model)
    if (find_by_name(own, name) == nullptr) report.unused.push_back(name);

  auto parameters = module.named_parameters();
  for (Change& change : changes) {
    change.target.copy_(change.value);  // the module's own storage
    const auto found = std::find_if(parameters.begin(), parameters.end(),
                                    [&](const auto& entry) { return entry.first == change.name; });
    if (found == parameters.end()) continue;
    Parameter& parameter = found->second;
    const Mask before = parameter.mask();
    if (!before.defined() && !change.mask.defined()) continue;
    const Mask both = !change.mask.defined() ? before
                      : !before.defined()    ? change.mask
                                             : before & change.mask.to(before.device());
    parameter.set_mask(both, before.defined() ? parameter.gradient_flow() : GradientFlow::masked);
  }
  return report;
}

}  // namespace espalier
