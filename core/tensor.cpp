#include "core/tensor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels.h"

namespace espalier {
namespace {

/// Strides that view x as `shape`, if there are any: each group of new axes must lie in one run of old axes whose
/// strides follow one another.
bool view_strides(const Tensor& x, const Shape& shape, Strides& strides) {
  strides = contiguous_strides(shape);
  if (x.is_contiguous()) return true;
  // Drop axes of size 1, merge runs.
  Shape sizes;
  Strides steps;
  for (int i = 0; i < x.rank(); ++i) {
    const int64_t size = x.shape()[i], step = x.strides()[i];
    if (size == 1) continue;
    const int last = sizes.rank() - 1;
    if (last >= 0 && steps[last] == step * size) {
      sizes[last] *= size;
      steps[last] = step;
    } else {
      sizes.push_back(size);
      steps.push_back(step);
    }
  }
  int run = sizes.rank() - 1;
  int64_t left = run >= 0 ? sizes[run] : 1;
  int64_t step = run >= 0 ? steps[run] : 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    if (shape[i] == 1) continue;
    if (left % shape[i] != 0) return false;
    left /= shape[i];
    step *= shape[i];
    if (left == 1 && run > 0) {
      --run;
      left = sizes[run];
      step = steps[run];
    }
  }
  return true;
}

void append_values(const Tensor& x, std::string& text) {
  constexpr int64_t kShown = 6;  // elements of a long axis that are printed
  if (x.rank() == 0) {
    text += is_floating(x.dtype()) ? fmt::format("{:.5g}", x.item()) : fmt::format("{}", x.item());
    return;
  }
  text += '[';
  const int64_t n = x.size(0);
  for (int64_t i = 0; i < n; ++i) {
    if (n > kShown && i == kShown / 2) {
      text += ", ...";
      i = n - kShown / 2;
    }
    if (i) text += ", ";
    append_values(x.select(0, i), text);
  }
  text += ']';
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  int64_t count = 1;
  for (int64_t size : shape) {
    check(size >= 0, "empty", "expected sizes of at least 0, got shape {}", shape);
    check(size == 0 || count <= std::numeric_limits<int64_t>::max() / 16 / size, "empty",
          "shape {} has more elements than memory can hold", shape);
    count *= size;
  }
  Tensor x;
  x.storage_ = std::make_shared<Storage>(static_cast<size_t>(count) * size_of(dtype), device);
  x.shape_ = shape;
  x.strides_ = contiguous_strides(shape);
  x.dtype_ = dtype;
  return x;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor x = empty(shape, dtype, device);
  x.fill_(value);
  return x;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0, dtype, device); }
Tensor Tensor::ones(const Shape& shape, DType dtype, Device device) { return full(shape, 1, dtype, device); }
Tensor Tensor::scalar(double value, DType dtype, Device device) { return full({}, value, dtype, device); }
Tensor Tensor::empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }
Tensor Tensor::zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }
Tensor Tensor::ones_like(const Tensor& x) { return ones(x.shape(), x.dtype(), x.device()); }

Tensor Tensor::arange(double start, double end, double step, DType dtype) {
  check(step != 0 && (end - start) / step >= 0, "arange", "step {} does not lead from {} to {}", step, start, end);
  const auto n = static_cast<int64_t>(std::ceil((end - start) / step));
  Tensor x = empty({n}, dtype);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* values = x.data<T>();
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(start + static_cast<double>(i) * step);
  });
  return x;
}

Tensor Tensor::eye(int64_t n, DType dtype) {
  Tensor x = zeros({n, n}, dtype);
  // A view of the diagonal: one axis whose step is a row and a column.
  x.view({n}, {n + 1}, 0).fill_(1);
  return x;
}

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "from", "expected {} values for shape {}, got {}",
        shape.numel(), shape, values.size());
  Tensor x = empty(shape, dtype_of<T>());
  std::copy(values.begin(), values.end(), x.data<T>());
  return x;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor x = to(Device::cpu()).to(dtype_of<T>()).contiguous();
  return std::vector<T>(x.data<T>(), x.data<T>() + x.numel());
}

template Tensor Tensor::from(const std::vector<float>&, const Shape&);
template Tensor Tensor::from(const std::vector<double>&, const Shape&);
template Tensor Tensor::from(const std::vector<int64_t>&, const Shape&);
template Tensor Tensor::from(const std::vector<int32_t>&, const Shape&);
template Tensor Tensor::from(const std::vector<uint8_t>&, const Shape&);
template Tensor Tensor::from(const std::vector<int8_t>&, const Shape&);
template Tensor Tensor::from(const std::vector<bool>&, const Shape&);
template std::vector<float> Tensor::to_vector() const;
template std::vector<double> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;
template std::vector<int8_t> Tensor::to_vector() const;
template std::vector<bool> Tensor::to_vector() const;

bool Tensor::is_contiguous() const {
  int64_t expected = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] == 1) continue;
    if (shape_[i] == 0) return true;
    if (strides_[i] != expected) return false;
    expected *= shape_[i];
  }
  return true;
}

double Tensor::item() const {
  require_defined("item");
  check(numel() == 1, "item", "expected a tensor of one element, got shape {}", shape_);
  if (!device().is_cpu()) return to(Device::cpu()).item();
  return dispatch(dtype_, [&](auto zero) { return static_cast<double>(*data<decltype(zero)>()); });
}

std::string Tensor::to_string() const {
  if (!defined()) return "undefined";
  std::string text;
  append_values(to(Device::cpu()), text);
  return text;
}

std::string describe(const Tensor& x) {
  if (!x.defined()) return "undefined tensor";
  return fmt::format("{} {} on {}", name_of(x.dtype()), x.shape(), x.device().name());
}

Tensor Tensor::view(const Shape& shape, const Strides& strides, int64_t offset) const {
  Tensor x = *this;
  x.shape_ = shape;
  x.strides_ = strides;
  x.offset_ = offset;
  return x;
}

Tensor Tensor::reshape(const Shape& wanted) const {
  require_defined("reshape");
  Shape shape = wanted;
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == -1) {
      check(unknown < 0, "reshape", "expected at most one size of -1, got {}", wanted);
      unknown = i;
    } else {
      check(shape[i] >= 0, "reshape", "expected sizes of at least 0, or one -1, got {}", wanted);
      known *= shape[i];
    }
  }
  if (unknown >= 0) {
    check(known > 0 && numel() % known == 0, "reshape", "{} elements of shape {} do not divide into {}", numel(),
          shape_, wanted);
    shape[unknown] = numel() / known;
  }
  check(shape.numel() == numel(), "reshape", "expected {} elements as in shape {}, got shape {}", numel(), shape_,
        wanted);
  if (numel() == 0) return view(shape, contiguous_strides(shape), offset_);
  Strides strides;
  if (view_strides(*this, shape, strides)) return view(shape, strides, offset_);
  return contiguous().reshape(shape);
}

Tensor Tensor::permute(const std::vector<int>& axes) const {
  require_defined("permute");
  check(static_cast<int>(axes.size()) == rank(), "permute", "expected {} axes for shape {}, got {}", rank(), shape_,
        axes.size());
  Shape shape;
  Strides strides;
  std::vector<bool> used(axes.size(), false);
  for (int axis : axes) {
    const int from = normalize_axis(axis, rank(), "permute");
    check(!used[static_cast<size_t>(from)], "permute", "axis {} is named twice", axis);
    used[static_cast<size_t>(from)] = true;
    shape.push_back(shape_[from]);
    strides.push_back(strides_[from]);
  }
  return view(shape, strides, offset_);
}

Tensor Tensor::transpose(int axis0, int axis1) const {
  require_defined("transpose");
  axis0 = normalize_axis(axis0, rank(), "transpose");
  axis1 = normalize_axis(axis1, rank(), "transpose");
  Tensor x = *this;
  std::swap(x.shape_[axis0], x.shape_[axis1]);
  std::swap(x.strides_[axis0], x.strides_[axis1]);
  return x;
}

Tensor Tensor::slice(int axis, int64_t start, int64_t end, int64_t step) const {
  require_defined("slice");
  axis = normalize_axis(axis, rank(), "slice");
  check(step >= 1, "slice", "expected a step of at least 1, got {}", step);
  const int64_t size = shape_[axis];
  if (start < 0) start += size;
  if (end < 0) end += size;
  start = std::clamp<int64_t>(start, 0, size);
  end = std::clamp<int64_t>(end, start, size);
  Tensor x = *this;
  x.shape_[axis] = (end - start + step - 1) / step;
  x.strides_[axis] = strides_[axis] * step;
  x.offset_ = offset_ + start * strides_[axis];
  return x;
}

Tensor Tensor::select(int axis, int64_t index) const {
  require_defined("select");
  axis = normalize_axis(axis, rank(), "select");
  const int64_t size = shape_[axis];
  check(index >= -size && index < size, "select", "index {} is outside axis {} of shape {}", index, axis, shape_);
  Tensor x = *this;
  x.offset_ = offset_ + (index < 0 ? index + size : index) * strides_[axis];
  x.shape_.erase(axis);
  x.strides_.erase(axis);
  return x;
}

Tensor Tensor::expand(const Shape& shape) const {
  require_defined("expand");
  check(shape.rank() >= rank(), "expand", "shape {} cannot be expanded to {}, which has fewer axes", shape_, shape);
  Strides strides = shape;
  const int added = shape.rank() - rank();
  for (int i = 0; i < shape.rank(); ++i) {
    const int64_t old = i < added ? 1 : shape_[i - added];
    check(old == 1 || old == shape[i], "expand", "shape {} cannot be expanded to {}: only axes of size 1 repeat",
          shape_, shape);
    strides[i] = (i < added || (old == 1 && shape[i] != 1)) ? 0 : strides_[i - added];
  }
  return view(shape, strides, offset_);
}

Tensor Tensor::squeeze(int axis) const {
  require_defined("squeeze");
  axis = normalize_axis(axis, rank(), "squeeze");
  check(shape_[axis] == 1, "squeeze", "expected axis {} to have size 1, got shape {}", axis, shape_);
  return select(axis, 0);
}

Tensor Tensor::squeeze() const {
  Tensor x = *this;
  for (int i = rank() - 1; i >= 0; --i)
    if (shape_[i] == 1) x = x.select(i, 0);
  return x;
}

Tensor Tensor::unsqueeze(int axis) const {
  require_defined("unsqueeze");
  axis = normalize_axis(axis, rank() + 1, "unsqueeze");
  Tensor x = *this;
  x.strides_.insert(axis, axis < rank() ? shape_[axis] * strides_[axis] : 1);
  x.shape_.insert(axis, 1);
  return x;
}

Tensor Tensor::flatten(int first, int last) const {
  require_defined("flatten");
  if (rank() == 0) return reshape({1});
  first = normalize_axis(first, rank(), "flatten");
  last = normalize_axis(last, rank(), "flatten");
  check(first <= last, "flatten", "expected the first axis before the last, got {} and {}", first, last);
  Shape shape;
  for (int i = 0; i < rank(); ++i) {
    if (i > first && i <= last)
      shape[first] *= shape_[i];
    else
      shape.push_back(shape_[i]);
  }
  return reshape(shape);
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  require_defined("clone");
  Tensor x = empty_like(*this);
  kernels(device()).copy(*this, x);
  return x;
}

Tensor Tensor::to(DType dtype) const {
  require_defined("to");
  if (dtype == dtype_) return *this;
  Tensor x = empty(shape_, dtype, device());
  kernels(device()).copy(*this, x);
  return x;
}

Tensor Tensor::to(Device device) const {
  require_defined("to");
  if (device == this->device()) return *this;
  const Tensor source = contiguous();
  Tensor x = empty(shape_, dtype_, device);
  device_copy(x.raw(), device, source.raw(), source.device(), source.bytes());
  return x;
}

void Tensor::fill_(double value) {
  require_defined("fill_");
  kernels(device()).fill(*this, value);
  bump_version();
}

void Tensor::copy_(const Tensor& x) {
  require_defined("copy_");
  x.require_defined("copy_");
  // A kernel's output never overlaps its input: a view of this very storage is copied first.
  const Tensor source = x.storage() == storage_ ? x.clone() : x.to(device());
  kernels(device()).copy(source.expand(shape_), *this);
  bump_version();
}

}  // namespace espalier
