// A checksum for telling contents apart: fast, the same in every process, no protection against malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace espalier {

/// FNV-like, over 8 bytes at a time; never 0. `hash`: the checksum of what comes before.
inline uint64_t checksum(const void* data, size_t bytes, uint64_t hash = 0xCBF29CE484222325u) {
  constexpr uint64_t kPrime = 0x9E3779B97F4A7C15u;
  const char* at = static_cast<const char*>(data);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 29;
  }
  uint64_t rest = 0;
  if (bytes > 0) std::memcpy(&rest, at, bytes);
  hash = (hash ^ rest ^ bytes) * kPrime;
  return (hash ^ (hash >> 32)) | 1;
}

}  // namespace espalier
