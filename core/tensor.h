// Tensor: a value handle on shared storage, with shape, strides and type. It knows nothing of gradients.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "core/storage.h"

namespace espalier {

/// An n-dimensional array. Copying a Tensor shares its storage; clone() copies the elements.
/// Views (reshape, permute, slice, expand, ...) share storage too. Axes may be negative (from the end).
class Tensor {
 public:
  /// An undefined tensor: defined() is false.
  Tensor() = default;

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor scalar(double value, DType dtype = DType::f32, Device device = Device::cpu());
  /// start, start + step, ... up to but without end.
  static Tensor arange(double start, double end, double step = 1, DType dtype = DType::i64);
  static Tensor eye(int64_t n, DType dtype = DType::f32);
  static Tensor empty_like(const Tensor& x);
  static Tensor zeros_like(const Tensor& x);
  static Tensor ones_like(const Tensor& x);
  /// Copies the values in row-major order; their number must be shape.numel().
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Strides& strides() const { return strides_; }
  int rank() const { return shape_.rank(); }
  int64_t size(int axis) const { return shape_[normalize_axis(axis, rank(), "size")]; }
  int64_t stride(int axis) const { return strides_[normalize_axis(axis, rank(), "stride")]; }
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device::cpu(); }
  int64_t offset() const { return offset_; }  ///< in elements
  bool is_contiguous() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  /// Pointer to the first element. Throws when T is not the dtype. On a GPU it is a device pointer.
  template <class T>
  T* data() const;
  /// Pointer to the first element without a type check.
  void* raw() const {
    return storage_ ? static_cast<char*>(storage_->data()) + static_cast<size_t>(offset_) * size_of(dtype_) : nullptr;
  }

  /// The value of a one-element tensor.
  double item() const;
  /// All values in row-major order, converted to T.
  template <class T>
  std::vector<T> to_vector() const;
  /// "[[1, 2], [3, 4]]", long axes shortened.
  std::string to_string() const;

  // Views: no copy. reshape copies when the strides leave no other way; one size may be -1.
  Tensor reshape(const Shape& shape) const;
  Tensor permute(const std::vector<int>& axes) const;
  Tensor transpose(int axis0, int axis1) const;
  /// Elements start, start+step, ... < end of an axis; negative bounds count from the end, end is clipped.
  Tensor slice(int axis, int64_t start, int64_t end, int64_t step = 1) const;
  /// One index of an axis; the axis goes away.
  Tensor select(int axis, int64_t index) const;
  /// Repeats axes of size 1 (stride 0); new axes are added in front.
  Tensor expand(const Shape& shape) const;
  Tensor squeeze(int axis) const;
  Tensor squeeze() const;
  Tensor unsqueeze(int axis) const;
  /// Joins the axes first..last into one.
  Tensor flatten(int first = 0, int last = -1) const;

  /// This tensor if contiguous, else a contiguous copy.
  Tensor contiguous() const;
  Tensor clone() const;
  Tensor to(DType dtype) const;
  Tensor to(Device device) const;

  // In place: they count a new version of the storage.
  void fill_(double value);
  void zero_() { fill_(0); }
  /// Copies x, broadcast to this shape and converted to this dtype; devices may differ.
  void copy_(const Tensor& x);
  uint64_t version() const { return storage_ ? storage_->version() : 0; }
  void bump_version() const {
    if (storage_) storage_->bump_version();
  }

 private:
  Tensor view(const Shape& shape, const Strides& strides, int64_t offset) const;
  void require_defined(const char* operation) const {
    check(defined(), operation, "expected a tensor, got an undefined one");
  }

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  Strides strides_;
  int64_t offset_ = 0;
  DType dtype_ = DType::f32;
};

/// "f32 (2,3) on cpu"
std::string describe(const Tensor& x);

template <class T>
T* Tensor::data() const {
  require_defined("data");
  check(dtype_of<T>() == dtype_, "data", "expected {} elements, the tensor holds {}", name_of(dtype_of<T>()),
        name_of(dtype_));
  return static_cast<T*>(raw());
}

}  // namespace espalier
