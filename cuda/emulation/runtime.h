// How a runtime call is made: faults thrown inside become its status.
#pragma once

#include "cuda/emulation/fault.h"
#include "cuda/emulation/stream.h"

namespace espalier::emulation {

/// With state().mutex held. Throws Fault when there is no such device.
Device& device_of(int index);

template <class Body>
cudaError_t locked_call(const Body& body) {
  try {
    std::lock_guard guard(state().mutex);
    body();
    return cudaSuccess;
  } catch (const Fault& fault) {
    return set_error(fault.status, fault.what());
  }
}

/// With the stream's turn as well.
template <class Body>
cudaError_t in_turn(cudaStream_t stream, const Body& body) {
  try {
    const Turn turn(stream);
    body(turn.stream);
    return cudaSuccess;
  } catch (const Fault& fault) {
    return set_error(fault.status, fault.what());
  }
}

}  // namespace espalier::emulation
