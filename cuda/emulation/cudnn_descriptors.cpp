// cuDNN's handles, its descriptors of tensors and filters, and the operations on tensors as such. Which arguments a
// setter refuses is as documented; where the documentation is silent, as the library itself does it.
#include "cuda/emulation/cudnn_descriptors.h"

#include <climits>

namespace emulation = espalier::emulation;

namespace {

bool valid(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
    case CUDNN_DATA_DOUBLE:
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_INT8:
    case CUDNN_DATA_INT32:
    case CUDNN_DATA_BFLOAT16: return true;
  }
  return false;
}

size_t size_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE: return 8;
    case CUDNN_DATA_FLOAT:
    case CUDNN_DATA_INT32: return 4;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16: return 2;
    case CUDNN_DATA_INT8: return 1;
  }
  return 0;
}

cudnnStatus_t set(cudnnTensorDescriptor_t desc, cudnnDataType_t type, int rank, const int dims[], const int strides[]) {
  if (!desc || !valid(type)) return CUDNN_STATUS_BAD_PARAM;
  cudnnTensorStruct next{type, rank, {}, {}};
  int64_t elements = 1;
  for (int axis = 0; axis < rank; ++axis) {
    if (dims[axis] <= 0 || strides[axis] == 0) return CUDNN_STATUS_BAD_PARAM;
    next.dims[axis] = dims[axis];
    next.strides[axis] = strides[axis];
    elements *= dims[axis];
    if (elements > INT_MAX) return CUDNN_STATUS_NOT_SUPPORTED;
  }
  if (emulation::span(next) > INT_MAX) return CUDNN_STATUS_NOT_SUPPORTED;
  *desc = next;
  return CUDNN_STATUS_SUCCESS;
}

template <class Struct>
cudnnStatus_t create(Struct** desc) {
  if (!desc) return CUDNN_STATUS_BAD_PARAM;
  *desc = new Struct;
  return CUDNN_STATUS_SUCCESS;
}
template <class Struct>
cudnnStatus_t destroy(Struct* desc) {
  delete desc;
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

size_t cudnnGetVersion(void) { return 91900; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_NULL_POINTER: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT: return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH: return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_NOT_SUPPORTED_SHAPE: return "CUDNN_STATUS_NOT_SUPPORTED_SHAPE";
    case CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE: return "CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE";
    case CUDNN_STATUS_NOT_SUPPORTED_LAYOUT: return "CUDNN_STATUS_NOT_SUPPORTED_LAYOUT";
    case CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH: return "CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH";
    case CUDNN_STATUS_INTERNAL_ERROR: return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED:
      return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    case CUDNN_STATUS_EXECUTION_FAILED:
      return emulation::last_fault().empty() ? "CUDNN_STATUS_EXECUTION_FAILED" : emulation::last_fault().c_str();
  }
  return "CUDNN_UNKNOWN_STATUS";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  if (!handle) return CUDNN_STATUS_BAD_PARAM;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return CUDNN_STATUS_NOT_INITIALIZED;
  return create(handle);
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy(handle); }

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUDNN_STATUS_BAD_PARAM;
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  if (!handle || !stream) return CUDNN_STATUS_BAD_PARAM;
  *stream = handle->stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* desc) { return create(desc); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t desc) { return destroy(desc); }
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* desc) { return create(desc); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t desc) { return destroy(desc); }
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* desc) { return create(desc); }
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t desc) { return destroy(desc); }
cudnnStatus_t cudnnCreatePoolingDescriptor(cudnnPoolingDescriptor_t* desc) { return create(desc); }
cudnnStatus_t cudnnDestroyPoolingDescriptor(cudnnPoolingDescriptor_t desc) { return destroy(desc); }
cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t* desc) { return create(desc); }
cudnnStatus_t cudnnDestroyActivationDescriptor(cudnnActivationDescriptor_t desc) { return destroy(desc); }

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t desc, cudnnTensorFormat_t format,
                                         cudnnDataType_t dataType, int n, int c, int h, int w) {
  const int dims[4] = {n, c, h, w};
  int64_t image = 1;
  for (const int dim : dims) {
    if (dim <= 0) return CUDNN_STATUS_BAD_PARAM;
    image *= dim;
    if (image > INT_MAX) return CUDNN_STATUS_NOT_SUPPORTED;
  }
  if (format == CUDNN_TENSOR_NCHW) {
    const int strides[4] = {c * h * w, h * w, w, 1};
    return set(desc, dataType, 4, dims, strides);
  }
  if (format == CUDNN_TENSOR_NHWC) {
    const int strides[4] = {c * h * w, 1, w * c, c};
    return set(desc, dataType, 4, dims, strides);
  }
  // Vectors of channels are for 8-bit integers only.
  return format == CUDNN_TENSOR_NCHW_VECT_C ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnSetTensor4dDescriptorEx(cudnnTensorDescriptor_t desc, cudnnDataType_t dataType, int n, int c, int h,
                                           int w, int nStride, int cStride, int hStride, int wStride) {
  const int dims[4] = {n, c, h, w}, strides[4] = {nStride, cStride, hStride, wStride};
  return set(desc, dataType, 4, dims, strides);
}

cudnnStatus_t cudnnGetTensor4dDescriptor(const cudnnTensorDescriptor_t desc, cudnnDataType_t* dataType, int* n, int* c,
                                         int* h, int* w, int* nStride, int* cStride, int* hStride, int* wStride) {
  if (!desc || !dataType || !n || !c || !h || !w || !nStride || !cStride || !hStride || !wStride)
    return CUDNN_STATUS_BAD_PARAM;
  *dataType = desc->type;
  *n = desc->dims[0], *c = desc->dims[1], *h = desc->dims[2], *w = desc->dims[3];
  *nStride = desc->strides[0], *cStride = desc->strides[1], *hStride = desc->strides[2], *wStride = desc->strides[3];
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t desc, cudnnDataType_t dataType, int nbDims,
                                         const int dimA[], const int strideA[]) {
  if (!dimA || !strideA || nbDims < 2) return CUDNN_STATUS_BAD_PARAM;
  if (nbDims > CUDNN_DIM_MAX) return CUDNN_STATUS_NOT_SUPPORTED;
  return set(desc, dataType, nbDims, dimA, strideA);
}

cudnnStatus_t cudnnGetTensorNdDescriptor(const cudnnTensorDescriptor_t desc, int nbDimsRequested,
                                         cudnnDataType_t* dataType, int* nbDims, int dimA[], int strideA[]) {
  if (!desc || !dataType || !nbDims || !dimA || !strideA) return CUDNN_STATUS_BAD_PARAM;
  *dataType = desc->type;
  *nbDims = desc->rank;
  for (int axis = 0; axis < nbDimsRequested && axis < desc->rank; ++axis) {
    dimA[axis] = desc->dims[axis];
    strideA[axis] = desc->strides[axis];
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetTensorSizeInBytes(const cudnnTensorDescriptor_t desc, size_t* size) {
  if (!desc || !size) return CUDNN_STATUS_BAD_PARAM;
  *size = desc->rank == 0 ? 0 : static_cast<size_t>(emulation::span(*desc)) * size_of(desc->type);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t desc, cudnnDataType_t dataType,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w) {
  const bool known_format =
      format == CUDNN_TENSOR_NCHW || format == CUDNN_TENSOR_NHWC || format == CUDNN_TENSOR_NCHW_VECT_C;
  if (!desc || !valid(dataType) || !known_format || k <= 0 || c <= 0 || h <= 0 || w <= 0) return CUDNN_STATUS_BAD_PARAM;
  *desc = {dataType, format, {k, c, h, w}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetFilter4dDescriptor(const cudnnFilterDescriptor_t desc, cudnnDataType_t* dataType,
                                         cudnnTensorFormat_t* format, int* k, int* c, int* h, int* w) {
  if (!desc || !dataType || !format || !k || !c || !h || !w) return CUDNN_STATUS_BAD_PARAM;
  *dataType = desc->type;
  *format = desc->format;
  *k = desc->dims[0], *c = desc->dims[1], *h = desc->dims[2], *w = desc->dims[3];
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetFilterSizeInBytes(const cudnnFilterDescriptor_t desc, size_t* size) {
  if (!desc || !size) return CUDNN_STATUS_BAD_PARAM;
  *size = size_of(desc->type);
  for (const int dim : desc->dims) *size *= static_cast<size_t>(dim);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t desc, int pad_h, int pad_w, int u, int v,
                                              int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t computeType) {
  const bool computes = computeType == CUDNN_DATA_FLOAT || computeType == CUDNN_DATA_DOUBLE ||
                        computeType == CUDNN_DATA_HALF || computeType == CUDNN_DATA_INT32;
  if (!desc || pad_h < 0 || pad_w < 0 || u <= 0 || v <= 0 || dilation_h <= 0 || dilation_w <= 0 || !computes ||
      (mode != CUDNN_CONVOLUTION && mode != CUDNN_CROSS_CORRELATION))
    return CUDNN_STATUS_BAD_PARAM;
  desc->pad = {pad_h, pad_w};
  desc->stride = {u, v};
  desc->dilation = {dilation_h, dilation_w};
  desc->mode = mode;
  desc->compute = computeType;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolution2dDescriptor(const cudnnConvolutionDescriptor_t desc, int* pad_h, int* pad_w, int* u,
                                              int* v, int* dilation_h, int* dilation_w, cudnnConvolutionMode_t* mode,
                                              cudnnDataType_t* computeType) {
  if (!desc || !pad_h || !pad_w || !u || !v || !dilation_h || !dilation_w || !mode || !computeType)
    return CUDNN_STATUS_BAD_PARAM;
  *pad_h = desc->pad[0], *pad_w = desc->pad[1];
  *u = desc->stride[0], *v = desc->stride[1];
  *dilation_h = desc->dilation[0], *dilation_w = desc->dilation[1];
  *mode = desc->mode;
  *computeType = desc->compute;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t desc, cudnnMathType_t mathType) {
  if (!desc || mathType < CUDNN_DEFAULT_MATH || mathType > CUDNN_FMA_MATH) return CUDNN_STATUS_BAD_PARAM;
  desc->math = mathType;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionMathType(const cudnnConvolutionDescriptor_t desc, cudnnMathType_t* mathType) {
  if (!desc || !mathType) return CUDNN_STATUS_BAD_PARAM;
  *mathType = desc->math;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t desc, int groupCount) {
  if (!desc || groupCount <= 0) return CUDNN_STATUS_BAD_PARAM;
  desc->groups = groupCount;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionGroupCount(const cudnnConvolutionDescriptor_t desc, int* groupCount) {
  if (!desc || !groupCount) return CUDNN_STATUS_BAD_PARAM;
  *groupCount = desc->groups;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensor(cudnnHandle_t handle, const cudnnTensorDescriptor_t yDesc, void* y, const void* valuePtr) {
  if (!handle || !yDesc || !y || !valuePtr) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*yDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(yDesc->type, [&]<class T>(T) {
    const emulation::Layout to(*yDesc);
    const emulation::Output<T> out(handle, emulation::span(*yDesc), y, T{1}, T{0}, "cudnnSetTensor, y");
    emulation::for_each(to, [&](auto... i) { out.put(to.at(i...), emulation::factor<T>(valuePtr)); });
  });
}

cudnnStatus_t cudnnScaleTensor(cudnnHandle_t handle, const cudnnTensorDescriptor_t yDesc, void* y, const void* alpha) {
  if (!handle || !yDesc || !y || !alpha) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*yDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(yDesc->type, [&]<class T>(T) {
    const emulation::Layout to(*yDesc);
    const T* const from = emulation::read<T>(handle, *yDesc, y, "cudnnScaleTensor, y");
    const emulation::Output<T> out(handle, emulation::span(*yDesc), y, emulation::factor<T>(alpha), T{0},
                                   "cudnnScaleTensor, y");
    emulation::for_each(to, [&](auto... i) { out.put(to.at(i...), from[to.at(i...)]); });
  });
}

cudnnStatus_t cudnnAddTensor(cudnnHandle_t handle, const void* alpha, const cudnnTensorDescriptor_t aDesc,
                             const void* A, const void* beta, const cudnnTensorDescriptor_t cDesc, void* C) {
  if (!handle || !alpha || !aDesc || !A || !beta || !cDesc || !C) return CUDNN_STATUS_BAD_PARAM;
  if (aDesc->type != cDesc->type || aDesc->rank != cDesc->rank) return CUDNN_STATUS_BAD_PARAM;
  for (int axis = 0; axis < cDesc->rank; ++axis)
    if (aDesc->dims[axis] != 1 && aDesc->dims[axis] != cDesc->dims[axis]) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*aDesc) || !emulation::supported(*cDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(cDesc->type, [&]<class T>(T) {
    emulation::Layout from(*aDesc);
    const emulation::Layout to(*cDesc);
    if (from.n == 1) from.n_stride = 0;  // an axis of size 1 is repeated
    if (from.c == 1) from.c_stride = 0;
    if (from.h == 1) from.h_stride = 0;
    if (from.w == 1) from.w_stride = 0;
    const T* const a = emulation::read<T>(handle, *aDesc, A, "cudnnAddTensor, A");
    const emulation::Output<T> out(handle, *cDesc, C, alpha, beta, "cudnnAddTensor, C");
    emulation::for_each(to, [&](auto... i) { out.put(to.at(i...), a[from.at(i...)]); });
  });
}

}  // extern "C"
