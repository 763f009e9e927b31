#include "cuda/emulation/launch.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "cuda/emulation/control.h"
#include "cuda/emulation/library.h"
#include "cuda/emulation/stream.h"
#include "cuda/emulation/worker.h"

namespace espalier::emulation {
namespace {

uint64_t environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : 0;
}

std::atomic<uint64_t>& seed() {
  static std::atomic<uint64_t> value{environment("ESPALIER_EMULATION_SEED")};
  return value;
}
std::atomic<int>& worker_count() {
  static std::atomic<int> value{static_cast<int>(environment("ESPALIER_EMULATION_THREADS"))};
  return value;
}

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9E3779B97F4A7C15u * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

constexpr size_t kDefaultShared = 48 * 1024, kOptinShared = 163 * 1024;

/// Compute capabilities 8.0 to 9.0 (CUDA C++ Programming Guide, "Compute Capabilities").
void check_configuration(const Call& call, size_t shared_limit) {
  const dim3 &grid = call.grid, &block = call.block;
  if (grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535 ||
      block.x < 1 || block.x > 1024 || block.y < 1 || block.y > 1024 || block.z < 1 || block.z > 64 ||
      block.x * block.y * block.z > 1024)
    throw Fault(cudaErrorInvalidConfiguration,
                fmt::format("kernel {}: no GPU runs a grid of ({},{},{}) blocks of ({},{},{}) threads", call.name,
                            grid.x, grid.y, grid.z, block.x, block.y, block.z));
  if (call.shared_bytes > shared_limit)
    throw Fault(cudaErrorInvalidValue,
                fmt::format("kernel {}: {} bytes of dynamic shared memory; a block may have {} (cudaFuncSetAttribute "
                            "allows up to {})",
                            call.name, call.shared_bytes, shared_limit, kOptinShared));
}

/// A launch's arguments, as it makes them usable. Holds state().mutex.
class Arguments {
 public:
  Arguments(const Call& call, const CUstream_st& stream, Use use)
      : call_(call), stream_(stream), use_(use), by_(fmt::format("kernel {}", call.name)) {
    for (size_t i = 0; i < call.argument_count; ++i) {
      const Argument& argument = call.arguments[i];
      auto* const words = static_cast<unsigned char*>(argument.value);
      for (size_t at = 0; at + sizeof(uintptr_t) <= argument.bytes; at += sizeof(uintptr_t)) {
        uintptr_t word;
        std::memcpy(&word, words + at, sizeof(word));
        const uintptr_t usable = argument.pointer ? pointer(word, i, !argument.constant) : member(word);
        if (usable != word) std::memcpy(words + at, &usable, sizeof(word));
      }
    }
  }

  /// Throws Fault when the kernel wrote around what it was given.
  void check_slack() const {
    DeviceMemory& memory = state().memory;
    for (const auto& [pages, number] : used_) {
      const Allocation* const a = memory.find(pages);
      if (a && a->number == number && !a->freed_by && !memory.slack_intact(*a))
        throw Fault(
            cudaErrorIllegalAddress,
            fmt::format("{}: wrote out of bounds, less than a page before or less than 64 bytes past allocation #{} "
                        "({} bytes by {})",
                        by_, a->number, a->bytes, a->call));
    }
  }

 private:
  uintptr_t pointer(uintptr_t p, size_t index, bool write) {
    if (p == 0) return p;
    if (state().memory.contains(p)) {
      Allocation* const a = state().memory.find(p);
      if (!a || a->freed_by)
        throw Fault(cudaErrorIllegalAddress, fmt::format("{}: argument {} is device pointer {:#x}, {}", by_, index, p,
                                                         state().memory.describe(p)));
      use(*a, write);
      return state().memory.to_bytes(p);
    }
    uintptr_t begin = 0;
    const auto* const host = reinterpret_cast<const void*>(p);
    const size_t bytes = find_pinned(host, begin);
    if (bytes == 0)
      throw Fault(cudaErrorIllegalAddress,
                  fmt::format("{}: host pointer given to kernel: argument {} is {:#x}", by_, index, p));
    use_pinned(reinterpret_cast<const void*>(begin), bytes, stream_, by_);
    return p;
  }

  /// A word of a struct, which may be anything. Pointers to const can't be told from others: they count as read.
  uintptr_t member(uintptr_t word) {
    if (!state().memory.contains(word)) return is_host_address(word) ? state().memory.trap(word) : word;
    Allocation* const a = state().memory.find(word);
    if (!a) return word;
    if (!a->freed_by) use(*a, false);
    return state().memory.to_bytes(word);
  }

  /// Whether something is mapped at this high address. A struct's word may look like one and never be followed.
  bool is_host_address(uintptr_t word) {
    if (word >> 40 == 0 || word >> 47 != 0) return false;
    unsigned char in_memory;
    if (mincore(reinterpret_cast<void*>(word & ~uintptr_t{4095}), 1, &in_memory) != 0) return false;
    uintptr_t begin = 0;
    const size_t bytes = find_pinned(reinterpret_cast<const void*>(word), begin);
    if (bytes != 0) use_pinned(reinterpret_cast<const void*>(begin), bytes, stream_, by_);
    return bytes == 0;
  }

  void use(Allocation& a, bool write) {
    if (a.device != stream_.device)
      throw Fault(cudaErrorIllegalAddress,
                  fmt::format("{}: allocation #{} is memory of device {}, the stream is of device {}", by_, a.number,
                              a.device, stream_.device));
    use_memory(a, stream_, use_, write, by_);
    used_.emplace_back(a.pages, a.number);
  }

  const Call& call_;
  const CUstream_st& stream_;
  const Use use_;
  const std::string by_;
  std::vector<std::pair<uintptr_t, uint64_t>> used_;
};

/// Runs all blocks; the fault of the block that comes first in their order.
BlockFault run_blocks(const Call& call, size_t shared_limit, uint64_t key) {
  const uint64_t blocks = uint64_t{call.grid.x} * call.grid.y * call.grid.z;
  // Blocks go in the order a, a + step, a + 2 step, ... modulo their number.
  const uint64_t first = mix(key, 1) % blocks;
  uint64_t step = mix(key, 2) % blocks + 1;
  while (std::gcd(step, blocks) != 1) step = step % blocks + 1;

  std::mutex mutex;
  BlockFault fault;
  std::atomic<uint64_t> faulted{UINT64_MAX};
  const auto run_share = [&](uint64_t worker, uint64_t workers) {
    for (uint64_t i = worker; i < blocks && i < faulted.load(std::memory_order_relaxed); i += workers) {
      const auto b = static_cast<uint64_t>((static_cast<unsigned __int128>(i) * step + first) % blocks);
      const uint3 index = {static_cast<unsigned>(b % call.grid.x), static_cast<unsigned>(b / call.grid.x % call.grid.y),
                           static_cast<unsigned>(b / call.grid.x / call.grid.y)};
      BlockFault found = Worker::of_this_thread().run(call, index, shared_limit, mix(key, 3 + i));
      if (found.status == cudaSuccess) continue;
      std::lock_guard guard(mutex);
      if (i >= faulted) return;
      faulted = i;
      fault = std::move(found);
    }
  };
  const uint64_t threads = blocks * call.block.x * call.block.y * call.block.z;
  const int wanted = worker_count() > 0 ? worker_count().load() : omp_get_max_threads();
  const int workers = threads < 2048 ? 1 : static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(wanted), blocks));
  if (workers == 1) {
    run_share(0, 1);
  } else {
#pragma omp parallel num_threads(workers)
    run_share(static_cast<uint64_t>(omp_get_thread_num()), static_cast<uint64_t>(omp_get_num_threads()));
  }
  return fault;
}

}  // namespace

void set_seed(uint64_t value) {
  std::lock_guard guard(state().mutex);
  seed() = value;
  for (CUstream_st* stream : state().streams) stream->launches = 0;
  for (const Device& device : state().devices) device.legacy->launches = 0;
}
void set_threads(int threads) { worker_count() = threads; }

void run(const Call& call) {
  try {
    Turn turn(call.stream);
    const auto limit = state().dynamic_shared_limit.find(call.kernel);
    const size_t shared_limit = limit == state().dynamic_shared_limit.end()
                                    ? kDefaultShared
                                    : std::max(kDefaultShared, static_cast<size_t>(limit->second));
    check_configuration(call, shared_limit);
    if (turn.stream.device != current_device())
      throw Fault(cudaErrorInvalidResourceHandle,
                  fmt::format("kernel {}: the stream is of device {}, the current device is {}", call.name,
                              turn.stream.device, current_device()));
    const Use use = begin_operation(turn.stream);
    const Arguments arguments(call, turn.stream, use);
    const uint64_t key = mix(mix(seed(), static_cast<uint64_t>(use.stream)), turn.stream.launches++);
    turn.lock.unlock();
    const BlockFault fault = run_blocks(call, shared_limit, key);
    turn.lock.lock();
    if (fault.status != cudaSuccess) throw Fault(fault.status, fault.words);
    arguments.check_slack();
  } catch (const Fault& fault) {
    set_error(fault.status, fault.what());
  }
}

void check_atomic_address(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    raise(cudaErrorMisalignedAddress, fmt::format("atomic function on misaligned address {:#x}",
                                                  state().memory.to_device(reinterpret_cast<uintptr_t>(address))));
}

}  // namespace espalier::emulation
