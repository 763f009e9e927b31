#include "core/shape.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace espalier {

void Shape::insert(int position, int64_t dim) {
  push_back(0);
  std::copy_backward(dims_ + position, dims_ + rank_ - 1, dims_ + rank_);
  dims_[position] = dim;
}

void Shape::erase(int position) {
  std::copy(dims_ + position + 1, dims_ + rank_, dims_ + position);
  --rank_;
}

std::string Shape::to_string() const { return fmt::format("({})", fmt::join(begin(), end(), ",")); }

bool Shape::operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

Strides contiguous_strides(const Shape& shape) {
  Strides strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

int normalize_axis(int axis, int rank, const char* operation) {
  check(axis >= -rank && axis < rank, operation, "expected an axis from {} to {} for a tensor of rank {}, got {}",
        -rank, rank - 1, rank, axis);
  return axis < 0 ? axis + rank : axis;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, const char* operation) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape result = longer;
  const int offset = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    int64_t& size = result[offset + i];
    if (size == shorter[i] || shorter[i] == 1) continue;
    check(size == 1, operation,
          "expected shapes that broadcast (sizes equal or 1, aligned at the last axis), got {} and {}", a, b);
    size = shorter[i];
  }
  return result;
}

}  // namespace espalier
