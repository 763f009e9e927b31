// What the recovery steps share: data in batches, and layers in the order in which they run. Not for others.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "datasets/data_loader.h"
#include "training/evaluate.h"

namespace espalier::recovery {

/// Calls f with at most `batches` batches on `device`, drawn in an order that depends on the seed.
inline void for_batches(const char* operation, const Dataset& data, int64_t batch_size, int64_t batches, uint64_t seed,
                        Device device, const std::function<void(const Batch&)>& f) {
  check(data.size() > 0, operation, "expected examples to run the network on, got none");
  check(batch_size > 0 && batches > 0, operation, "expected batch_size and batches > 0, got {} and {}", batch_size,
        batches);
  const DataLoader loader(
      data, {.batch_size = std::min(batch_size, data.size()), .shuffle = true, .seed = seed, .prefetch = 0});
  int64_t done = 0;
  for (const Batch& batch : loader.batches()) {
    f(to(batch, device));
    if (++done == batches) break;
  }
}

/// An affine layer (ChannelAccount), such as Linear and Conv2d; undefined of anything else.
struct WeightLayer {
  std::string name = {};
  Module* module = nullptr;
  Parameter weight = {}, bias = {};
  ChannelReader reader = {};

  bool defined() const { return module != nullptr; }
  bool is_masked() const { return defined() && weight.mask().defined(); }
};

inline WeightLayer weight_layer(const std::string& name, Module& module) {
  const ChannelAccount account = module.channels();
  if (!account.is_affine) return {};
  const ChannelReader& reader = account.readers[0];
  return {name, &module, module.parameter(reader.weight),
          reader.bias.empty() ? Parameter() : module.parameter(reader.bias), reader};
}

/// The layers whose outputs pruning has damaged, in the order of the calls of one forward pass: those with a masked
/// weight, and those that have lost an input, as a masked channel is: over a batch it varies in `dense` and is constant
/// in `pruned`. As in ThiNet (Luo et al. 2017) it is the next layer that is to make up for a channel.
std::vector<WeightLayer> layers_to_repair(const char* operation, Module& pruned, Module& dense, const Dataset& data,
                                          int64_t batch_size, uint64_t seed);

/// Whether element i of a parameter exists.
inline std::vector<bool> existing_elements(const Parameter& parameter) {
  std::vector<bool> exists(static_cast<size_t>(parameter.numel()), true);
  if (!parameter.mask().defined()) return exists;
  const std::vector<uint8_t> bits = parameter.mask().expand(DType::u8).to_vector<uint8_t>();
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = bits[i] != 0;
  return exists;
}

}  // namespace espalier::recovery
