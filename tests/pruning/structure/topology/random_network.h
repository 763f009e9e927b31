// Random small networks: residual sums, cat, chunk, gates, layers called twice, tied weights, reshape, permute, LSTM,
// attention, heads that only training knows, layers of a user's own, one of them behind another layer.
#pragma once

#include "core/tensor.h"
#include "layers/module.h"

namespace espalier::topology {

struct RandomNetwork {
  ModulePtr net;      ///< a ProgramNetwork in f64
  Shape input;        ///< of one example
  int64_t words = 0;  ///< the input holds ids below this; 0: it holds numbers

  /// A batch of inputs. Ids: the first ones count through all words.
  Tensor inputs(int64_t batch, uint64_t seed) const;
};

/// The same seed gives the same network, values included.
RandomNetwork random_network(uint64_t seed);

/// Masks channels of some groups, and single weights, rows and columns of some parameters.
void mask_at_random(const RandomNetwork& network, uint64_t seed);

}  // namespace espalier::topology
