// The running thread of a block, and what it may ask of the others: barriers and exchanges within a warp.
//
// A block runs on one thread of the operating system. Its threads are fibres, in an order shuffled by a seed: one fibre
// calls thread after thread for as long as none of them waits; when one does, the next thread begins on another fibre.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>

#include <driver_types.h>

namespace espalier::emulation {

constexpr unsigned kLanes = 32;

/// Which accesses of a warp's lanes are ordered by exchanges between them. `time` counts exchanges; `full` is the time
/// of the last one that all lanes took part in; known[i][k] the time of the last one by which lane i knows of lane k,
/// where exchanges of fewer lanes happened.
struct WarpClock {
  uint32_t time, full;
  bool partial;
  uint32_t known[kLanes][kLanes];
};

/// What device code reads of the thread that runs, on this thread of the operating system.
struct Running {
  uint3 thread_index{}, block_index{};
  dim3 block_dim, grid_dim;
  uint32_t thread = 0;  ///< place in the block
  uint32_t lane_bit = 0, warp = 0;
  uint32_t epoch = 0, first_epoch = 0;  ///< counts the barriers; that of the block's begin
  const WarpClock* clock = nullptr;
};
inline constinit thread_local Running running;

/// Ends the running thread's kernel with a fault: `what` completes "kernel k, block (0,0,0), thread (0,0,0): ".
[[noreturn]] void raise(cudaError_t status, const std::string& what);

enum class BlockVote { none, count, all, any };
/// __syncthreads and its kin. Returns the number of threads whose predicate holds, or whether all or any do.
int block_barrier(BlockVote vote, bool predicate, const std::source_location& where);

enum class WarpOp { sync, shuffle, vote };
/// Waits for the lanes in mask and exchanges values: a shuffle returns the value that lane `source` gave, a vote the
/// lanes that gave something other than zero.
uint64_t warp_exchange(WarpOp op, unsigned mask, uint64_t value, unsigned source, const std::source_location& where);

/// A block's shared memory: the address of the static array that `tag` stands for, made on first use.
void* static_shared(const void* tag, size_t bytes, const char* name);
/// Where dynamic shared memory begins, and its size.
void* dynamic_shared(size_t& bytes);

}  // namespace espalier::emulation
