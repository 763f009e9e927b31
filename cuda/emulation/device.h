// What device code may use: built-in variables, barriers, warp functions, atomics, intrinsics and vector types, with
// the meaning that the CUDA C++ Programming Guide and the CUDA Math API give them. Included by this build's
// <cuda_runtime.h>.
#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstring>
#include <type_traits>

#include "cuda/emulation/shared.h"

#define threadIdx (espalier::emulation::running.thread_index)
#define blockIdx (espalier::emulation::running.block_index)
#define blockDim (espalier::emulation::running.block_dim)
#define gridDim (espalier::emulation::running.grid_dim)
constexpr int warpSize = 32;

// Barriers. Where a call stands belongs to it: the threads of a block meet at one __syncthreads, not at two.
inline void __syncthreads(std::source_location where = std::source_location::current()) {
  espalier::emulation::block_barrier(espalier::emulation::BlockVote::none, false, where);
}
inline int __syncthreads_count(int predicate, std::source_location where = std::source_location::current()) {
  return espalier::emulation::block_barrier(espalier::emulation::BlockVote::count, predicate != 0, where);
}
inline int __syncthreads_and(int predicate, std::source_location where = std::source_location::current()) {
  return espalier::emulation::block_barrier(espalier::emulation::BlockVote::all, predicate != 0, where);
}
inline int __syncthreads_or(int predicate, std::source_location where = std::source_location::current()) {
  return espalier::emulation::block_barrier(espalier::emulation::BlockVote::any, predicate != 0, where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, std::source_location where = std::source_location::current()) {
  espalier::emulation::warp_exchange(espalier::emulation::WarpOp::sync, mask, 0, 0, where);
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_system() { std::atomic_thread_fence(std::memory_order_seq_cst); }

inline void __trap() { __builtin_trap(); }

namespace espalier::emulation {

inline unsigned lane() { return running.thread % kLanes; }

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const std::source_location& where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "a shuffle moves 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_exchange(WarpOp::shuffle, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Types that CUDA's atomic functions take; uint64_t and int64_t are other types on Linux, and no overload exists there.
template <class T>
concept AtomicInt = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;
template <class T>
concept AtomicOrdered = AtomicInt<T> || std::same_as<T, long long>;
template <class T>
concept AtomicAddable = AtomicInt<T> || std::same_as<T, float> || std::same_as<T, double>;

void check_atomic_address(const void* address, size_t bytes);

/// *address = update(*address) at once; returns what was there.
template <class T, class Update>
T atomic_update(T* address, Update update) {
  check_atomic_address(address, sizeof(T));
  std::atomic_ref<T> value(*address);
  T old = value.load(std::memory_order_relaxed);
  while (!value.compare_exchange_weak(old, update(old), std::memory_order_relaxed)) {
  }
  return old;
}
template <class T, class Update>
T atomic_update(const SharedPointer<T>& address, Update update) {
  T* const p = address.atomic();  // this block's threads take turns
  const T old = *p;
  *p = update(old);
  return old;
}

template <class Pointer>
struct AtomicTarget {};
template <class T>
struct AtomicTarget<T*> {
  using type = T;
};
template <class T>
struct AtomicTarget<SharedPointer<T>> {
  using type = T;
};
template <class Pointer>
using Target = typename AtomicTarget<Pointer>::type;

}  // namespace espalier::emulation

// Warp functions. `width` splits the warp into groups of that many lanes.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              std::source_location where = std::source_location::current()) {
  const unsigned lane = espalier::emulation::lane(), group = static_cast<unsigned>(width) - 1;
  return espalier::emulation::shuffle(mask, value, (lane & ~group) | (static_cast<unsigned>(source) & group), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 std::source_location where = std::source_location::current()) {
  const unsigned lane = espalier::emulation::lane(), group = static_cast<unsigned>(width) - 1;
  return espalier::emulation::shuffle(mask, value, (lane & group) >= delta ? lane - delta : lane, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   std::source_location where = std::source_location::current()) {
  const unsigned lane = espalier::emulation::lane(), group = static_cast<unsigned>(width) - 1;
  return espalier::emulation::shuffle(mask, value, (lane & group) + delta <= group ? lane + delta : lane, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  std::source_location where = std::source_location::current()) {
  const unsigned lane = espalier::emulation::lane(), group = static_cast<unsigned>(width) - 1;
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  return espalier::emulation::shuffle(mask, value, source <= (lane | group) ? source : lane, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              std::source_location where = std::source_location::current()) {
  using namespace espalier::emulation;
  return static_cast<unsigned>(warp_exchange(WarpOp::vote, mask, predicate != 0, 0, where));
}
inline int __any_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

// Atomics, on device memory and on &element of a shared array.
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicAddable<T> T atomicAdd(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return static_cast<T>(old + value); });
}
template <class P, class T = espalier::emulation::Target<P>>
requires(std::same_as<T, int> || std::same_as<T, unsigned>) T atomicSub(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return static_cast<T>(old - value); });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicOrdered<T> T atomicMax(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return old < value ? value : old; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicOrdered<T> T atomicMin(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return value < old ? value : old; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicInt<T> T atomicAnd(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return old & value; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicInt<T> T atomicOr(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return old | value; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicInt<T> T atomicXor(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T old) { return old ^ value; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires(espalier::emulation::AtomicInt<T> || std::same_as<T, float>) T
    atomicExch(P address, std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [value](T) { return value; });
}
template <class P, class T = espalier::emulation::Target<P>>
requires espalier::emulation::AtomicInt<T> T atomicCAS(P address, std::type_identity_t<T> compare,
                                                       std::type_identity_t<T> value) {
  return espalier::emulation::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

#include "cuda/emulation/device_math.h"
