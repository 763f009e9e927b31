// What a test sets: the emulated machine, and the seed that shuffles the order of threads and blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace espalier::emulation {

/// The order of blocks, of the threads of a block and after each barrier. Default: ESPALIER_EMULATION_SEED, or 0.
void set_seed(uint64_t seed);
/// Threads of the operating system that run blocks. Default: ESPALIER_EMULATION_THREADS, or OpenMP's own number.
void set_threads(int threads);
/// Memory of every device: allocations beyond it fail. Default: ESPALIER_EMULATED_MEMORY, or 16 GB.
void set_device_memory(size_t bytes);
/// How many devices there are: before the first call that asks. Default: ESPALIER_EMULATED_DEVICES, or 1.
void set_device_count(int devices);
/// The version that cudaDriverGetVersion tells, such as 12040; 0: no driver. Default: ESPALIER_EMULATED_DRIVER, or the
/// runtime's.
void set_driver_version(int version);

}  // namespace espalier::emulation
