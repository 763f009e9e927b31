#include "cuda/emulation/fault.h"

#include <array>
#include <utility>

namespace espalier::emulation {
namespace {

struct Last {
  cudaError_t pending = cudaSuccess;  ///< what cudaGetLastError() returns
  cudaError_t status = cudaSuccess;   ///< what `words` are about
  std::string words;
};
thread_local Last last;

struct Name {
  cudaError_t status;
  const char *name, *words;
};
#define ESPALIER_STATUS(name, words) \
  Name { name, #name, words }
constexpr std::array kNames = {
    ESPALIER_STATUS(cudaSuccess, "no error"),
    ESPALIER_STATUS(cudaErrorInvalidValue, "invalid argument"),
    ESPALIER_STATUS(cudaErrorMemoryAllocation, "out of memory"),
    ESPALIER_STATUS(cudaErrorInitializationError, "initialization error"),
    ESPALIER_STATUS(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ESPALIER_STATUS(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    ESPALIER_STATUS(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ESPALIER_STATUS(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    ESPALIER_STATUS(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ESPALIER_STATUS(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ESPALIER_STATUS(cudaErrorInvalidDevice, "invalid device ordinal"),
    ESPALIER_STATUS(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ESPALIER_STATUS(cudaErrorNotReady, "device not ready"),
    ESPALIER_STATUS(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ESPALIER_STATUS(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    ESPALIER_STATUS(cudaErrorHardwareStackError, "hardware stack error"),
    ESPALIER_STATUS(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    ESPALIER_STATUS(cudaErrorMisalignedAddress, "misaligned address"),
    ESPALIER_STATUS(cudaErrorLaunchFailure, "unspecified launch failure"),
    ESPALIER_STATUS(cudaErrorNotSupported, "operation not supported"),
    ESPALIER_STATUS(cudaErrorUnknown, "unknown error"),
};
#undef ESPALIER_STATUS

const Name* name_of(cudaError_t status) {
  for (const Name& name : kNames)
    if (name.status == status) return &name;
  return nullptr;
}

}  // namespace

cudaError_t set_error(cudaError_t status, const std::string& words) {
  last.pending = last.status = status;
  last.words = words;
  return status;
}

const std::string& last_fault() { return last.words; }

}  // namespace espalier::emulation

using espalier::emulation::last;

cudaError_t cudaGetLastError() { return std::exchange(last.pending, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last.pending; }

const char* cudaGetErrorName(cudaError_t status) {
  const auto* const name = espalier::emulation::name_of(status);
  return name ? name->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t status) {
  if (status != cudaSuccess && status == last.status && !last.words.empty()) return last.words.c_str();
  const auto* const name = espalier::emulation::name_of(status);
  return name ? name->words : "unrecognized error code";
}
