#include "cuda/emulation/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <fmt/format.h>

namespace espalier::emulation {
namespace {

constexpr unsigned char kFill = 0xFF, kSlack = 0xFD;
// High words that neither counts, sizes nor numbers have, so that a pair of them in a struct is no device address.
constexpr uintptr_t kHint = uintptr_t{0x5EA1} << 32;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

bool all_are(uintptr_t begin, uintptr_t end, unsigned char value) {
  const auto* p = reinterpret_cast<const unsigned char*>(begin);
  return std::all_of(p, p + (end - begin), [value](unsigned char byte) { return byte == value; });
}

}  // namespace

DeviceMemory::DeviceMemory() : trapped_(kTraps) {
  // An int in a struct, with what its padding happens to hold, may look like an address. Every distance here is a
  // multiple of 4 GB, so that replacing it changes the padding only.
  constexpr size_t kAll = 2 * kSpan + (kTraps + 1) * kTrapSpan;
  void* const range =
      mmap(reinterpret_cast<void*>(kHint), kAll, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED)
    throw std::runtime_error(
        fmt::format("[cuda emulation] no address space: mmap of {} bytes failed: {}", kAll, std::strerror(errno)));
  device_ = next_ = reinterpret_cast<uintptr_t>(range);
  bytes_ = device_ + kSpan;
  traps_ = round_up(bytes_ + kSpan, kTrapSpan);
  madvise(reinterpret_cast<void*>(bytes_), kSpan, MADV_HUGEPAGE);  // large allocations fault in faster; a hint only
}

Allocation* DeviceMemory::allocate(size_t bytes, int device, const char* call) {
  if (bytes > kSpan / 2) return nullptr;
  // As much without access behind an allocation as it has itself, within limits: an index that is far off hits it too.
  const size_t room = round_up(std::max<size_t>(bytes, 1), kPage);
  const size_t span = room + std::clamp<size_t>(room, size_t{64} << 10, size_t{64} << 20);
  // The next free stretch; once around, over what was freed longest ago.
  bool wrapped = false;
  const size_t alignment = room < kHugePage ? kPage : kHugePage;
  uintptr_t at = round_up(next_, alignment);
  for (auto it = allocations_.lower_bound(next_);;) {
    if (at + span > device_ + kSpan) {
      if (wrapped) return nullptr;
      wrapped = true;
      at = round_up(device_, alignment);
      it = allocations_.begin();
    }
    if (it == allocations_.end() || it->first >= at + span) break;
    if (it->second.freed_by) {
      it = allocations_.erase(it);
    } else {
      at = round_up(it->second.end, alignment);
      ++it;
    }
  }
  next_ = at + span;

  Allocation made;
  made.pages = at;
  made.guard = at + room;
  made.end = at + span;
  made.begin = made.guard - round_up(std::max<size_t>(bytes, 1), kAlignment);
  made.bytes = bytes;
  made.number = ++made_;
  made.device = device;
  made.call = call;
  auto* const first = reinterpret_cast<unsigned char*>(to_bytes(made.pages));
  if (mprotect(first, room, PROT_READ | PROT_WRITE) != 0) return nullptr;
  const size_t before = made.begin - made.pages;
  std::memset(first, kSlack, before);
  std::memset(first + before, kFill, bytes);
  std::memset(first + before + bytes, kSlack, room - before - bytes);
  return &(allocations_[made.pages] = made);
}

void DeviceMemory::release(Allocation& allocation, const char* call) {
  allocation.freed_by = call;
  allocation.reads = {};
  void* const first = reinterpret_cast<void*>(to_bytes(allocation.pages));
  const size_t room = allocation.guard - allocation.pages;
  mmap(first, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  // The same advice as around it: else the kernel keeps a mapping of its own for every allocation that ever was, and
  // has none left after some ten thousand.
  madvise(first, room, MADV_HUGEPAGE);
  freed_.emplace_back(allocation.pages, allocation.number);
  if (freed_.size() <= kRemembered) return;
  const auto [pages, number] = freed_.front();
  freed_.pop_front();
  const auto oldest = allocations_.find(pages);
  if (oldest != allocations_.end() && oldest->second.number == number) allocations_.erase(oldest);
}

uintptr_t DeviceMemory::trap(uintptr_t p) {
  trapped_[next_trap_] = p;
  const uintptr_t at = traps_ + next_trap_ * kTrapSpan + p % kTrapSpan;
  next_trap_ = (next_trap_ + 1) % kTraps;
  return at;
}

uintptr_t DeviceMemory::trapped(uintptr_t address) const {
  return address - traps_ < kTraps * kTrapSpan ? trapped_[(address - traps_) / kTrapSpan] : 0;
}

Allocation* DeviceMemory::find(uintptr_t p) {
  auto after = allocations_.upper_bound(p);
  if (after == allocations_.begin()) return nullptr;
  Allocation& allocation = std::prev(after)->second;
  return p < allocation.end ? &allocation : nullptr;
}

std::string DeviceMemory::describe(uintptr_t p) {
  const auto named = [](const Allocation& a) {
    return fmt::format("allocation #{} ({} bytes by {}{}{})", a.number, a.bytes, a.call,
                       a.freed_by ? ", freed by " : "", a.freed_by ? a.freed_by : "");
  };
  const auto after = allocations_.upper_bound(p);
  const Allocation* const next = after == allocations_.end() ? nullptr : &after->second;
  const Allocation* const last = after == allocations_.begin() ? nullptr : &std::prev(after)->second;
  if (last && p >= last->begin && p - last->begin < std::max<size_t>(last->bytes, 1))
    return fmt::format("{} bytes into {}", p - last->begin, named(*last));
  if (last && p < last->begin) return fmt::format("{} bytes before {}", last->begin - p, named(*last));
  const auto past = [&] {
    return fmt::format("{} bytes past the end of {}", p - (last->begin + last->bytes), named(*last));
  };
  if (last && (!next || p < last->end || p - last->guard <= next->begin - p)) return past();
  if (next) return fmt::format("{} bytes before {}", next->begin - p, named(*next));
  return "there is no allocation";
}

bool DeviceMemory::slack_intact(const Allocation& a) const {
  return all_are(to_bytes(a.pages), to_bytes(a.begin), kSlack) &&
         all_are(to_bytes(a.begin + a.bytes), to_bytes(a.guard), kSlack);
}

}  // namespace espalier::emulation
