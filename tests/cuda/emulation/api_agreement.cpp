// What the stand-ins declare, written out once more: this file must compile with the stand-ins' headers and, where the
// toolkit is installed, with its own. Then both declare these functions with these types, and these values.
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <type_traits>

namespace {

/// Compiles only for a function of exactly this type.
template <class Function>
consteval bool has(Function*) {
  return true;
}

consteval bool are(std::initializer_list<long> names, std::initializer_list<long> values) {
  return std::equal(names.begin(), names.end(), values.begin(), values.end());
}

// <cuda_runtime.h>
static_assert(are({cudaSuccess,
                   cudaErrorInvalidValue,
                   cudaErrorMemoryAllocation,
                   cudaErrorInitializationError,
                   cudaErrorInvalidConfiguration,
                   cudaErrorInvalidDevicePointer,
                   cudaErrorInvalidMemcpyDirection,
                   cudaErrorInsufficientDriver,
                   cudaErrorInvalidDeviceFunction,
                   cudaErrorNoDevice,
                   cudaErrorInvalidDevice,
                   cudaErrorInvalidResourceHandle,
                   cudaErrorNotReady,
                   cudaErrorIllegalAddress,
                   cudaErrorLaunchOutOfResources,
                   cudaErrorHardwareStackError,
                   cudaErrorIllegalInstruction,
                   cudaErrorMisalignedAddress,
                   cudaErrorLaunchFailure,
                   cudaErrorNotSupported,
                   cudaErrorUnknown},
                  {0, 1, 2, 3, 9, 17, 21, 35, 98, 100, 101, 400, 600, 700, 701, 714, 715, 716, 719, 801, 999}));
static_assert(are({cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice,
                   cudaMemcpyDefault},
                  {0, 1, 2, 3, 4}));
static_assert(are({cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged},
                  {0, 1, 2, 3}));
static_assert(are({cudaDevAttrMaxThreadsPerBlock, cudaDevAttrMaxBlockDimX, cudaDevAttrMaxBlockDimY,
                   cudaDevAttrMaxBlockDimZ, cudaDevAttrMaxGridDimX, cudaDevAttrMaxGridDimY, cudaDevAttrMaxGridDimZ,
                   cudaDevAttrMaxSharedMemoryPerBlock, cudaDevAttrWarpSize, cudaDevAttrMultiProcessorCount,
                   cudaDevAttrMaxThreadsPerMultiProcessor, cudaDevAttrUnifiedAddressing,
                   cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor,
                   cudaDevAttrMaxSharedMemoryPerMultiprocessor, cudaDevAttrCooperativeLaunch,
                   cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMaxBlocksPerMultiprocessor,
                   cudaDevAttrMemoryPoolsSupported},
                  {1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 39, 41, 75, 76, 81, 95, 97, 106, 115}));
static_assert(are({cudaMemPoolAttrReleaseThreshold, cudaMemPoolAttrReservedMemCurrent, cudaMemPoolAttrReservedMemHigh,
                   cudaMemPoolAttrUsedMemCurrent, cudaMemPoolAttrUsedMemHigh},
                  {4, 5, 6, 7, 8}));
static_assert(are({cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout},
                  {8, 9}));
static_assert(are({cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed},
                  {0, 1, 2}));
static_assert(are({cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive}, {0, 1}));
static_assert(are({cudaStreamDefault, cudaStreamNonBlocking, cudaEventDefault, cudaEventBlockingSync,
                   cudaEventDisableTiming, cudaEventRecordDefault, cudaEventWaitDefault, cudaHostAllocDefault,
                   cudaHostAllocPortable, cudaHostAllocMapped, cudaHostAllocWriteCombined},
                  {0, 1, 0, 1, 2, 0, 0, 0, 1, 2, 4}));
static_assert(has<cudaError_t()>(cudaGetLastError));
static_assert(has<cudaError_t()>(cudaPeekAtLastError));
static_assert(has<const char*(cudaError_t)>(cudaGetErrorName));
static_assert(has<const char*(cudaError_t)>(cudaGetErrorString));
static_assert(has<cudaError_t(int*)>(cudaDriverGetVersion));
static_assert(has<cudaError_t(int*)>(cudaRuntimeGetVersion));
static_assert(has<cudaError_t(int*)>(cudaGetDeviceCount));
static_assert(has<cudaError_t(int)>(cudaSetDevice));
static_assert(has<cudaError_t(int*)>(cudaGetDevice));
static_assert(has<cudaError_t(cudaDeviceProp*, int)>(cudaGetDeviceProperties));
static_assert(has<cudaError_t(int*, cudaDeviceAttr, int)>(cudaDeviceGetAttribute));
static_assert(has<cudaError_t()>(cudaDeviceSynchronize));
static_assert(has<cudaError_t(void**, size_t)>(cudaMalloc));
static_assert(has<cudaError_t(void*)>(cudaFree));
static_assert(has<cudaError_t(void**, size_t, cudaStream_t)>(cudaMallocAsync));
static_assert(has<cudaError_t(void*, cudaStream_t)>(cudaFreeAsync));
static_assert(has<cudaError_t(void**, size_t)>(cudaMallocHost));
static_assert(has<cudaError_t(void**, size_t, unsigned)>(cudaHostAlloc));
static_assert(has<cudaError_t(void**, void*, unsigned)>(cudaHostGetDevicePointer));
static_assert(has<cudaError_t(void*)>(cudaFreeHost));
static_assert(has<cudaError_t(size_t*, size_t*)>(cudaMemGetInfo));
static_assert(has<cudaError_t(cudaPointerAttributes*, const void*)>(cudaPointerGetAttributes));
static_assert(has<cudaError_t(cudaMemPool_t*, int)>(cudaDeviceGetDefaultMemPool));
static_assert(has<cudaError_t(cudaMemPool_t, cudaMemPoolAttr, void*)>(cudaMemPoolSetAttribute));
static_assert(has<cudaError_t(cudaMemPool_t, cudaMemPoolAttr, void*)>(cudaMemPoolGetAttribute));
static_assert(has<cudaError_t(cudaMemPool_t, size_t)>(cudaMemPoolTrimTo));
static_assert(has<cudaError_t(void*, const void*, size_t, cudaMemcpyKind)>(cudaMemcpy));
static_assert(has<cudaError_t(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t)>(cudaMemcpyAsync));
static_assert(has<cudaError_t(void*, int, const void*, int, size_t)>(cudaMemcpyPeer));
static_assert(has<cudaError_t(void*, int, const void*, int, size_t, cudaStream_t)>(cudaMemcpyPeerAsync));
static_assert(has<cudaError_t(void*, int, size_t)>(cudaMemset));
static_assert(has<cudaError_t(void*, int, size_t, cudaStream_t)>(cudaMemsetAsync));
static_assert(has<cudaError_t(cudaStream_t*)>(cudaStreamCreate));
static_assert(has<cudaError_t(cudaStream_t*, unsigned)>(cudaStreamCreateWithFlags));
static_assert(has<cudaError_t(cudaStream_t*, unsigned, int)>(cudaStreamCreateWithPriority));
static_assert(has<cudaError_t(cudaStream_t)>(cudaStreamDestroy));
static_assert(has<cudaError_t(cudaStream_t)>(cudaStreamSynchronize));
static_assert(has<cudaError_t(cudaStream_t)>(cudaStreamQuery));
static_assert(has<cudaError_t(cudaStream_t, cudaEvent_t, unsigned)>(cudaStreamWaitEvent));
static_assert(has<cudaError_t(cudaStream_t, unsigned*)>(cudaStreamGetFlags));
static_assert(has<cudaError_t(cudaStream_t, cudaHostFn_t, void*)>(cudaLaunchHostFunc));
static_assert(has<cudaError_t(cudaEvent_t*)>(cudaEventCreate));
static_assert(has<cudaError_t(cudaEvent_t*, unsigned)>(cudaEventCreateWithFlags));
static_assert(has<cudaError_t(cudaEvent_t, cudaStream_t)>(cudaEventRecord));
static_assert(has<cudaError_t(cudaEvent_t)>(cudaEventSynchronize));
static_assert(has<cudaError_t(cudaEvent_t)>(cudaEventQuery));
static_assert(has<cudaError_t(float*, cudaEvent_t, cudaEvent_t)>(cudaEventElapsedTime));
static_assert(has<cudaError_t(cudaEvent_t)>(cudaEventDestroy));
static_assert(has<cudaError_t(const void*, cudaFuncAttribute, int)>(cudaFuncSetAttribute));
static_assert(has<cudaError_t(cudaFuncAttributes*, const void*)>(cudaFuncGetAttributes));
static_assert(has<cudaError_t(int*, const void*, int, size_t)>(cudaOccupancyMaxActiveBlocksPerMultiprocessor));
static_assert(has<cudaError_t(cudaStream_t, cudaStreamCaptureMode)>(cudaStreamBeginCapture));
static_assert(has<cudaError_t(cudaStream_t, cudaGraph_t*)>(cudaStreamEndCapture));
static_assert(has<cudaError_t(cudaStream_t, cudaStreamCaptureStatus*)>(cudaStreamIsCapturing));
static_assert(has<cudaError_t(cudaGraphExec_t*, cudaGraph_t, unsigned long long)>(cudaGraphInstantiate));
static_assert(has<cudaError_t(cudaGraphExec_t, cudaStream_t)>(cudaGraphLaunch));
static_assert(has<cudaError_t(cudaGraphExec_t)>(cudaGraphExecDestroy));
static_assert(has<cudaError_t(cudaGraph_t)>(cudaGraphDestroy));

// <library_types.h>
static_assert(are({CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_8I, CUDA_R_8U, CUDA_R_32I, CUDA_R_16BF, CUDA_R_64I},
                  {0, 1, 2, 3, 8, 10, 14, 24}));

// <cublas_v2.h>
static_assert(are({CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_INITIALIZED, CUBLAS_STATUS_ALLOC_FAILED,
                   CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_ARCH_MISMATCH, CUBLAS_STATUS_MAPPING_ERROR,
                   CUBLAS_STATUS_EXECUTION_FAILED, CUBLAS_STATUS_INTERNAL_ERROR, CUBLAS_STATUS_NOT_SUPPORTED,
                   CUBLAS_STATUS_LICENSE_ERROR},
                  {0, 1, 3, 7, 8, 11, 13, 14, 15, 16}));
static_assert(are({CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C}, {0, 1, 2}));
static_assert(are({CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE}, {0, 1}));
static_assert(are({CUBLAS_GEMM_DEFAULT, CUBLAS_GEMM_DEFAULT_TENSOR_OP}, {-1, 99}));
static_assert(are({CUBLAS_DEFAULT_MATH, CUBLAS_TENSOR_OP_MATH, CUBLAS_PEDANTIC_MATH, CUBLAS_TF32_TENSOR_OP_MATH,
                   CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION},
                  {0, 1, 2, 3, 16}));
static_assert(are({CUBLAS_COMPUTE_16F, CUBLAS_COMPUTE_16F_PEDANTIC, CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_PEDANTIC,
                   CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_64F_PEDANTIC, CUBLAS_COMPUTE_32I, CUBLAS_COMPUTE_32I_PEDANTIC,
                   CUBLAS_COMPUTE_32F_FAST_16F, CUBLAS_COMPUTE_32F_FAST_16BF, CUBLAS_COMPUTE_32F_FAST_TF32},
                  {64, 65, 68, 69, 70, 71, 72, 73, 74, 75, 77}));
static_assert(has<cublasStatus_t(cublasHandle_t*)>(cublasCreate));
static_assert(has<cublasStatus_t(cublasHandle_t)>(cublasDestroy));
static_assert(has<cublasStatus_t(cublasHandle_t, int*)>(cublasGetVersion));
static_assert(has<cublasStatus_t(cublasHandle_t, void*, size_t)>(cublasSetWorkspace));
static_assert(has<cublasStatus_t(cublasHandle_t, cudaStream_t)>(cublasSetStream));
static_assert(has<cublasStatus_t(cublasHandle_t, cudaStream_t*)>(cublasGetStream));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasPointerMode_t*)>(cublasGetPointerMode));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasPointerMode_t)>(cublasSetPointerMode));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasMath_t*)>(cublasGetMathMode));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasMath_t)>(cublasSetMathMode));
static_assert(has<const char*(cublasStatus_t)>(cublasGetStatusName));
static_assert(has<const char*(cublasStatus_t)>(cublasGetStatusString));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, int, int, const float*, const float*, int,
                                 const float*, int, const float*, float*, int)>(cublasSgemv));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, int, int, const double*, const double*, int,
                                 const double*, int, const double*, double*, int)>(cublasDgemv));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const float*,
                                 const float*, int, const float*, int, const float*, float*, int)>(cublasSgemm));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const double*,
                                 const double*, int, const double*, int, const double*, double*, int)>(cublasDgemm));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const float*,
                                 const float*, int, long long, const float*, int, long long, const float*, float*, int,
                                 long long, int)>(cublasSgemmStridedBatched));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const double*,
                                 const double*, int, long long, const double*, int, long long, const double*, double*,
                                 int, long long, int)>(cublasDgemmStridedBatched));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*,
                                 const void*, cudaDataType, int, const void*, cudaDataType, int, const void*, void*,
                                 cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t)>(cublasGemmEx));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*,
                                 const void*, cudaDataType, int, long long, const void*, cudaDataType, int, long long,
                                 const void*, void*, cudaDataType, int, long long, int, cublasComputeType_t,
                                 cublasGemmAlgo_t)>(cublasGemmStridedBatchedEx));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, const float*,
                                 const float*, int, const float*, const float*, int, float*, int)>(cublasSgeam));
static_assert(has<cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, const double*,
                                 const double*, int, const double*, const double*, int, double*, int)>(cublasDgeam));

// <cudnn.h>
static_assert(are({CUDNN_STATUS_SUCCESS, CUDNN_STATUS_NOT_INITIALIZED, CUDNN_STATUS_BAD_PARAM,
                   CUDNN_STATUS_BAD_PARAM_NULL_POINTER, CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT,
                   CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, CUDNN_STATUS_NOT_SUPPORTED, CUDNN_STATUS_NOT_SUPPORTED_SHAPE,
                   CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, CUDNN_STATUS_NOT_SUPPORTED_LAYOUT,
                   CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, CUDNN_STATUS_INTERNAL_ERROR,
                   CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, CUDNN_STATUS_EXECUTION_FAILED},
                  {0, 1001, 2000, 2002, 2006, 2008, 3000, 3002, 3003, 3004, 3007, 4000, 4003, 5000}));
static_assert(are({CUDNN_DATA_FLOAT, CUDNN_DATA_DOUBLE, CUDNN_DATA_HALF, CUDNN_DATA_INT8, CUDNN_DATA_INT32,
                   CUDNN_DATA_BFLOAT16},
                  {0, 1, 2, 3, 4, 9}));
static_assert(are({CUDNN_DEFAULT_MATH, CUDNN_TENSOR_OP_MATH, CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION, CUDNN_FMA_MATH},
                  {0, 1, 2, 3}));
static_assert(are({CUDNN_NOT_PROPAGATE_NAN, CUDNN_PROPAGATE_NAN}, {0, 1}));
static_assert(are({CUDNN_NON_DETERMINISTIC, CUDNN_DETERMINISTIC}, {0, 1}));
static_assert(are({CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC, CUDNN_TENSOR_NCHW_VECT_C}, {0, 1, 2}));
static_assert(are({CUDNN_CONVOLUTION, CUDNN_CROSS_CORRELATION}, {0, 1}));
static_assert(are({CUDNN_ACTIVATION_SIGMOID, CUDNN_ACTIVATION_RELU, CUDNN_ACTIVATION_TANH,
                   CUDNN_ACTIVATION_CLIPPED_RELU, CUDNN_ACTIVATION_ELU, CUDNN_ACTIVATION_IDENTITY},
                  {0, 1, 2, 3, 4, 5}));
static_assert(are({CUDNN_SOFTMAX_FAST, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_LOG}, {0, 1, 2}));
static_assert(are({CUDNN_SOFTMAX_MODE_INSTANCE, CUDNN_SOFTMAX_MODE_CHANNEL}, {0, 1}));
static_assert(are({CUDNN_POOLING_MAX, CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
                   CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING, CUDNN_POOLING_MAX_DETERMINISTIC},
                  {0, 1, 2, 3}));
static_assert(are({CUDNN_BATCHNORM_PER_ACTIVATION, CUDNN_BATCHNORM_SPATIAL, CUDNN_BATCHNORM_SPATIAL_PERSISTENT},
                  {0, 1, 2}));
static_assert(are({CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                   CUDNN_CONVOLUTION_FWD_ALGO_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_DIRECT, CUDNN_CONVOLUTION_FWD_ALGO_FFT,
                   CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
                   CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED, CUDNN_CONVOLUTION_FWD_ALGO_COUNT},
                  {0, 1, 2, 3, 4, 5, 6, 7, 8}));
static_assert(are({CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                   CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
                   CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
                   CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT},
                  {0, 1, 2, 3, 4, 5, 6, 7}));
static_assert(are({CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                   CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT, CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
                   CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD, CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
                   CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT},
                  {0, 1, 2, 3, 4, 5, 6}));
static_assert(has<size_t()>(cudnnGetVersion));
static_assert(has<const char*(cudnnStatus_t)>(cudnnGetErrorString));
static_assert(has<cudnnStatus_t(cudnnHandle_t*)>(cudnnCreate));
static_assert(has<cudnnStatus_t(cudnnHandle_t)>(cudnnDestroy));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudaStream_t)>(cudnnSetStream));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudaStream_t*)>(cudnnGetStream));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t*)>(cudnnCreateTensorDescriptor));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t)>(cudnnDestroyTensorDescriptor));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, cudnnTensorFormat_t, cudnnDataType_t, int, int, int, int)>(
    cudnnSetTensor4dDescriptor));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, cudnnDataType_t, int, int, int, int, int, int, int, int)>(
    cudnnSetTensor4dDescriptorEx));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, cudnnDataType_t*, int*, int*, int*, int*, int*, int*, int*,
                                int*)>(cudnnGetTensor4dDescriptor));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, cudnnDataType_t, int, const int*, const int*)>(
    cudnnSetTensorNdDescriptor));
static_assert(
    has<cudnnStatus_t(cudnnTensorDescriptor_t, int, cudnnDataType_t*, int*, int*, int*)>(cudnnGetTensorNdDescriptor));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, size_t*)>(cudnnGetTensorSizeInBytes));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, void*, const void*)>(cudnnSetTensor));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, void*, const void*)>(cudnnScaleTensor));
static_assert(has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnTensorDescriptor_t, const void*, const void*,
                                cudnnTensorDescriptor_t, void*)>(cudnnAddTensor));
static_assert(has<cudnnStatus_t(cudnnFilterDescriptor_t*)>(cudnnCreateFilterDescriptor));
static_assert(has<cudnnStatus_t(cudnnFilterDescriptor_t)>(cudnnDestroyFilterDescriptor));
static_assert(has<cudnnStatus_t(cudnnFilterDescriptor_t, cudnnDataType_t, cudnnTensorFormat_t, int, int, int, int)>(
    cudnnSetFilter4dDescriptor));
static_assert(has<cudnnStatus_t(cudnnFilterDescriptor_t, cudnnDataType_t*, cudnnTensorFormat_t*, int*, int*, int*,
                                int*)>(cudnnGetFilter4dDescriptor));
static_assert(has<cudnnStatus_t(cudnnFilterDescriptor_t, size_t*)>(cudnnGetFilterSizeInBytes));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t*)>(cudnnCreateConvolutionDescriptor));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t)>(cudnnDestroyConvolutionDescriptor));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, int, int, int, int, int, int, cudnnConvolutionMode_t,
                                cudnnDataType_t)>(cudnnSetConvolution2dDescriptor));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, int*, int*, int*, int*, int*, int*,
                                cudnnConvolutionMode_t*, cudnnDataType_t*)>(cudnnGetConvolution2dDescriptor));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, cudnnMathType_t)>(cudnnSetConvolutionMathType));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, cudnnMathType_t*)>(cudnnGetConvolutionMathType));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, int)>(cudnnSetConvolutionGroupCount));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, int*)>(cudnnGetConvolutionGroupCount));
static_assert(has<cudnnStatus_t(cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, int*,
                                int*, int*, int*)>(cudnnGetConvolution2dForwardOutputDim));
static_assert(has<cudnnStatus_t(cudnnHandle_t, int*)>(cudnnGetConvolutionForwardAlgorithmMaxCount));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int, int*,
                                cudnnConvolutionFwdAlgoPerf_t*)>(cudnnGetConvolutionForwardAlgorithm_v7));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, const void*, cudnnFilterDescriptor_t, const void*,
                      cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, void*, int, int*,
                      cudnnConvolutionFwdAlgoPerf_t*, void*, size_t)>(cudnnFindConvolutionForwardAlgorithmEx));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionFwdAlgo_t,
                                size_t*)>(cudnnGetConvolutionForwardWorkspaceSize));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnTensorDescriptor_t, const void*, cudnnFilterDescriptor_t,
                      const void*, cudnnConvolutionDescriptor_t, cudnnConvolutionFwdAlgo_t, void*, size_t, const void*,
                      cudnnTensorDescriptor_t, void*)>(cudnnConvolutionForward));
static_assert(has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnTensorDescriptor_t, const void*,
                                cudnnFilterDescriptor_t, const void*, cudnnConvolutionDescriptor_t,
                                cudnnConvolutionFwdAlgo_t, void*, size_t, const void*, cudnnTensorDescriptor_t,
                                const void*, cudnnTensorDescriptor_t, const void*, cudnnActivationDescriptor_t,
                                cudnnTensorDescriptor_t, void*)>(cudnnConvolutionBiasActivationForward));
static_assert(has<cudnnStatus_t(cudnnHandle_t, int*)>(cudnnGetConvolutionBackwardDataAlgorithmMaxCount));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int, int*,
                                cudnnConvolutionBwdDataAlgoPerf_t*)>(cudnnGetConvolutionBackwardDataAlgorithm_v7));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, cudnnFilterDescriptor_t, const void*, cudnnTensorDescriptor_t, const void*,
                      cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, void*, int, int*,
                      cudnnConvolutionBwdDataAlgoPerf_t*, void*, size_t)>(cudnnFindConvolutionBackwardDataAlgorithmEx));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionBwdDataAlgo_t,
                                size_t*)>(cudnnGetConvolutionBackwardDataWorkspaceSize));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnFilterDescriptor_t, const void*, cudnnTensorDescriptor_t,
                      const void*, cudnnConvolutionDescriptor_t, cudnnConvolutionBwdDataAlgo_t, void*, size_t,
                      const void*, cudnnTensorDescriptor_t, void*)>(cudnnConvolutionBackwardData));
static_assert(has<cudnnStatus_t(cudnnHandle_t, int*)>(cudnnGetConvolutionBackwardFilterAlgorithmMaxCount));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, int, int*,
                                cudnnConvolutionBwdFilterAlgoPerf_t*)>(cudnnGetConvolutionBackwardFilterAlgorithm_v7));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t,
                                const void*, cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, void*, int, int*,
                                cudnnConvolutionBwdFilterAlgoPerf_t*, void*, size_t)>(
    cudnnFindConvolutionBackwardFilterAlgorithmEx));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t,
                                cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, cudnnConvolutionBwdFilterAlgo_t,
                                size_t*)>(cudnnGetConvolutionBackwardFilterWorkspaceSize));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t,
                      const void*, cudnnConvolutionDescriptor_t, cudnnConvolutionBwdFilterAlgo_t, void*, size_t,
                      const void*, cudnnFilterDescriptor_t, void*)>(cudnnConvolutionBackwardFilter));
static_assert(has<cudnnStatus_t(cudnnHandle_t, const void*, cudnnTensorDescriptor_t, const void*, const void*,
                                cudnnTensorDescriptor_t, void*)>(cudnnConvolutionBackwardBias));
static_assert(has<cudnnStatus_t(cudnnPoolingDescriptor_t*)>(cudnnCreatePoolingDescriptor));
static_assert(has<cudnnStatus_t(cudnnPoolingDescriptor_t)>(cudnnDestroyPoolingDescriptor));
static_assert(has<cudnnStatus_t(cudnnPoolingDescriptor_t, cudnnPoolingMode_t, cudnnNanPropagation_t, int, int, int, int,
                                int, int)>(cudnnSetPooling2dDescriptor));
static_assert(has<cudnnStatus_t(cudnnPoolingDescriptor_t, cudnnPoolingMode_t*, cudnnNanPropagation_t*, int*, int*, int*,
                                int*, int*, int*)>(cudnnGetPooling2dDescriptor));
static_assert(has<cudnnStatus_t(cudnnPoolingDescriptor_t, cudnnTensorDescriptor_t, int*, int*, int*, int*)>(
    cudnnGetPooling2dForwardOutputDim));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnPoolingDescriptor_t, const void*, cudnnTensorDescriptor_t,
                                const void*, const void*, cudnnTensorDescriptor_t, void*)>(cudnnPoolingForward));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnPoolingDescriptor_t, const void*, cudnnTensorDescriptor_t,
                                const void*, cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t, const void*,
                                const void*, cudnnTensorDescriptor_t, void*)>(cudnnPoolingBackward));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, cudnnSoftmaxAlgorithm_t, cudnnSoftmaxMode_t, const void*, cudnnTensorDescriptor_t,
                      const void*, const void*, cudnnTensorDescriptor_t, void*)>(cudnnSoftmaxForward));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnSoftmaxAlgorithm_t, cudnnSoftmaxMode_t, const void*,
                                cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t, const void*, const void*,
                                cudnnTensorDescriptor_t, void*)>(cudnnSoftmaxBackward));
static_assert(has<cudnnStatus_t(cudnnActivationDescriptor_t*)>(cudnnCreateActivationDescriptor));
static_assert(has<cudnnStatus_t(cudnnActivationDescriptor_t)>(cudnnDestroyActivationDescriptor));
static_assert(has<cudnnStatus_t(cudnnActivationDescriptor_t, cudnnActivationMode_t, cudnnNanPropagation_t, double)>(
    cudnnSetActivationDescriptor));
static_assert(has<cudnnStatus_t(cudnnActivationDescriptor_t, cudnnActivationMode_t*, cudnnNanPropagation_t*, double*)>(
    cudnnGetActivationDescriptor));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnActivationDescriptor_t, const void*, cudnnTensorDescriptor_t,
                                const void*, const void*, cudnnTensorDescriptor_t, void*)>(cudnnActivationForward));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnActivationDescriptor_t, const void*, cudnnTensorDescriptor_t,
                                const void*, cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t, const void*,
                                const void*, cudnnTensorDescriptor_t, void*)>(cudnnActivationBackward));
static_assert(has<cudnnStatus_t(cudnnTensorDescriptor_t, cudnnTensorDescriptor_t, cudnnBatchNormMode_t)>(
    cudnnDeriveBNTensorDescriptor));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, cudnnBatchNormMode_t, const void*, const void*, cudnnTensorDescriptor_t,
                      const void*, cudnnTensorDescriptor_t, void*, cudnnTensorDescriptor_t, const void*, const void*,
                      double, void*, void*, double, void*, void*)>(cudnnBatchNormalizationForwardTraining));
static_assert(
    has<cudnnStatus_t(cudnnHandle_t, cudnnBatchNormMode_t, const void*, const void*, cudnnTensorDescriptor_t,
                      const void*, cudnnTensorDescriptor_t, void*, cudnnTensorDescriptor_t, const void*, const void*,
                      const void*, const void*, double)>(cudnnBatchNormalizationForwardInference));
static_assert(has<cudnnStatus_t(cudnnHandle_t, cudnnBatchNormMode_t, const void*, const void*, const void*, const void*,
                                cudnnTensorDescriptor_t, const void*, cudnnTensorDescriptor_t, const void*,
                                cudnnTensorDescriptor_t, void*, cudnnTensorDescriptor_t, const void*, void*, void*,
                                double, const void*, const void*)>(cudnnBatchNormalizationBackward));

// Structures.
static_assert(std::is_same_v<decltype(cudaDeviceProp::name), char[256]>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::totalGlobalMem), size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerBlock), size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::regsPerBlock), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::warpSize), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxThreadsPerBlock), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxThreadsDim), int[3]>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxGridSize), int[3]>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::totalConstMem), size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::major), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::minor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::multiProcessorCount), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::integrated), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::canMapHostMemory), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::concurrentKernels), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::asyncEngineCount), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::unifiedAddressing), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::memoryBusWidth), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::l2CacheSize), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxThreadsPerMultiProcessor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerMultiprocessor), size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::regsPerMultiprocessor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::cooperativeLaunch), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerBlockOptin), size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxBlocksPerMultiProcessor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::memoryPoolsSupported), int>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::type), cudaMemoryType>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::device), int>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::devicePointer), void*>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::hostPointer), void*>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::sharedSizeBytes), size_t>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::constSizeBytes), size_t>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::localSizeBytes), size_t>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::maxThreadsPerBlock), int>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::numRegs), int>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::ptxVersion), int>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::binaryVersion), int>);
static_assert(std::is_same_v<decltype(cudaFuncAttributes::maxDynamicSharedSizeBytes), int>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::algo), cudnnConvolutionFwdAlgo_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::status), cudnnStatus_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::time), float>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::memory), size_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::determinism), cudnnDeterminism_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::mathType), cudnnMathType_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionFwdAlgoPerf_t::reserved), int[3]>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::algo), cudnnConvolutionBwdDataAlgo_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::status), cudnnStatus_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::time), float>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::memory), size_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::determinism), cudnnDeterminism_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::mathType), cudnnMathType_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdDataAlgoPerf_t::reserved), int[3]>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::algo), cudnnConvolutionBwdFilterAlgo_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::status), cudnnStatus_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::time), float>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::memory), size_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::determinism), cudnnDeterminism_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::mathType), cudnnMathType_t>);
static_assert(std::is_same_v<decltype(cudnnConvolutionBwdFilterAlgoPerf_t::reserved), int[3]>);
static_assert(sizeof(dim3) == 12 && sizeof(uint3) == 12);
static_assert(CUDNN_DIM_MAX == 8 && CUDNN_MAJOR == 9 && CUDNN_BN_MIN_EPSILON == 0.0);

}  // namespace
