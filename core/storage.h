// Memory: a reference-counted block from the caching allocator of a device.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/device.h"

namespace espalier {

/// What a device's allocator has handed out, in bytes.
struct MemoryStats {
  size_t current = 0;         ///< in live storages
  size_t peak = 0;            ///< highest `current` since the last reset_peak_memory
  size_t cached = 0;          ///< freed by tensors, kept for reuse
  uint64_t system_calls = 0;  ///< blocks ever taken from the system or the driver (a steady loop takes none)
};

MemoryStats memory_stats(Device device = Device::cpu());
void reset_peak_memory(Device device = Device::cpu());

/// Gives cached blocks back to the system or the driver.
void release_cached_memory(Device device = Device::cpu());

/// One block of device memory, 64-byte aligned, shared by the tensors that view it.
class Storage {
 public:
  /// Throws Error with the sizes when memory runs out. The contents are uninitialised.
  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  /// Counts in-place changes, so that autograd can refuse a backward through a changed tensor.
  uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version() { version_.fetch_add(1, std::memory_order_relaxed); }

 private:
  void* data_ = nullptr;
  size_t bytes_;
  size_t capacity_ = 0;
  Device device_;
  std::atomic<uint64_t> version_ = 0;
};

}  // namespace espalier
