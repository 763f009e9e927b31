// What the tests of CUDA kernels share: each calls a kernel on the device and its CPU counterpart on tensors of the
// same shapes, strides and values, and compares.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "tests/core/strided_testing.h"

namespace espalier::testing {

inline Device device() { return Device::cuda(); }
inline const Kernels& cuda() { return kernels(device()); }

/// x on the device with the same strides and offset: a kernel must see the view that the CPU sees. Works for what
/// slices with steps, permutations and expansions make of a contiguous tensor.
inline Tensor to_device(const Tensor& x) {
  if (x.numel() == 0) return Tensor::empty(x.shape(), x.dtype(), device());
  // The axes that move through memory, the longest stride first.
  std::vector<int> axes;
  for (int i = 0; i < x.rank(); ++i)
    if (x.size(i) > 1 && x.stride(i) != 0) axes.push_back(i);
  std::stable_sort(axes.begin(), axes.end(), [&](int a, int b) { return x.stride(a) > x.stride(b); });
  // A flat tensor is reshaped so that axis k of the view steps by its stride, then cut to the view's sizes.
  Shape dims;
  for (size_t k = 0; k < axes.size(); ++k) {
    const int64_t stride = x.stride(axes[k]);
    if (k == 0) {
      dims.push_back(x.size(axes[0]));
    } else {
      const int64_t outer = x.stride(axes[k - 1]);
      check(outer % stride == 0 && outer / stride >= x.size(axes[k]), "to_device", "a view of strides {} is no slice",
            x.strides());
      dims.push_back(outer / stride);
    }
  }
  dims.push_back(axes.empty() ? 1 : x.stride(axes.back()));
  Tensor view = Tensor::empty({x.offset() + dims.numel()}, x.dtype(), device());
  view = view.slice(0, x.offset(), x.offset() + dims.numel()).reshape(dims);
  for (size_t k = 0; k < axes.size(); ++k) view = view.slice(static_cast<int>(k), 0, x.size(axes[k]));
  view = view.select(static_cast<int>(axes.size()), 0);
  // Back to x's order of axes; those of size 1 or stride 0 join in front.
  const int repeated = x.rank() - static_cast<int>(axes.size());
  for (int i = 0; i < repeated; ++i) view = view.unsqueeze(0);
  std::vector<int> from;
  int still = 0;
  for (int i = 0; i < x.rank(); ++i) {
    const auto at = std::find(axes.begin(), axes.end(), i);
    from.push_back(at == axes.end() ? still++ : repeated + static_cast<int>(at - axes.begin()));
  }
  view = view.permute(from);
  Tensor values = x;
  for (int i = 0; i < x.rank(); ++i)
    if (x.stride(i) == 0) values = values.slice(i, 0, 1);
  view.copy_(values);
  return view.expand(x.shape());
}

/// One call of a kernel. Tensors are on the CPU; views are moved as they are.
struct Call {
  std::vector<Tensor> inputs = {};
  std::vector<Tensor> outputs = {};
  double absolute = 0, relative = 0;  ///< tolerance for floating-point outputs; integers and bools agree exactly
  bool accumulates = false;           ///< outputs keep their values; else they are filled with NaN before each call
  std::string what = "";
};

inline void expect_equal(const Tensor& got, const Tensor& expected, double absolute, double relative,
                         const std::string& what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  ASSERT_EQ(got.dtype(), expected.dtype()) << what;
  if (is_floating(got.dtype())) return expect_close(got, expected.to_vector<double>(), absolute, relative, what);
  const auto values = got.to_vector<int64_t>(), wanted = expected.to_vector<int64_t>();
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], wanted[i]) << what << ": element " << i;
}

/// Runs the call on the device and on the CPU and compares all outputs.
inline void expect_same(
    const Call& call,
    const std::function<void(const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out)>& run) {
  std::vector<Tensor> in, out, expected;
  for (const Tensor& x : call.inputs) in.push_back(x.defined() ? to_device(x) : x);
  for (Tensor x : call.outputs) {
    if (!call.accumulates) x.fill_(std::numeric_limits<double>::quiet_NaN());
    out.push_back(to_device(x));
    expected.push_back(x);
  }
  run(cpu(), call.inputs, expected);
  run(cuda(), in, out);
  for (size_t i = 0; i < out.size(); ++i)
    expect_equal(out[i], expected[i], call.absolute, call.relative, call.what + ", output " + std::to_string(i));
}

}  // namespace espalier::testing
