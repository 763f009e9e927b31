// What the stand-ins for cuBLAS and cuDNN need: device memory that they may touch, with the checks a kernel would have.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "cuda/emulation/fault.h"

namespace espalier::emulation {

/// The host-usable address of `bytes` of device memory at p, for a library call on `stream` that reads it. Throws Fault
/// for a host pointer, out of bounds, freed memory, and memory last written on another stream without synchronisation.
/// `call` appears in the message, as "cublasSgemm, A". Pinned host memory is returned as it is. p may be null for zero
/// bytes.
const void* device_read(const void* p, size_t bytes, cudaStream_t stream, const char* call);
/// The same for memory that the call writes (or both reads and writes).
void* device_write(void* p, size_t bytes, cudaStream_t stream, const char* call);

}  // namespace espalier::emulation
