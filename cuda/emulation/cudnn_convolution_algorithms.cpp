// Which convolution algorithms cuDNN has, what each of them takes, and how a caller chooses one. The results of all of
// them are the same to rounding; what differs is what the documentation says of them: support, determinism, workspace.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/emulation/cudnn_convolution.h"

namespace espalier::emulation {
namespace {

/// The algorithms of the three passes are few methods.
enum class Method { none, gemm, precomputed, explicit_gemm, fft, fft_tiling, winograd, winograd_nonfused };

Method method_of(Pass pass, int id) {
  static constexpr Method kForward[] = {
      Method::gemm, Method::precomputed, Method::explicit_gemm, Method::none,
      Method::fft,  Method::fft_tiling,  Method::winograd,      Method::winograd_nonfused};
  static constexpr Method kData[] = {Method::gemm,       Method::precomputed, Method::fft,
                                     Method::fft_tiling, Method::winograd,    Method::winograd_nonfused};
  static constexpr Method kFilter[] = {Method::gemm,          Method::precomputed, Method::fft,
                                       Method::explicit_gemm, Method::none,        Method::winograd_nonfused,
                                       Method::fft_tiling};
  const auto pick = [id](const auto& methods) {
    return id >= 0 && id < static_cast<int>(std::size(methods)) ? methods[id] : Method::none;
  };
  return pass == Pass::forward ? pick(kForward) : pass == Pass::backward_data ? pick(kData) : pick(kFilter);
}

/// Output (N,K,P,Q) sizes along one axis.
int64_t output_size(int64_t in, int64_t filter, int pad, int stride, int dilation) {
  const int64_t room = in + 2 * int64_t{pad} - ((filter - 1) * dilation + 1);
  return room < 0 ? 0 : room / stride + 1;
}

}  // namespace

cudnnStatus_t describe(const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                       const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y, Convolution& out) {
  if (!x || !w || !convolution || !y || x->rank != y->rank) return CUDNN_STATUS_BAD_PARAM;
  if (x->type != w->type || x->type != y->type) return CUDNN_STATUS_BAD_PARAM;
  if (!supported(*x) || !supported(*y) || w->format != CUDNN_TENSOR_NCHW) return CUDNN_STATUS_NOT_SUPPORTED;
  const Layout from(*x), to(*y);
  out = {from.n,
         from.c,
         from.h,
         from.w,
         w->dims[0],
         w->dims[2],
         w->dims[3],
         to.h,
         to.w,
         convolution->groups,
         convolution->pad,
         convolution->stride,
         convolution->dilation,
         convolution->mode == CUDNN_CONVOLUTION,
         convolution->math,
         x->type};
  if (out.stride[0] == 0) return CUDNN_STATUS_BAD_PARAM;  // never set
  if (from.c != w->dims[1] * out.groups || out.k % out.groups != 0) return CUDNN_STATUS_BAD_PARAM;
  if (to.n != out.n || to.c != out.k) return CUDNN_STATUS_BAD_PARAM;
  const int64_t p = output_size(out.h, out.r, out.pad[0], out.stride[0], out.dilation[0]);
  const int64_t q = output_size(out.w, out.s, out.pad[1], out.stride[1], out.dilation[1]);
  if (p == 0 || q == 0) return CUDNN_STATUS_BAD_PARAM;
  if (out.p != p || out.q != q || convolution->compute != out.type) return CUDNN_STATUS_NOT_SUPPORTED;
  return CUDNN_STATUS_SUCCESS;
}

bool takes(Pass pass, int algorithm, const Convolution& conv) {
  const bool plain = conv.stride[0] == 1 && conv.stride[1] == 1 && conv.dilation[0] == 1 && conv.dilation[1] == 1;
  const bool pad_inside = conv.r > conv.pad[0] && conv.s > conv.pad[1];
  const bool is_float = conv.type == CUDNN_DATA_FLOAT;
  const bool three = conv.r == 3 && conv.s == 3, five = conv.r == 5 && conv.s == 5;
  switch (method_of(pass, algorithm)) {
    case Method::gemm:
    case Method::precomputed: return true;
    case Method::explicit_gemm: return conv.dilation[0] == 1 && conv.dilation[1] == 1;
    case Method::fft:
      return is_float && plain && pad_inside && conv.h + 2 * conv.pad[0] <= 256 && conv.w + 2 * conv.pad[1] <= 256;
    case Method::fft_tiling: return is_float && plain && pad_inside && conv.r <= 32 && conv.s <= 32;
    case Method::winograd: return is_float && plain && three;
    case Method::winograd_nonfused: return is_float && plain && (three || five);
    case Method::none: return false;
  }
  return false;
}

size_t workspace_bytes(Pass pass, int algorithm, const Convolution& conv) {
  const int64_t element = conv.type == CUDNN_DATA_DOUBLE ? 8 : 4;
  const int64_t images = conv.n * conv.c + conv.k * conv.c / conv.groups + conv.n * conv.k;
  switch (method_of(pass, algorithm)) {
    case Method::gemm:
    case Method::winograd:
    case Method::none: return 0;
    case Method::precomputed: return static_cast<size_t>(conv.p * conv.q * 4);
    case Method::explicit_gemm: return static_cast<size_t>(conv.rows() * conv.p * conv.q * element);
    case Method::fft:  // complex transforms of half the padded image
      return static_cast<size_t>(images * (conv.h + 2 * conv.pad[0]) * ((conv.w + 2 * conv.pad[1]) / 2 + 1) * 8);
    case Method::fft_tiling: return static_cast<size_t>(images * 32 * 17 * 8);
    case Method::winograd_nonfused: return static_cast<size_t>(images * 6 * 6 * element);
  }
  return 0;
}

bool is_deterministic(Pass pass, int algorithm) {
  if (pass == Pass::backward_data) return algorithm != CUDNN_CONVOLUTION_BWD_DATA_ALGO_0;
  if (pass == Pass::backward_filter)
    return algorithm != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 && algorithm != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3;
  return true;
}

namespace {

/// All algorithms of a pass, in the order in which the heuristics rank them: those that a caller should not take
/// without a look at their determinism and workspace come early, and those that don't take the convolution last.
template <class Perf>
std::vector<Perf> rank(Pass pass, const Convolution& conv, std::vector<int> order) {
  std::stable_partition(order.begin(), order.end(), [&](int id) { return takes(pass, id, conv); });
  std::vector<Perf> ranked;
  for (const int id : order) {
    Perf perf{};
    perf.algo = static_cast<decltype(perf.algo)>(id);
    const bool taken = takes(pass, id, conv);
    perf.status = taken ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
    perf.time = -1;  // heuristics don't measure
    perf.memory = taken ? workspace_bytes(pass, id, conv) : 0;
    perf.determinism = is_deterministic(pass, id) ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC;
    perf.mathType = conv.math;
    ranked.push_back(perf);
  }
  return ranked;
}

const std::vector<int> kForwardOrder = {CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
                                        CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
                                        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                                        CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
                                        CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
                                        CUDNN_CONVOLUTION_FWD_ALGO_FFT,
                                        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                                        CUDNN_CONVOLUTION_FWD_ALGO_DIRECT};
const std::vector<int> kDataOrder = {
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,          CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,   CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING, CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT};
const std::vector<int> kFilterOrder = {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
                                       CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD};

template <class Perf>
cudnnStatus_t hand_over(const std::vector<Perf>& ranked, int requested, int* returned, Perf* results) {
  *returned = std::min(requested, static_cast<int>(ranked.size()));
  std::copy_n(ranked.begin(), *returned, results);
  return CUDNN_STATUS_SUCCESS;
}

template <class Perf>
cudnnStatus_t get(Pass pass, cudnnHandle_t handle, const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                  const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y, const std::vector<int>& order,
                  int requested, int* returned, Perf* results) {
  if (!handle || !returned || !results || requested < 1) return CUDNN_STATUS_BAD_PARAM;
  Convolution conv;
  const cudnnStatus_t status = describe(x, w, convolution, y, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return hand_over(rank<Perf>(pass, conv, order), requested, returned, results);
}

/// Device memory of a search.
struct Operand {
  const void* data;
  size_t elements;
};

/// As get(), but with the workspace at hand, and times. What a search leaves in its output and workspace is arbitrary:
/// NaNs here.
template <class Perf>
cudnnStatus_t find(const char* call, Pass pass, cudnnHandle_t handle, const cudnnTensorStruct* x,
                   const cudnnFilterStruct* w, const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y,
                   const std::vector<int>& order, Operand first, Operand second, void* output, size_t output_elements,
                   int requested, int* returned, Perf* results, void* workspace, size_t bytes) {
  if (!handle || !first.data || !second.data || !output || !returned || !results || requested < 1)
    return CUDNN_STATUS_BAD_PARAM;
  Convolution conv;
  const cudnnStatus_t status = describe(x, w, convolution, y, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  std::vector<Perf> ranked = rank<Perf>(pass, conv, order);
  for (size_t i = 0; i < ranked.size(); ++i) {
    Perf& perf = ranked[i];
    if (perf.status == CUDNN_STATUS_SUCCESS && perf.memory > bytes)
      perf.status = CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;  // "ALLOC_FAILED" before cuDNN 9
    if (perf.status == CUDNN_STATUS_SUCCESS) perf.time = static_cast<float>(i + 1);
  }
  std::stable_partition(ranked.begin(), ranked.end(), [](const Perf& p) { return p.status == CUDNN_STATUS_SUCCESS; });
  const cudnnStatus_t run = with_type(conv.type, [&]<class T>(T) {
    device_read(first.data, first.elements * sizeof(T), handle->stream, call);
    device_read(second.data, second.elements * sizeof(T), handle->stream, call);
    T* const out = static_cast<T*>(device_write(output, output_elements * sizeof(T), handle->stream, call));
    std::fill_n(out, output_elements, static_cast<T>(NAN));
    if (bytes > 0) std::memset(device_write(workspace, bytes, handle->stream, call), 0xff, bytes);
  });
  return run == CUDNN_STATUS_SUCCESS ? hand_over(ranked, requested, returned, results) : run;
}

template <class Algo>
cudnnStatus_t workspace_size(Pass pass, cudnnHandle_t handle, const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                             const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y, Algo algo,
                             size_t* bytes) {
  if (!handle || !bytes) return CUDNN_STATUS_BAD_PARAM;
  Convolution conv;
  const cudnnStatus_t status = describe(x, w, convolution, y, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (!takes(pass, algo, conv)) return CUDNN_STATUS_NOT_SUPPORTED;
  *bytes = workspace_bytes(pass, algo, conv);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t count(cudnnHandle_t handle, const std::vector<int>& order, int* out) {
  if (!handle || !out) return CUDNN_STATUS_BAD_PARAM;
  *out = static_cast<int>(order.size());
  return CUDNN_STATUS_SUCCESS;
}

Operand operand(const cudnnTensorStruct* d, const void* p) { return {p, d ? static_cast<size_t>(span(*d)) : 0}; }
Operand operand(const cudnnFilterStruct* d, const void* p) {
  return {p, d ? static_cast<size_t>(d->dims[0]) * d->dims[1] * d->dims[2] * d->dims[3] : 0};
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;
using emulation::Pass;

extern "C" {

cudnnStatus_t cudnnGetConvolution2dForwardOutputDim(const cudnnConvolutionDescriptor_t convDesc,
                                                    const cudnnTensorDescriptor_t inputTensorDesc,
                                                    const cudnnFilterDescriptor_t filterDesc, int* n, int* c, int* h,
                                                    int* w) {
  if (!convDesc || !inputTensorDesc || !filterDesc || !n || !c || !h || !w) return CUDNN_STATUS_BAD_PARAM;
  const auto& x = inputTensorDesc->dims;
  const auto& f = filterDesc->dims;
  if (inputTensorDesc->rank != 4 || convDesc->stride[0] == 0 || f[0] == 0 || x[1] != f[1] * convDesc->groups)
    return CUDNN_STATUS_BAD_PARAM;
  const auto size = [&](int axis) {
    return static_cast<int>(emulation::output_size(x[axis + 2], f[axis + 2], convDesc->pad[axis],
                                                   convDesc->stride[axis], convDesc->dilation[axis]));
  };
  *n = x[0], *c = f[0], *h = size(0), *w = size(1);
  return *h > 0 && *w > 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithmMaxCount(cudnnHandle_t handle, int* out) {
  return emulation::count(handle, emulation::kForwardOrder, out);
}
cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                     const cudnnFilterDescriptor_t wDesc,
                                                     const cudnnConvolutionDescriptor_t convDesc,
                                                     const cudnnTensorDescriptor_t yDesc, const int requestedAlgoCount,
                                                     int* returnedAlgoCount,
                                                     cudnnConvolutionFwdAlgoPerf_t* perfResults) {
  return emulation::get(Pass::forward, handle, xDesc, wDesc, convDesc, yDesc, emulation::kForwardOrder,
                        requestedAlgoCount, returnedAlgoCount, perfResults);
}
cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                     const void* x, const cudnnFilterDescriptor_t wDesc, const void* w,
                                                     const cudnnConvolutionDescriptor_t convDesc,
                                                     const cudnnTensorDescriptor_t yDesc, void* y,
                                                     const int requestedAlgoCount, int* returnedAlgoCount,
                                                     cudnnConvolutionFwdAlgoPerf_t* perfResults, void* workSpace,
                                                     size_t workSpaceSizeInBytes) {
  const auto out = emulation::operand(yDesc, y);
  return emulation::find("cudnnFindConvolutionForwardAlgorithmEx", Pass::forward, handle, xDesc, wDesc, convDesc, yDesc,
                         emulation::kForwardOrder, emulation::operand(xDesc, x), emulation::operand(wDesc, w), y,
                         out.elements, requestedAlgoCount, returnedAlgoCount, perfResults, workSpace,
                         workSpaceSizeInBytes);
}
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                      const cudnnFilterDescriptor_t wDesc,
                                                      const cudnnConvolutionDescriptor_t convDesc,
                                                      const cudnnTensorDescriptor_t yDesc,
                                                      cudnnConvolutionFwdAlgo_t algo, size_t* sizeInBytes) {
  return emulation::workspace_size(Pass::forward, handle, xDesc, wDesc, convDesc, yDesc, algo, sizeInBytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithmMaxCount(cudnnHandle_t handle, int* out) {
  return emulation::count(handle, emulation::kDataOrder, out);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t handle, const cudnnFilterDescriptor_t wDesc,
                                                          const cudnnTensorDescriptor_t dyDesc,
                                                          const cudnnConvolutionDescriptor_t convDesc,
                                                          const cudnnTensorDescriptor_t dxDesc,
                                                          const int requestedAlgoCount, int* returnedAlgoCount,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* perfResults) {
  return emulation::get(Pass::backward_data, handle, dxDesc, wDesc, convDesc, dyDesc, emulation::kDataOrder,
                        requestedAlgoCount, returnedAlgoCount, perfResults);
}
cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithmEx(cudnnHandle_t handle, const cudnnFilterDescriptor_t wDesc,
                                                          const void* w, const cudnnTensorDescriptor_t dyDesc,
                                                          const void* dy, const cudnnConvolutionDescriptor_t convDesc,
                                                          const cudnnTensorDescriptor_t dxDesc, void* dx,
                                                          const int requestedAlgoCount, int* returnedAlgoCount,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* perfResults,
                                                          void* workSpace, size_t workSpaceSizeInBytes) {
  const auto out = emulation::operand(dxDesc, dx);
  return emulation::find("cudnnFindConvolutionBackwardDataAlgorithmEx", Pass::backward_data, handle, dxDesc, wDesc,
                         convDesc, dyDesc, emulation::kDataOrder, emulation::operand(wDesc, w),
                         emulation::operand(dyDesc, dy), dx, out.elements, requestedAlgoCount, returnedAlgoCount,
                         perfResults, workSpace, workSpaceSizeInBytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t handle, const cudnnFilterDescriptor_t wDesc,
                                                           const cudnnTensorDescriptor_t dyDesc,
                                                           const cudnnConvolutionDescriptor_t convDesc,
                                                           const cudnnTensorDescriptor_t dxDesc,
                                                           cudnnConvolutionBwdDataAlgo_t algo, size_t* sizeInBytes) {
  return emulation::workspace_size(Pass::backward_data, handle, dxDesc, wDesc, convDesc, dyDesc, algo, sizeInBytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(cudnnHandle_t handle, int* out) {
  return emulation::count(handle, emulation::kFilterOrder, out);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                            const cudnnTensorDescriptor_t dyDesc,
                                                            const cudnnConvolutionDescriptor_t convDesc,
                                                            const cudnnFilterDescriptor_t dwDesc,
                                                            const int requestedAlgoCount, int* returnedAlgoCount,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t* perfResults) {
  return emulation::get(Pass::backward_filter, handle, xDesc, dwDesc, convDesc, dyDesc, emulation::kFilterOrder,
                        requestedAlgoCount, returnedAlgoCount, perfResults);
}
cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithmEx(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                            const void* x, const cudnnTensorDescriptor_t dyDesc,
                                                            const void* dy, const cudnnConvolutionDescriptor_t convDesc,
                                                            const cudnnFilterDescriptor_t dwDesc, void* dw,
                                                            const int requestedAlgoCount, int* returnedAlgoCount,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t* perfResults,
                                                            void* workSpace, size_t workSpaceSizeInBytes) {
  const auto out = emulation::operand(dwDesc, dw);
  return emulation::find("cudnnFindConvolutionBackwardFilterAlgorithmEx", Pass::backward_filter, handle, xDesc, dwDesc,
                         convDesc, dyDesc, emulation::kFilterOrder, emulation::operand(xDesc, x),
                         emulation::operand(dyDesc, dy), dw, out.elements, requestedAlgoCount, returnedAlgoCount,
                         perfResults, workSpace, workSpaceSizeInBytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                             const cudnnTensorDescriptor_t dyDesc,
                                                             const cudnnConvolutionDescriptor_t convDesc,
                                                             const cudnnFilterDescriptor_t dwDesc,
                                                             cudnnConvolutionBwdFilterAlgo_t algo,
                                                             size_t* sizeInBytes) {
  return emulation::workspace_size(Pass::backward_filter, handle, xDesc, dwDesc, convDesc, dyDesc, algo, sizeInBytes);
}

}  // extern "C"
