// How much memory OpenBLAS takes: known before it is loaded (tools/memory_limit.cpp) and when it is used
// (cpu/gemm.cpp).
#pragma once

#include <cstddef>

namespace espalier {

/// What OpenBLAS packs matrices into on 64-bit machines (its BUFFER_SIZE): it takes one buffer for each of its threads
/// when it is loaded, and one for each call that runs at a time.
inline constexpr size_t kMatmulBufferBytes = size_t{32} << 22;

}  // namespace espalier
