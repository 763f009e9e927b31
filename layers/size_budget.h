// SizeBudget: how much memory the parameters of a network may take, checked before they take it.
#pragma once

#include <cstdint>
#include <string>

#include "core/shape.h"

namespace espalier {

/// While alive, what this thread builds may take so many bytes of parameters and buffers all together; for networks
/// whose sizes a file claims. Without one, each tensor may take what this machine has.
class SizeBudget {
 public:
  /// `advice` ends the message: whose limit it is and what to do.
  SizeBudget(uint64_t bytes, std::string advice);
  ~SizeBudget();
  SizeBudget(const SizeBudget&) = delete;
  SizeBudget& operator=(const SizeBudget&) = delete;

  /// What an f32 tensor of that many elements counts for: its values, and something for having one more tensor.
  static uint64_t bytes_of(int64_t elements);
  /// Throws ArgumentError, saying how many bytes `what` would take, when they are more than is left.
  static void check_fits(const char* operation, const std::string& what, double bytes);
  /// Takes a tensor's bytes out of the budget. Throws when a size is not positive or they are more than is left.
  static void claim(const char* operation, const Shape& shape);

 private:
  double left_;
  std::string advice_;
  SizeBudget* outer_;
};

}  // namespace espalier
