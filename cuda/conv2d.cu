// 2-D convolution and its gradients by cuDNN, but for the weight gradients of small ones.
//
// cuDNN needs descriptors of the tensors and of the convolution, an algorithm, and the temporary memory that the
// algorithm asks for. These make a plan, which is kept: by operation, shapes, dtype, precision and device. Algorithms
// are taken in the order of cuDNN's own heuristics, but for what measurements have shown to be faster (below); without
// trying them out, since a choice by timing would change from run to run; and only those whose sums have a fixed order,
// so that the same inputs give the same bits.

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <mutex>
#include <optional>

#include "core/precision.h"
#include "cuda/dnn.h"
#include "cuda/launch.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

using ConvolutionDescriptor =
    Descriptor<cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor, cudnnDestroyConvolutionDescriptor>;

enum class Pass { forward, input_grad, weight_grad };

struct Plan {
  TensorDescriptor x, y, bias;  // (N,C,H,W), (N,F,OH,OW), (1,F,1,1)
  FilterDescriptor w;           // (F,C/groups,KH,KW)
  ConvolutionDescriptor convolution;
  int algorithm = 0;  // of the pass
  size_t workspace = 0;
};

constexpr size_t kMostWorkspace = size_t{1} << 30;  // bytes that a faster algorithm may cost

/// FMA: products in f32, nothing less. Default: cuDNN may round factors to TF32 for the tensor cores.
cudnnMathType_t math_type(DType dtype) {
  return dtype == DType::f32 && matmul_precision() == MatmulPrecision::f32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH;
}

/// Where cuDNN's heuristics are wrong. On an H200 with cuDNN 9.19, 3 x 3 convolutions in f32 take half of the time or
/// less by Winograd's algorithm, which they put last, once there are a thousand million multiply-adds to do (VGG-16 at
/// batch 128); and small ones are forward fastest by the algorithm that needs no kernel before it.
enum class Kind { small, winograd, other };

Kind kind_of(const Tensor& w, const Tensor& y, const Conv2dShape& s) {
  const bool is_large = y.numel() * w.numel() / std::max<int64_t>(w.size(0), 1) >= 1'000'000'000;
  if (s.groups != 1) return Kind::other;
  if (!is_large) return Kind::small;
  return math_type(w.dtype()) == CUDNN_FMA_MATH ? Kind::winograd : Kind::other;
}

/// Takes the first of the algorithms that query(most, &count, results) lists that will do, `preferred` before the
/// others if it is among them; workspace(algorithm, &bytes) tells what it needs. Where none of them will, `known`,
/// which has a fixed order and supports the most shapes.
template <class Performance, class Query, class Workspace>
void choose_algorithm(Plan& plan, const char* operation, std::optional<decltype(Performance::algo)> preferred,
                      decltype(Performance::algo) known, Query&& query, Workspace&& workspace) {
  std::array<Performance, 16> found;
  int count = 0;
  check(query(static_cast<int>(found.size()), &count, found.data()), "choosing a convolution algorithm");
  std::stable_partition(found.begin(), found.begin() + count,
                        [&](const Performance& candidate) { return candidate.algo == preferred; });
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const Performance& candidate = found[i];
    if (candidate.status != CUDNN_STATUS_SUCCESS || candidate.determinism != CUDNN_DETERMINISTIC) continue;
    size_t bytes = 0;
    if (workspace(candidate.algo, &bytes) != CUDNN_STATUS_SUCCESS || bytes > kMostWorkspace) continue;
    plan.algorithm = candidate.algo;
    plan.workspace = bytes;
    return;
  }
  plan.algorithm = known;
  if (workspace(known, &plan.workspace) != CUDNN_STATUS_SUCCESS || plan.workspace > kMostWorkspace)
    fail<Error>(operation, "cuDNN has no deterministic algorithm for this shape with at most {} bytes of workspace",
                kMostWorkspace);
}

void make_plan(Context& context, Pass pass, const char* operation, const Tensor& x, const Tensor& w, const Tensor& y,
               const Conv2dShape& s, Plan& plan) {
  set(plan.x, x.dtype(), x.shape(), operation);
  set(plan.y, y.dtype(), y.shape(), operation);
  set(plan.bias, y.dtype(), {1, y.size(1), 1, 1}, operation);
  set(plan.w, w.dtype(), w.shape(), operation);
  const ConvolutionDescriptor& c = plan.convolution;
  check(cudnnSetConvolution2dDescriptor(c, dnn_int(s.padding_h, operation), dnn_int(s.padding_w, operation),
                                        dnn_int(s.stride_h, operation), dnn_int(s.stride_w, operation),
                                        dnn_int(s.dilation_h, operation), dnn_int(s.dilation_w, operation),
                                        CUDNN_CROSS_CORRELATION, dnn_type(x.dtype())),
        "cudnnSetConvolution2dDescriptor");
  check(cudnnSetConvolutionGroupCount(c, dnn_int(s.groups, operation)), "cudnnSetConvolutionGroupCount");
  check(cudnnSetConvolutionMathType(c, math_type(x.dtype())), "cudnnSetConvolutionMathType");

  const cudnnHandle_t dnn = context.dnn();
  const Kind kind = kind_of(w, y, s);
  const auto when = [&](Kind wanted, auto algorithm) {
    return kind == wanted ? std::optional(algorithm) : std::nullopt;
  };
  switch (pass) {
    case Pass::forward:
      choose_algorithm<cudnnConvolutionFwdAlgoPerf_t>(
          plan, operation,
          kind == Kind::small ? CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM
                              : when(Kind::winograd, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED),
          CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
          [&](auto... results) {
            return cudnnGetConvolutionForwardAlgorithm_v7(dnn, plan.x, plan.w, c, plan.y, results...);
          },
          [&](auto algorithm, size_t* bytes) {
            return cudnnGetConvolutionForwardWorkspaceSize(dnn, plan.x, plan.w, c, plan.y, algorithm, bytes);
          });
      break;
    case Pass::input_grad:
      choose_algorithm<cudnnConvolutionBwdDataAlgoPerf_t>(
          plan, operation, when(Kind::winograd, CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED),
          CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
          [&](auto... results) {
            return cudnnGetConvolutionBackwardDataAlgorithm_v7(dnn, plan.w, plan.y, c, plan.x, results...);
          },
          [&](auto algorithm, size_t* bytes) {
            return cudnnGetConvolutionBackwardDataWorkspaceSize(dnn, plan.w, plan.y, c, plan.x, algorithm, bytes);
          });
      break;
    case Pass::weight_grad:
      choose_algorithm<cudnnConvolutionBwdFilterAlgoPerf_t>(
          plan, operation, when(Kind::winograd, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED),
          CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
          [&](auto... results) {
            return cudnnGetConvolutionBackwardFilterAlgorithm_v7(dnn, plan.x, plan.y, c, plan.w, results...);
          },
          [&](auto algorithm, size_t* bytes) {
            return cudnnGetConvolutionBackwardFilterWorkspaceSize(dnn, plan.x, plan.y, c, plan.w, algorithm, bytes);
          });
      break;
  }
}

const Plan& plan_for(Context& context, Pass pass, const char* operation, const Tensor& x, const Tensor& w,
                     const Tensor& y, const Conv2dShape& s) {
  using Key = std::array<int64_t, 18>;
  static std::mutex mutex;
  static auto& plans = *new std::map<Key, Plan>;  // never destroyed, as the library may be gone by then
  const Key key{static_cast<int64_t>(pass),
                context.device().index(),
                static_cast<int64_t>(x.dtype()),
                math_type(x.dtype()),
                x.size(0),
                x.size(1),
                x.size(2),
                x.size(3),
                w.size(0),
                w.size(1),
                w.size(2),
                w.size(3),
                s.stride_h,
                s.stride_w,
                s.padding_h,
                s.padding_w,
                s.dilation_h,
                s.dilation_w};  // the shapes give the number of groups
  std::lock_guard lock(mutex);
  const auto [at, is_new] = plans.try_emplace(key);
  if (is_new) {
    try {
      make_plan(context, pass, operation, x, w, y, s, at->second);
    } catch (...) {
      plans.erase(at);
      throw;
    }
  }
  return at->second;
}

constexpr int kThreads = 128;

/// columns (N,C*KH*KW,OH*OW): below each output the inputs that it is made of, 0 where they are padding. A block takes
/// one plane of x after the other; neighbouring threads take neighbouring outputs.
template <class T>
__global__ void unfold_kernel(const T* x, int planes, int height, int width, int kernel_h, int kernel_w, int out_h,
                              int out_w, Conv2dShape s, T* columns) {
  const int stride_h = static_cast<int>(s.stride_h), stride_w = static_cast<int>(s.stride_w);
  const int dilation_h = static_cast<int>(s.dilation_h), dilation_w = static_cast<int>(s.dilation_w);
  const int outputs = out_h * out_w;
  for (int plane = static_cast<int>(blockIdx.x); plane < planes; plane += static_cast<int>(gridDim.x)) {
    const T* const from = x + int64_t{plane} * height * width;
    T* const to = columns + int64_t{plane} * kernel_h * kernel_w * outputs;
    for (int i = static_cast<int>(threadIdx.x); i < outputs; i += static_cast<int>(blockDim.x)) {
      const int top = i / out_w * stride_h - static_cast<int>(s.padding_h);
      const int left = i % out_w * stride_w - static_cast<int>(s.padding_w);
      for (int kh = 0; kh < kernel_h; ++kh) {
        const int h = top + kh * dilation_h;
        for (int kw = 0; kw < kernel_w; ++kw) {
          const int w = left + kw * dilation_w;
          const bool inside = h >= 0 && h < height && w >= 0 && w < width;
          to[(kh * kernel_w + kw) * outputs + i] = inside ? from[h * width + w] : T{0};
        }
      }
    }
  }
}

/// The weight gradient of a small convolution: each image's dy (F,OH*OW) times its columns, then the sum over images.
/// cuDNN's algorithms whose sums have a fixed order take two to ten times as long here (ResNet-20 at batch 128, H200).
/// Returns false where that takes much memory.
bool weight_grad_by_products(Context& context, const Tensor& dy, const Tensor& x, const Conv2dShape& shape,
                             Tensor& dw) {
  constexpr int64_t kMost = int64_t{256} << 20;  // bytes
  const int64_t n = x.size(0), f = dw.size(0), taps = dw.numel() / f, outputs = dy.size(2) * dy.size(3);
  if (n * taps * (outputs + f) * static_cast<int64_t>(size_of(x.dtype())) > kMost ||
      x.numel() > std::numeric_limits<int>::max())
    return false;
  const Tensor columns = Tensor::empty({n, taps, outputs}, x.dtype(), x.device());
  dispatch_floating(x.dtype(), "conv2d_weight_grad", [&]<class T>(T) {
    launch(context, {"conv2d.unfold", blocks_for(context, n * x.size(1) * kThreads, kThreads), kThreads},
           unfold_kernel<T>, x.data<T>(), n * x.size(1), x.size(2), x.size(3), dw.size(2), dw.size(3), dy.size(2),
           dy.size(3), shape, columns.data<T>());
  });
  Tensor products = Tensor::empty({n, f, taps}, x.dtype(), x.device()), sum = dw.reshape({1, f, taps});
  cuda::matmul(dy.reshape({n, f, outputs}), columns.transpose(1, 2), false, products);
  cuda::reduce(ReduceOp::sum, products, {true, false, false}, sum);
  return true;
}

}  // namespace

void conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dShape& shape, Tensor& y) {
  if (y.numel() == 0) return;
  if (x.numel() == 0) {  // no input channels
    if (!bias.defined()) return cuda::fill(y, 0);
    return cuda::copy(bias.reshape({1, y.size(1), 1, 1}).expand(y.shape()), y);
  }
  Context& context = Context::of(y.device());
  dispatch_floating(x.dtype(), "conv2d", [&]<class T>(T) {
    const T one = 1, zero = 0;
    const Plan& plan = plan_for(context, Pass::forward, "conv2d", x, w, y, shape);
    const Scratch workspace(context, plan.workspace);
    check(cudnnConvolutionForward(context.dnn(), &one, plan.x, x.data<T>(), plan.w, w.data<T>(), plan.convolution,
                                  static_cast<cudnnConvolutionFwdAlgo_t>(plan.algorithm), workspace.data(),
                                  plan.workspace, &zero, plan.y, y.data<T>()),
          "cudnnConvolutionForward");
    if (bias.defined())
      check(cudnnAddTensor(context.dnn(), &one, plan.bias, bias.data<T>(), &one, plan.y, y.data<T>()),
            "cudnnAddTensor");
  });
}

void conv2d_input_grad(const Tensor& dy, const Tensor& w, const Conv2dShape& shape, Tensor& dx) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) return cuda::fill(dx, 0);  // no output channels
  Context& context = Context::of(dx.device());
  dispatch_floating(dy.dtype(), "conv2d_input_grad", [&]<class T>(T) {
    const T one = 1, zero = 0;
    const Plan& plan = plan_for(context, Pass::input_grad, "conv2d_input_grad", dx, w, dy, shape);
    const Scratch workspace(context, plan.workspace);
    check(cudnnConvolutionBackwardData(context.dnn(), &one, plan.w, w.data<T>(), plan.y, dy.data<T>(), plan.convolution,
                                       static_cast<cudnnConvolutionBwdDataAlgo_t>(plan.algorithm), workspace.data(),
                                       plan.workspace, &zero, plan.x, dx.data<T>()),
          "cudnnConvolutionBackwardData");
  });
}

void conv2d_weight_grad(const Tensor& dy, const Tensor& x, const Conv2dShape& shape, Tensor& dw) {
  if (dw.numel() == 0) return;
  if (dy.numel() == 0 || x.numel() == 0) return cuda::fill(dw, 0);  // an empty batch
  Context& context = Context::of(dw.device());
  if (kind_of(dw, dy, shape) == Kind::small && weight_grad_by_products(context, dy, x, shape, dw)) return;
  dispatch_floating(dy.dtype(), "conv2d_weight_grad", [&]<class T>(T) {
    const T one = 1, zero = 0;
    const Plan& plan = plan_for(context, Pass::weight_grad, "conv2d_weight_grad", x, dw, dy, shape);
    const Scratch workspace(context, plan.workspace);
    check(cudnnConvolutionBackwardFilter(context.dnn(), &one, plan.x, x.data<T>(), plan.y, dy.data<T>(),
                                         plan.convolution, static_cast<cudnnConvolutionBwdFilterAlgo_t>(plan.algorithm),
                                         workspace.data(), plan.workspace, &zero, plan.w, dw.data<T>()),
          "cudnnConvolutionBackwardFilter");
  });
}

}  // namespace espalier::cuda
