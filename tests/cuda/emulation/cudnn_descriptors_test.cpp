// What cuDNN's descriptors take and refuse, and the sizes that they give. Needs no device: built with the toolkit's
// headers and libraries instead of the stand-ins, the same expectations hold of cuDNN itself.
#include <cudnn.h>

#include <vector>

#include <gtest/gtest.h>

namespace {

constexpr auto kOk = CUDNN_STATUS_SUCCESS;
constexpr auto kBad = CUDNN_STATUS_BAD_PARAM;
constexpr auto kUnsupported = CUDNN_STATUS_NOT_SUPPORTED;
constexpr auto kFloat = CUDNN_DATA_FLOAT;
constexpr auto kNchw = CUDNN_TENSOR_NCHW;

struct CudnnDescriptors : ::testing::Test {
  CudnnDescriptors() {
    EXPECT_EQ(cudnnCreateTensorDescriptor(&tensor), kOk);
    EXPECT_EQ(cudnnCreateTensorDescriptor(&derived), kOk);
    EXPECT_EQ(cudnnCreateFilterDescriptor(&filter), kOk);
    EXPECT_EQ(cudnnCreateConvolutionDescriptor(&convolution), kOk);
    EXPECT_EQ(cudnnCreatePoolingDescriptor(&pooling), kOk);
    EXPECT_EQ(cudnnCreateActivationDescriptor(&activation), kOk);
  }
  ~CudnnDescriptors() override {
    EXPECT_EQ(cudnnDestroyTensorDescriptor(tensor), kOk);
    EXPECT_EQ(cudnnDestroyTensorDescriptor(derived), kOk);
    EXPECT_EQ(cudnnDestroyFilterDescriptor(filter), kOk);
    EXPECT_EQ(cudnnDestroyConvolutionDescriptor(convolution), kOk);
    EXPECT_EQ(cudnnDestroyPoolingDescriptor(pooling), kOk);
    EXPECT_EQ(cudnnDestroyActivationDescriptor(activation), kOk);
  }

  /// Type, then sizes and strides.
  static std::vector<int> contents(cudnnTensorDescriptor_t desc) {
    cudnnDataType_t type{};
    std::vector<int> v(9);
    EXPECT_EQ(cudnnGetTensor4dDescriptor(desc, &type, &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8]), kOk);
    v[0] = type;
    return v;
  }
  static size_t bytes(cudnnTensorDescriptor_t desc) {
    size_t size = 0;
    EXPECT_EQ(cudnnGetTensorSizeInBytes(desc, &size), kOk);
    return size;
  }

  cudnnTensorDescriptor_t tensor = nullptr, derived = nullptr;
  cudnnFilterDescriptor_t filter = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;
  cudnnPoolingDescriptor_t pooling = nullptr;
  cudnnActivationDescriptor_t activation = nullptr;
};

TEST_F(CudnnDescriptors, Tensor) {
  EXPECT_EQ(bytes(tensor), 0U);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 2, 3, 4, 5), kOk);
  EXPECT_EQ(contents(tensor), (std::vector<int>{kFloat, 2, 3, 4, 5, 60, 20, 5, 1}));
  EXPECT_EQ(bytes(tensor), 480U);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, CUDNN_TENSOR_NHWC, CUDNN_DATA_DOUBLE, 2, 3, 4, 5), kOk);
  EXPECT_EQ(contents(tensor), (std::vector<int>{CUDNN_DATA_DOUBLE, 2, 3, 4, 5, 60, 1, 15, 3}));
  EXPECT_EQ(bytes(tensor), 960U);
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 2, 3, 4, 5, 200, 40, 7, 1), kOk);
  EXPECT_EQ(bytes(tensor), 1224U);  // 200 + 2 * 40 + 3 * 7 + 4 + 1 elements, first to last

  EXPECT_EQ(cudnnCreateTensorDescriptor(nullptr), kBad);
  EXPECT_EQ(cudnnDestroyTensorDescriptor(nullptr), kOk);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(nullptr, kNchw, kFloat, 1, 1, 1, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 0, 1, 1, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 1, -1, 1, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, static_cast<cudnnTensorFormat_t>(9), kFloat, 1, 1, 1, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, static_cast<cudnnDataType_t>(77), 1, 1, 1, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 65536, 16384, 1, 1), kOk);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 65536, 32768, 1, 1), kUnsupported);  // 2^31 elements
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 2, 3, 4, 5, 0, 20, 5, 1), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 2, 3, 4, 5, 60, -20, 5, 1), kOk);
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 2, 3, 4, 5, 60, 2, 5, 1), kOk);
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 2, 3, 4, 5, 2000000000, 20, 5, 1), kOk);
  EXPECT_EQ(cudnnSetTensor4dDescriptorEx(tensor, kFloat, 3, 3, 4, 5, 2000000000, 20, 5, 1), kUnsupported);
}

TEST_F(CudnnDescriptors, TensorOfSeveralDimensions) {
  const int dims[8] = {2, 3, 4, 5, 1, 1, 1, 1}, strides[8] = {60, 20, 5, 1, 1, 1, 1, 1};
  for (int rank = -1; rank <= 9; ++rank)
    EXPECT_EQ(cudnnSetTensorNdDescriptor(tensor, kFloat, rank, dims, strides), rank < 2               ? kBad
                                                                               : rank > CUDNN_DIM_MAX ? kUnsupported
                                                                                                      : kOk)
        << rank;
  ASSERT_EQ(cudnnSetTensorNdDescriptor(tensor, kFloat, 5, dims, strides), kOk);
  cudnnDataType_t type{};
  int rank = 0, found[8] = {}, found_strides[8] = {};
  EXPECT_EQ(cudnnGetTensorNdDescriptor(tensor, 3, &type, &rank, found, found_strides), kOk);
  EXPECT_EQ(rank, 5);
  EXPECT_EQ(found[2], 4);
  EXPECT_EQ(found_strides[2], 5);
}

TEST_F(CudnnDescriptors, Filter) {
  size_t size = 0;
  EXPECT_EQ(cudnnSetFilter4dDescriptor(filter, kFloat, kNchw, 4, 3, 2, 5), kOk);
  EXPECT_EQ(cudnnGetFilterSizeInBytes(filter, &size), kOk);
  EXPECT_EQ(size, 480U);
  cudnnDataType_t type{};
  cudnnTensorFormat_t format{};
  int k = 0, c = 0, h = 0, w = 0;
  EXPECT_EQ(cudnnGetFilter4dDescriptor(filter, &type, &format, &k, &c, &h, &w), kOk);
  EXPECT_EQ((std::vector<int>{k, c, h, w}), (std::vector<int>{4, 3, 2, 5}));
  EXPECT_EQ(cudnnSetFilter4dDescriptor(filter, kFloat, kNchw, 0, 3, 3, 3), kBad);
  EXPECT_EQ(cudnnSetFilter4dDescriptor(filter, kFloat, kNchw, 4, 3, -3, 3), kBad);
  EXPECT_EQ(cudnnSetFilter4dDescriptor(filter, kFloat, static_cast<cudnnTensorFormat_t>(8), 4, 3, 3, 3), kBad);
}

TEST_F(CudnnDescriptors, Convolution) {
  const auto set = [&](int pad, int stride, int dilation, int mode = CUDNN_CROSS_CORRELATION, int type = kFloat) {
    return cudnnSetConvolution2dDescriptor(convolution, pad, 2, stride, 4, dilation, 6,
                                           static_cast<cudnnConvolutionMode_t>(mode),
                                           static_cast<cudnnDataType_t>(type));
  };
  cudnnMathType_t math = CUDNN_FMA_MATH;
  int groups = 0;
  EXPECT_EQ(cudnnGetConvolutionMathType(convolution, &math), kOk);
  EXPECT_EQ(math, CUDNN_DEFAULT_MATH);
  EXPECT_EQ(cudnnGetConvolutionGroupCount(convolution, &groups), kOk);
  EXPECT_EQ(groups, 1);
  EXPECT_EQ(set(1, 3, 5), kOk);
  int v[6] = {};
  cudnnConvolutionMode_t mode{};
  cudnnDataType_t type{};
  EXPECT_EQ(cudnnGetConvolution2dDescriptor(convolution, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &mode, &type), kOk);
  EXPECT_EQ(std::vector<int>(v, v + 6), (std::vector<int>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(mode, CUDNN_CROSS_CORRELATION);
  EXPECT_EQ(type, kFloat);
  EXPECT_EQ(set(-1, 1, 1), kBad);
  EXPECT_EQ(set(0, 0, 1), kBad);
  EXPECT_EQ(set(0, 1, 0), kBad);
  EXPECT_EQ(set(0, 1, 1, 5), kBad);
  EXPECT_EQ(set(0, 1, 1, CUDNN_CONVOLUTION, CUDNN_DATA_INT8), kBad);
  EXPECT_EQ(cudnnSetConvolutionGroupCount(convolution, 0), kBad);
  EXPECT_EQ(cudnnSetConvolutionGroupCount(convolution, 2), kOk);
  EXPECT_EQ(cudnnSetConvolutionMathType(convolution, static_cast<cudnnMathType_t>(9)), kBad);
  EXPECT_EQ(cudnnSetConvolutionMathType(convolution, CUDNN_FMA_MATH), kOk);
}

TEST_F(CudnnDescriptors, ConvolutionOutputSize) {
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 2, 3, 8, 9), kOk);
  EXPECT_EQ(cudnnSetConvolution2dDescriptor(convolution, 1, 1, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, kFloat), kOk);
  int n = 0, c = 0, h = 0, w = 0;
  const auto size = [&](int filter_c, int filter_h) {
    EXPECT_EQ(cudnnSetFilter4dDescriptor(filter, kFloat, kNchw, 4, filter_c, filter_h, 3), kOk);
    return cudnnGetConvolution2dForwardOutputDim(convolution, tensor, filter, &n, &c, &h, &w);
  };
  EXPECT_EQ(size(3, 3), kOk);
  EXPECT_EQ((std::vector<int>{n, c, h, w}), (std::vector<int>{2, 4, 8, 9}));
  EXPECT_EQ(size(3, 10), kOk);
  EXPECT_EQ(h, 1);
  EXPECT_EQ(size(3, 11), kBad);  // larger than the padded image
  EXPECT_EQ(size(2, 3), kBad);   // channels
  EXPECT_EQ(cudnnSetConvolutionGroupCount(convolution, 3), kOk);
  EXPECT_EQ(size(1, 3), kOk);
  EXPECT_EQ(size(3, 3), kBad);
  EXPECT_EQ(cudnnSetConvolutionGroupCount(convolution, 1), kOk);
  EXPECT_EQ(cudnnSetConvolution2dDescriptor(convolution, 2, 0, 3, 2, 2, 3, CUDNN_CROSS_CORRELATION, kFloat), kOk);
  EXPECT_EQ(size(3, 3), kOk);  // (8 + 4 - 5) / 3 + 1 and (9 - 7) / 2 + 1
  EXPECT_EQ((std::vector<int>{n, c, h, w}), (std::vector<int>{2, 4, 3, 2}));
}

TEST_F(CudnnDescriptors, Pooling) {
  const auto set = [&](int window, int pad, int stride, int mode = CUDNN_POOLING_MAX, int nan = CUDNN_PROPAGATE_NAN) {
    return cudnnSetPooling2dDescriptor(pooling, static_cast<cudnnPoolingMode_t>(mode),
                                       static_cast<cudnnNanPropagation_t>(nan), window, 3, pad, 1, stride, 2);
  };
  EXPECT_EQ(set(0, 0, 2), kBad);
  EXPECT_EQ(set(2, 0, 0), kBad);
  EXPECT_EQ(set(2, 0, 2, 7), kBad);
  EXPECT_EQ(set(2, 0, 2, CUDNN_POOLING_MAX, 7), kBad);
  EXPECT_EQ(set(2, 3, 2), kOk);
  cudnnPoolingMode_t mode{};
  cudnnNanPropagation_t nan{};
  int v[6] = {};
  EXPECT_EQ(cudnnGetPooling2dDescriptor(pooling, &mode, &nan, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]), kOk);
  EXPECT_EQ(std::vector<int>(v, v + 6), (std::vector<int>{2, 3, 3, 1, 2, 2}));
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, kFloat, 2, 3, 8, 9), kOk);
  int n = 0, c = 0, h = 0, w = 0;
  const auto size = [&] { return cudnnGetPooling2dForwardOutputDim(pooling, tensor, &n, &c, &h, &w); };
  EXPECT_EQ(size(), kOk);
  EXPECT_EQ((std::vector<int>{n, c, h, w}), (std::vector<int>{2, 3, 7, 5}));
  EXPECT_EQ(set(3, 1, 2), kOk);
  EXPECT_EQ(size(), kOk);
  EXPECT_EQ((std::vector<int>{n, c, h, w}), (std::vector<int>{2, 3, 4, 5}));  // rounded down
  EXPECT_EQ(set(9, 0, 2), kOk);
  EXPECT_EQ(size(), kBad);  // larger than the image
}

TEST_F(CudnnDescriptors, Activation) {
  EXPECT_EQ(cudnnSetActivationDescriptor(activation, static_cast<cudnnActivationMode_t>(17), CUDNN_PROPAGATE_NAN, 0),
            kBad);
  EXPECT_EQ(cudnnSetActivationDescriptor(activation, CUDNN_ACTIVATION_ELU, static_cast<cudnnNanPropagation_t>(4), 0),
            kBad);
  EXPECT_EQ(cudnnSetActivationDescriptor(activation, CUDNN_ACTIVATION_ELU, CUDNN_PROPAGATE_NAN, 0.5), kOk);
  cudnnActivationMode_t mode{};
  cudnnNanPropagation_t nan{};
  double coef = 0;
  EXPECT_EQ(cudnnGetActivationDescriptor(activation, &mode, &nan, &coef), kOk);
  EXPECT_EQ(mode, CUDNN_ACTIVATION_ELU);
  EXPECT_EQ(coef, 0.5);
}

TEST_F(CudnnDescriptors, BatchNorm) {
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, CUDNN_TENSOR_NHWC, CUDNN_DATA_HALF, 2, 3, 8, 9), kOk);
  EXPECT_EQ(cudnnDeriveBNTensorDescriptor(derived, tensor, CUDNN_BATCHNORM_SPATIAL), kOk);
  EXPECT_EQ(contents(derived), (std::vector<int>{kFloat, 1, 3, 1, 1, 3, 1, 1, 1}));
  EXPECT_EQ(cudnnDeriveBNTensorDescriptor(derived, tensor, static_cast<cudnnBatchNormMode_t>(8)), kBad);
  EXPECT_EQ(cudnnDeriveBNTensorDescriptor(nullptr, tensor, CUDNN_BATCHNORM_SPATIAL), kBad);
  EXPECT_EQ(cudnnSetTensor4dDescriptor(tensor, kNchw, CUDNN_DATA_DOUBLE, 2, 3, 8, 9), kOk);
  EXPECT_EQ(cudnnDeriveBNTensorDescriptor(derived, tensor, CUDNN_BATCHNORM_PER_ACTIVATION), kOk);
  EXPECT_EQ(contents(derived), (std::vector<int>{CUDNN_DATA_DOUBLE, 1, 3, 8, 9, 216, 72, 9, 1}));
}

TEST(CudnnLibrary, NamesItsStatuses) {
  EXPECT_EQ(cudnnGetVersion() / 10000, static_cast<size_t>(CUDNN_MAJOR));
  EXPECT_STREQ(cudnnGetErrorString(CUDNN_STATUS_BAD_PARAM), "CUDNN_STATUS_BAD_PARAM");
  EXPECT_STREQ(cudnnGetErrorString(CUDNN_STATUS_NOT_SUPPORTED), "CUDNN_STATUS_NOT_SUPPORTED");
  EXPECT_STREQ(cudnnGetErrorString(static_cast<cudnnStatus_t>(12345)), "CUDNN_UNKNOWN_STATUS");
  EXPECT_EQ(cudnnCreate(nullptr), kBad);
  EXPECT_EQ(cudnnDestroy(nullptr), kOk);
  EXPECT_EQ(cudnnSetStream(nullptr, nullptr), kBad);
}

TEST(CudnnLibrary, WantsAHandle) {
  const float one = 1;
  float x[4] = {};
  cudnnTensorDescriptor_t d = nullptr;
  ASSERT_EQ(cudnnCreateTensorDescriptor(&d), kOk);
  ASSERT_EQ(cudnnSetTensor4dDescriptor(d, kNchw, kFloat, 1, 1, 2, 2), kOk);
  EXPECT_EQ(cudnnSetTensor(nullptr, d, x, &one), kBad);
  EXPECT_EQ(cudnnScaleTensor(nullptr, d, x, &one), kBad);
  EXPECT_EQ(cudnnAddTensor(nullptr, &one, d, x, &one, d, x), kBad);
  EXPECT_EQ(cudnnSoftmaxForward(nullptr, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_CHANNEL, &one, d, x, &one, d, x),
            kBad);
  EXPECT_EQ(cudnnDestroyTensorDescriptor(d), kOk);
}

}  // namespace
