// Emulated device memory. Its addresses lie in a range that nothing is ever mapped to, so that host code that follows a
// device pointer stops at once; the bytes lie at a constant distance from them, each allocation on pages of its own
// that end at a page without access. Freed pages lose their access and aren't used again for long.
//
// Everything here is called with state().mutex held, unless it says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace espalier::emulation {

/// An operation: the `clock`th of its stream.
struct Use {
  int stream = -1;
  uint64_t clock = 0;
};

struct Allocation {
  uintptr_t begin = 0;  ///< the device address that the program has
  size_t bytes = 0;
  uintptr_t pages = 0, guard = 0;  ///< its first page, and the first one behind it that is without access
  uintptr_t end = 0;               ///< where the next allocation may begin
  uint64_t number = 0;             ///< counts the allocations of the process
  int device = 0;
  const char* call = "";  ///< that made it
  const char* freed_by = nullptr;
  bool from_pool = false;

  Use written;
  std::string writer;
  std::vector<Use> reads;  ///< the last one of each stream, since `written`
};

class DeviceMemory {
 public:
  DeviceMemory();

  /// Null when there is no room left. The memory is filled with 0xFF: NaN to a kernel that reads it first.
  Allocation* allocate(size_t bytes, int device, const char* call);
  void release(Allocation& allocation, const char* call);

  /// Whether p is an address that cudaMalloc might give. Needs no lock.
  bool contains(uintptr_t p) const { return p - device_ < kSpan; }
  /// Whether p is where the bytes of one lie. Needs no lock.
  bool contains_bytes(uintptr_t p) const { return p - bytes_ < kSpan; }
  /// From the address that the program has to where the bytes lie, and back. Need no lock.
  uintptr_t to_bytes(uintptr_t p) const { return p - device_ + bytes_; }
  uintptr_t to_device(uintptr_t p) const { return p - bytes_ + device_; }

  /// An address without access that stands for host address p: a kernel that follows it is found.
  uintptr_t trap(uintptr_t p);
  /// The host address that trap() gave `address` for; 0 for none.
  uintptr_t trapped(uintptr_t address) const;

  /// The allocation, live or freed, whose pages or guard page hold device address p; null for none.
  Allocation* find(uintptr_t p);
  /// Where p lies: "4 bytes past the end of allocation #3 (400 bytes by cudaMalloc)".
  std::string describe(uintptr_t p);
  /// Whether the bytes of the allocation's pages before and after it are still as they were made.
  bool slack_intact(const Allocation& allocation) const;

 private:
  static constexpr size_t kSpan = size_t{256} << 30;
  static constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;
  static constexpr size_t kTraps = 256, kTrapSpan = size_t{4} << 30;
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kRemembered = 100'000;  ///< freed allocations that faults can name

  uintptr_t device_ = 0, bytes_ = 0, traps_ = 0;
  std::vector<uintptr_t> trapped_;  ///< by trap, reused in turn
  size_t next_trap_ = 0;
  uintptr_t next_ = 0;  ///< where the next allocation is tried
  uint64_t made_ = 0;
  std::map<uintptr_t, Allocation> allocations_;       ///< by pages
  std::deque<std::pair<uintptr_t, uint64_t>> freed_;  ///< pages and number, oldest first
};

}  // namespace espalier::emulation
