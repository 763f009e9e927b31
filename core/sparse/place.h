// Room that a thread keeps for its next call. Internal to core/sparse.
#pragma once

#include <cstdint>
#include <memory>

#include "core/storage.h"

namespace espalier {

/// So many floats, 64-byte aligned, valid until this thread's next call.
inline float* place_for(int64_t floats) {
  thread_local std::unique_ptr<Storage> place;
  const auto bytes = static_cast<size_t>(floats) * sizeof(float);
  if (place == nullptr || place->bytes() < bytes) place = std::make_unique<Storage>(bytes, Device::cpu());
  return static_cast<float*>(place->data());
}

}  // namespace espalier
