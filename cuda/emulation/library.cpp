#include "cuda/emulation/library.h"

#include <fmt/format.h>

#include "cuda/emulation/stream.h"

namespace espalier::emulation {
namespace {

void* device_access(const void* p, size_t bytes, cudaStream_t handle, const char* call, bool write) {
  if (bytes == 0) return nullptr;
  try {
    const Turn turn(handle);
    State& s = state();
    const Use use = begin_operation(turn.stream);
    const auto address = reinterpret_cast<uintptr_t>(p);
    uintptr_t begin = 0;
    if (const size_t pinned = find_pinned(p, begin); pinned != 0) {
      if (bytes > begin + pinned - address)
        throw Fault(cudaErrorIllegalAddress, fmt::format("{}: {} bytes at {:#x} exceed pinned memory of {} bytes", call,
                                                         bytes, address, pinned));
      use_pinned(p, bytes, turn.stream, call);
      return const_cast<void*>(p);
    }
    Allocation& allocation = checked_range(address, bytes, call);
    if (allocation.device != turn.stream.device)
      throw Fault(cudaErrorIllegalAddress,
                  fmt::format("{}: allocation #{} is memory of device {}, the stream is of device {}", call,
                              allocation.number, allocation.device, turn.stream.device));
    use_memory(allocation, turn.stream, use, write, call);
    return reinterpret_cast<void*>(s.memory.to_bytes(address));
  } catch (const Fault& fault) {
    set_error(fault.status, fault.what());
    throw;
  }
}

}  // namespace

const void* device_read(const void* p, size_t bytes, cudaStream_t stream, const char* call) {
  return device_access(p, bytes, stream, call, false);
}
void* device_write(void* p, size_t bytes, cudaStream_t stream, const char* call) {
  return device_access(p, bytes, stream, call, true);
}

}  // namespace espalier::emulation
