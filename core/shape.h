// Shapes: up to eight sizes held inline, so that making a view allocates nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/error.h"

namespace espalier {

constexpr int kMaxRank = 8;

/// A short list of sizes or strides. Shape{} is the shape of a scalar (rank 0, one element).
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(dims.begin(), dims.end()) {}
  explicit Shape(const std::vector<int64_t>& dims) : Shape(dims.begin(), dims.end()) {}
  template <class It>
  Shape(It first, It last) {
    for (; first != last; ++first) push_back(*first);
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  int64_t back() const { return dims_[rank_ - 1]; }

  void push_back(int64_t dim) {
    check(rank_ < kMaxRank, "shape", "expected at most {} axes, got more", kMaxRank);
    dims_[rank_++] = dim;
  }
  void insert(int position, int64_t dim);
  void erase(int position);

  /// Product of the sizes.
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : *this) n *= d;
    return n;
  }

  /// "(2,3,4)"
  std::string to_string() const;

  bool operator==(const Shape& other) const;

 private:
  int64_t dims_[kMaxRank] = {};
  int rank_ = 0;
};

using Strides = Shape;

/// Row-major strides of a shape.
Strides contiguous_strides(const Shape& shape);

/// Maps a negative axis from the end and checks it: normalize_axis(-1, 4, "sum") == 3.
int normalize_axis(int axis, int rank, const char* operation);

/// NumPy's broadcast of two shapes: trailing axes are aligned, sizes agree or one of them is 1.
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* operation);

}  // namespace espalier

template <>
struct fmt::formatter<espalier::Shape> : fmt::formatter<std::string> {
  template <class Context>
  auto format(const espalier::Shape& shape, Context& context) const {
    return fmt::formatter<std::string>::format(shape.to_string(), context);
  }
};
