// Shared memory in which every access is followed: bounds, elements that nothing has been written to, and accesses of
// different threads that no barrier separates. The race detector keeps, for four bytes each, who wrote last and who has
// read since; a block's barrier orders all, an exchange within a warp orders its lanes.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda/emulation/block.h"

namespace espalier::emulation {

/// Who accessed an element since the last barrier: several lanes of one warp, or threads of several warps.
struct Stamp {
  uint32_t epoch = 0, time = 0, lanes = 0;
  uint16_t warp = 0;
  bool several_warps = false, atomic = false;
};
struct Cell {
  Stamp write, read;
};

enum class SharedAccess { read, write, atomic };

/// The cells from this address on: one for every four bytes, or one for each byte where elements are smaller than four.
Cell* cells_of(const void* shared, size_t element_bytes);

[[noreturn]] void shared_out_of_bounds(const char* name, int64_t index, int64_t count);
[[noreturn]] void shared_uninitialised(const char* name, int64_t index);
[[noreturn]] void shared_race(const char* name, int64_t index, SharedAccess access, const Stamp& earlier,
                              bool was_read);

/// Whether an access in `s` may be at the same time as one of the running thread.
inline bool unordered(const Stamp& s) {
  const Running& r = running;
  if (s.epoch != r.epoch) return false;
  if (s.several_warps || s.warp != r.warp) return true;
  uint32_t others = s.lanes & ~r.lane_bit;
  if (others == 0 || r.clock->full > s.time) return false;
  if (!r.clock->partial) return true;
  for (; others != 0; others &= others - 1)
    if (r.clock->known[std::countr_zero(r.lane_bit)][std::countr_zero(others)] <= s.time) return true;
  return false;
}

/// Adds the running thread to s.
inline void note(Stamp& s) {
  const Running& r = running;
  const uint32_t time = r.clock->time;
  if (s.epoch != r.epoch || (s.warp == r.warp && !s.several_warps && r.clock->full > s.time)) {
    s = {r.epoch, time, r.lane_bit, static_cast<uint16_t>(r.warp)};
  } else if (s.warp != r.warp) {
    s.several_warps = true;
  } else {
    s.lanes |= r.lane_bit;
    s.time = time;
  }
}

inline void follow(Cell& cell, SharedAccess access, const char* name, int64_t index) {
  const Running& r = running;
  if (access != SharedAccess::write && cell.write.epoch < r.first_epoch) shared_uninitialised(name, index);
  const bool both_atomic = access == SharedAccess::atomic && cell.write.atomic;
  if (!both_atomic && unordered(cell.write)) shared_race(name, index, access, cell.write, false);
  if (access == SharedAccess::read) return note(cell.read);
  if (unordered(cell.read)) shared_race(name, index, access, cell.read, true);
  if (access == SharedAccess::write) {
    cell.write = {r.epoch, r.clock->time, r.lane_bit, static_cast<uint16_t>(r.warp)};
  } else {
    // This thread's own plain write stays what other threads' atomics must not meet.
    const bool plain = !cell.write.atomic && cell.write.epoch == r.epoch && r.clock->full <= cell.write.time;
    note(cell.write);
    cell.write.atomic = !plain;
  }
}

template <class T>
class SharedReference;
template <class T>
class SharedPointer;

/// What SHARED_ARRAY and DYNAMIC_SHARED_ARRAY declare: stands for a T*.
template <class T>
class SharedArray {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) % 4 == 0 || sizeof(T) < 4));

 public:
  SharedArray(T* data, int64_t count, const char* name)
      : data_(data), cells_(cells_of(data, sizeof(T))), count_(count), name_(name) {}

  template <std::integral Index>
  SharedReference<T> operator[](Index i) const {
    return SharedReference<T>(*this, static_cast<int64_t>(i));
  }
  SharedReference<T> operator*() const { return (*this)[0]; }
  /// The rest of the array from element i.
  template <std::integral Index>
  SharedArray operator+(Index i) const {
    SharedArray rest = *this;
    rest.first_ += static_cast<int64_t>(i);
    return rest;
  }

 private:
  friend class SharedReference<T>;
  friend class SharedPointer<T>;

  T* element(int64_t i, SharedAccess access) const {
    i += first_;
    if (static_cast<uint64_t>(i) >= static_cast<uint64_t>(count_)) shared_out_of_bounds(name_, i, count_);
    if constexpr (sizeof(T) < 4) {
      follow(cells_[i * int64_t{sizeof(T)}], access, name_, i);
    } else {
      constexpr int64_t kCells = sizeof(T) / 4;
      for (int64_t k = 0; k < kCells; ++k) follow(cells_[i * kCells + k], access, name_, i);
    }
    return data_ + i;
  }

  T* data_;
  Cell* cells_;
  int64_t count_, first_ = 0;
  const char* name_;
};

/// An element's address, for the atomic functions.
template <class T>
class SharedPointer {
 public:
  SharedPointer(const SharedArray<T>& array, int64_t i) : array_(array), i_(i) {}
  T* atomic() const { return array_.element(i_, SharedAccess::atomic); }

 private:
  SharedArray<T> array_;
  int64_t i_;
};

/// An element: reads on conversion, writes on assignment.
template <class T>
class SharedReference {
 public:
  SharedReference(const SharedArray<T>& array, int64_t i) : array_(array), i_(i) {}
  SharedReference(const SharedReference&) = default;

  operator T() const { return *array_.element(i_, SharedAccess::read); }
  T operator=(const T& value) const { return *array_.element(i_, SharedAccess::write) = value; }
  T operator=(const SharedReference& other) const { return *this = static_cast<T>(other); }
  T operator+=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) + v); }
  T operator-=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) - v); }
  T operator*=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) * v); }
  T operator|=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) | v); }
  T operator&=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) & v); }
  T operator^=(const T& v) const { return *this = static_cast<T>(static_cast<T>(*this) ^ v); }
  T operator++() const { return *this += T{1}; }
  T operator--() const { return *this -= T{1}; }
  SharedPointer<T> operator&() const { return {array_, i_}; }

 private:
  SharedArray<T> array_;
  int64_t i_;
};

}  // namespace espalier::emulation
