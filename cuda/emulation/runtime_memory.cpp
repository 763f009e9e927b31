// The runtime API's calls on memory.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include <fmt/format.h>

#include "cuda/emulation/runtime.h"

using namespace espalier::emulation;

namespace {

constexpr size_t kPoolStep = size_t{2} << 20;  // a pool takes memory from its device in steps

uintptr_t address_of(const void* p) { return reinterpret_cast<uintptr_t>(p); }

Allocation* allocate(size_t bytes, int index, bool from_pool, const char* call) {
  State& s = state();
  Device& device = device_of(index);
  const size_t taken = device.used + device.pool_used;
  Allocation* const made =
      bytes > s.device_bytes || taken > s.device_bytes - bytes ? nullptr : s.memory.allocate(bytes, index, call);
  if (!made)
    throw Fault(cudaErrorMemoryAllocation,
                fmt::format("out of memory: {} of {} bytes on device {}, of whose {} bytes {} "
                            "are in use",
                            call, bytes, index, s.device_bytes, taken));
  made->from_pool = from_pool;
  if (from_pool) {
    device.pool_used += bytes;
    device.pool_used_high = std::max(device.pool_used_high, device.pool_used);
    device.pool_reserved = std::max(device.pool_reserved, (device.pool_used + kPoolStep - 1) / kPoolStep * kPoolStep);
  } else {
    device.used += bytes;
  }
  device.pool_reserved = std::min(device.pool_reserved, s.device_bytes - device.used);
  device.pool_reserved_high = std::max(device.pool_reserved_high, device.pool_reserved);
  return made;
}

Allocation& to_free(void* pointer, const char* call) {
  DeviceMemory& memory = state().memory;
  Allocation* const a = memory.contains(address_of(pointer)) ? memory.find(address_of(pointer)) : nullptr;
  if (!a || a->freed_by || a->begin != address_of(pointer))
    throw Fault(
        cudaErrorInvalidValue,
        fmt::format("{} of {}, which is no live allocation: {}", call, fmt::ptr(pointer),
                    memory.contains(address_of(pointer)) ? memory.describe(address_of(pointer)) : "a host pointer"));
  return *a;
}

void release(Allocation& a, const char* call) {
  Device& device = device_of(a.device);
  (a.from_pool ? device.pool_used : device.used) -= a.bytes;
  state().memory.release(a, call);
}

/// One side of a copy.
struct Side {
  unsigned char* bytes = nullptr;  ///< usable by the host
  Allocation* allocation = nullptr;
  bool pinned = false;
};

Side side_of(const void* p, size_t bytes, const std::string& call) {
  const auto address = address_of(p);
  if (state().memory.contains(address)) {
    Allocation& allocation = checked_range(address, bytes, call);
    return {reinterpret_cast<unsigned char*>(state().memory.to_bytes(address)), &allocation};
  }
  Side side{static_cast<unsigned char*>(const_cast<void*>(p))};
  uintptr_t begin = 0;
  const size_t pinned = find_pinned(p, begin);
  side.pinned = pinned != 0;
  if (side.pinned && bytes > begin + pinned - address)
    throw Fault(cudaErrorInvalidValue, fmt::format("{}: {} bytes exceed pinned memory by {}", call, bytes,
                                                   bytes - (begin + pinned - address)));
  return side;
}

void check_kind(const Side& to, const Side& from, cudaMemcpyKind kind, const std::string& call) {
  if (kind == cudaMemcpyDefault) return;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const auto check = [&](const Side& side, bool device, const char* name) {
    if ((side.allocation != nullptr) != device)
      throw Fault(cudaErrorInvalidValue, fmt::format("{}: the {} is {} memory, against the kind of the copy", call,
                                                     name, side.allocation ? "device" : "host"));
  };
  check(to, to_device, "destination");
  check(from, from_device, "source");
}

void copy(void* to_pointer, const void* from_pointer, size_t bytes, cudaMemcpyKind kind, CUstream_st& stream,
          bool async, const char* call) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
    throw Fault(cudaErrorInvalidMemcpyDirection, fmt::format("{}: there is no kind {}", call, static_cast<int>(kind)));
  if (bytes == 0) return;
  if (!to_pointer || !from_pointer) throw Fault(cudaErrorInvalidValue, fmt::format("{}: null pointer", call));
  const Side to = side_of(to_pointer, bytes, call), from = side_of(from_pointer, bytes, call);
  check_kind(to, from, kind, call);
  const Use use = begin_operation(stream);
  if (from.pinned) use_pinned(from.bytes, bytes, stream, call);
  if (to.pinned) use_pinned(to.bytes, bytes, stream, call);
  if (from.allocation) use_memory(*from.allocation, stream, use, false, call);
  if (to.allocation) use_memory(*to.allocation, stream, use, true, call);

  if (async && from.allocation && to.pinned) {
    // It arrives when the host has waited for it; until then nothing of use is there.
    state().copies.push_back({use, to.bytes, {from.bytes, from.bytes + bytes}, true});
    std::memset(to.bytes, 0xFF, bytes);
    return;
  }
  std::memmove(to.bytes, from.bytes, bytes);
  if (async && from.pinned && to.allocation) {
    state().copies.push_back({use, from.bytes, {from.bytes, from.bytes + bytes}, false});
    return;
  }
  // The host waits for what leaves the device and, without async, for what comes from the host.
  if (!to.allocation || (!from.allocation && !async)) host_waited(stream.seen);
}

void set(void* pointer, int value, size_t bytes, CUstream_st& stream, const char* call) {
  if (bytes == 0) return;
  Allocation& allocation = checked_range(address_of(pointer), bytes, call);
  use_memory(allocation, stream, begin_operation(stream), true, call);
  std::memset(reinterpret_cast<void*>(state().memory.to_bytes(address_of(pointer))), value, bytes);
}

Device& device_of_pool(cudaMemPool_t pool) {
  for (Device& device : state().devices)
    if (reinterpret_cast<cudaMemPool_t>(device.legacy) == pool) return device;
  throw Fault(cudaErrorInvalidValue, "the memory pool's handle is none");
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return locked_call([&] {
    *pointer = nullptr;
    if (bytes > 0) *pointer = reinterpret_cast<void*>(allocate(bytes, current_device(), false, "cudaMalloc")->begin);
  });
}
cudaError_t cudaFree(void* pointer) {
  return locked_call([&] {
    if (pointer == nullptr) return;
    Allocation& a = to_free(pointer, "cudaFree");
    if (a.from_pool) {  // other memory is freed after all of the device's work
      Clock done = state().host;
      CUstream_st host;
      host.seen = done;
      use_memory(a, host, a.written, true, "cudaFree");
    }
    release(a, "cudaFree");
  });
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) {
    *pointer = nullptr;
    if (bytes == 0) return;
    Allocation& a = *allocate(bytes, s.device, true, "cudaMallocAsync");
    a.written = begin_operation(s);
    a.writer = "cudaMallocAsync";
    *pointer = reinterpret_cast<void*>(a.begin);
  });
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) {
    if (pointer == nullptr) return;
    Allocation& a = to_free(pointer, "cudaFreeAsync");
    if (!a.from_pool) throw Fault(cudaErrorInvalidValue, "cudaFreeAsync of memory that cudaMallocAsync didn't give");
    use_memory(a, s, begin_operation(s), true, "cudaFreeAsync");
    release(a, "cudaFreeAsync");
  });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return locked_call([&] {
    *pointer = nullptr;
    if (bytes == 0) return;
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
      throw Fault(cudaErrorMemoryAllocation, fmt::format("no {} bytes of pinned memory", bytes));
    state().pinned[address_of(memory)] = bytes;
    *pointer = memory;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  return locked_call([&] {
    uintptr_t begin = 0;
    if (find_pinned(host, begin) == 0)
      throw Fault(cudaErrorInvalidValue, "cudaHostGetDevicePointer: not pinned memory");
    *device = host;
  });
}
cudaError_t cudaFreeHost(void* pointer) {
  return locked_call([&] {
    if (pointer == nullptr) return;
    State& s = state();
    const auto found = s.pinned.find(address_of(pointer));
    if (found == s.pinned.end())
      throw Fault(cudaErrorInvalidValue,
                  fmt::format("cudaFreeHost of {}, which is no pinned memory", fmt::ptr(pointer)));
    std::erase_if(s.copies, [&](const Copy& copy) { return address_of(copy.pinned) - found->first < found->second; });
    munmap(pointer, found->second);
    s.pinned.erase(found);
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return locked_call([&] {
    const Device& device = device_of(current_device());
    *total = state().device_bytes;
    const size_t taken = device.used + std::max(device.pool_used, device.pool_reserved);
    *free = *total - std::min(*total, taken);
  });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return locked_call([&] {
    *attributes = {cudaMemoryTypeUnregistered, -1, nullptr, const_cast<void*>(pointer)};
    uintptr_t begin = 0;
    if (state().memory.contains(address_of(pointer))) {
      const Allocation* const a = state().memory.find(address_of(pointer));
      if (a && !a->freed_by) *attributes = {cudaMemoryTypeDevice, a->device, const_cast<void*>(pointer), nullptr};
    } else if (find_pinned(pointer, begin) != 0) {
      *attributes = {cudaMemoryTypeHost, current_device(), const_cast<void*>(pointer), const_cast<void*>(pointer)};
    }
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return locked_call([&] { *pool = reinterpret_cast<cudaMemPool_t>(device_of(device).legacy); });
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return locked_call([&] {
    Device& device = device_of_pool(pool);
    const uint64_t given = *static_cast<const uint64_t*>(value);
    if (attribute == cudaMemPoolAttrReleaseThreshold) {
      device.release_threshold = given;
    } else if (attribute == cudaMemPoolAttrReservedMemHigh && given == 0) {
      device.pool_reserved_high = device.pool_reserved;
    } else if (attribute == cudaMemPoolAttrUsedMemHigh && given == 0) {
      device.pool_used_high = device.pool_used;
    } else {
      throw Fault(cudaErrorInvalidValue, fmt::format("cudaMemPoolSetAttribute: attribute {} can't be set to {}",
                                                     static_cast<int>(attribute), given));
    }
  });
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return locked_call([&] {
    const Device& device = device_of_pool(pool);
    auto& answer = *static_cast<uint64_t*>(value);
    switch (attribute) {
      case cudaMemPoolAttrReleaseThreshold: answer = device.release_threshold; break;
      case cudaMemPoolAttrReservedMemCurrent: answer = std::max(device.pool_used, device.pool_reserved); break;
      case cudaMemPoolAttrReservedMemHigh: answer = device.pool_reserved_high; break;
      case cudaMemPoolAttrUsedMemCurrent: answer = device.pool_used; break;
      case cudaMemPoolAttrUsedMemHigh: answer = device.pool_used_high; break;
      default: throw Fault(cudaErrorInvalidValue, "cudaMemPoolGetAttribute: unknown attribute");
    }
  });
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep_bytes) {
  return locked_call([&] {
    Device& device = device_of_pool(pool);
    device.pool_reserved = std::min(device.pool_reserved, std::max(device.pool_used, keep_bytes));
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) { copy(to, from, bytes, kind, s, true, "cudaMemcpyAsync"); });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return in_turn(nullptr, [&](CUstream_st& s) { copy(to, from, bytes, kind, s, false, "cudaMemcpy"); });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) {
    if (bytes == 0) return;
    if (checked_range(address_of(to), bytes, "cudaMemcpyPeerAsync").device != to_device ||
        checked_range(address_of(from), bytes, "cudaMemcpyPeerAsync").device != from_device)
      throw Fault(cudaErrorInvalidValue, "cudaMemcpyPeerAsync: memory of another device than given");
    copy(to, from, bytes, cudaMemcpyDeviceToDevice, s, true, "cudaMemcpyPeerAsync");
  });
}
cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
  return cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) { set(pointer, value, bytes, s, "cudaMemsetAsync"); });
}
cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  return in_turn(nullptr, [&](CUstream_st& s) { set(pointer, value, bytes, s, "cudaMemset"); });
}
