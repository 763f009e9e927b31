// What the emulator finds wrong. On a GPU most of these are undefined behaviour; some become an error status of a later
// call. Here the launch or call itself fails, and the words say where.
#pragma once

#include <stdexcept>
#include <string>

#include <driver_types.h>

namespace espalier::emulation {

/// Thrown inside the emulator and by library.h. Runtime calls turn it into their status.
struct Fault : std::runtime_error {
  Fault(cudaError_t code, const std::string& words) : std::runtime_error(words), status(code) {}
  cudaError_t status;
};

/// Makes `status` what cudaGetLastError() reports to this thread next, and `words` what cudaGetErrorString(status)
/// says.
cudaError_t set_error(cudaError_t status, const std::string& words = "");

/// The words of this host thread's last fault; empty if there was none.
const std::string& last_fault();

}  // namespace espalier::emulation
