// Launches that no GPU accepts, errors, and what the emulated machine says of itself.
#include "emulation_testing.h"

namespace espalier::testing {
namespace {

__global__ void write(float* x) { x[0] = 1; }

TEST(Launch, LimitsOfGridAndBlock) {
  const DeviceArray<float> x(1);
  const auto expect_refused = [&](dim3 grid, dim3 block) {
    run(grid, block, write, x.data());
    expect_fault(cudaErrorInvalidConfiguration, {"kernel kernel_of_test: no GPU runs a grid of"});
  };
  expect_refused(0, 1);
  expect_refused(1, 0);
  expect_refused(1, 1025);
  expect_refused(1, dim3(1, 1, 65));
  expect_refused(1, dim3(32, 33));
  expect_refused(dim3(1, 65536), 1);
  expect_refused(dim3(1, 1, 65536), 1);
  expect_refused(0x80000000u, 1);
  run(1, 1024, write, x.data());
  run(dim3(1, 7, 1), dim3(2, 8, 64), write, x.data());
  expect_no_fault();
}

TEST(Launch, FaultsLeaveTheDeviceUsable) {
  const DeviceArray<float> x(std::vector<float>(16));
  for (int i = 0; i < 100; ++i) {
    run(4, 64, write, x.data() + 100'000);
    EXPECT_EQ(cudaPeekAtLastError(), cudaErrorIllegalAddress);
    EXPECT_EQ(emulation::last_fault(), cudaGetErrorString(cudaErrorIllegalAddress));
    expect_fault(cudaErrorIllegalAddress, {"past the end of allocation"});
    run(4, 64, write, x.data());
    expect_no_fault();
  }
  EXPECT_EQ(x.host()[0], 1);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST(Errors, NamesAndWords) {
  EXPECT_STREQ(cudaGetErrorName(cudaSuccess), "cudaSuccess");
  EXPECT_STREQ(cudaGetErrorString(cudaSuccess), "no error");
  EXPECT_STREQ(cudaGetErrorName(cudaErrorNotReady), "cudaErrorNotReady");
  EXPECT_STREQ(cudaGetErrorString(static_cast<cudaError_t>(12345)), "unrecognized error code");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(Devices, Properties) {
  cudaDeviceProp properties{};
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_STREQ(properties.name, "emulated GPU");
  EXPECT_EQ(properties.major, 8);
  EXPECT_EQ(properties.minor, 0);
  EXPECT_EQ(properties.maxGridSize[1], 65535);
  const auto attribute = [](cudaDeviceAttr which) {
    int value = -1;
    EXPECT_EQ(cudaDeviceGetAttribute(&value, which, 0), cudaSuccess);
    return value;
  };
  EXPECT_EQ(attribute(cudaDevAttrMultiProcessorCount), properties.multiProcessorCount);
  EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlock), 48 * 1024);
  EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), 163 * 1024);
  EXPECT_EQ(attribute(cudaDevAttrWarpSize), 32);
  int value = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(9999), 0), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"attribute 9999 isn't emulated"});
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 7), cudaErrorInvalidDevice);
  expect_fault(cudaErrorInvalidDevice, {"there is no device 7"});
}

TEST(Devices, Drivers) {
  int version = 0, runtime = 0, count = -1;
  ASSERT_EQ(cudaRuntimeGetVersion(&runtime), cudaSuccess);
  ASSERT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, runtime);
  for (const int old : {0, 12040}) {
    emulation::set_driver_version(old);
    EXPECT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
    EXPECT_EQ(version, old);
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    EXPECT_EQ(count, 0);
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, 4), cudaErrorInsufficientDriver);
    cudaGetLastError();
  }
  emulation::set_driver_version(runtime);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_GE(count, 1);
}

TEST(Devices, SeveralOfThem) {
  emulation::set_device_count(2);
  int count = 0, device = -1;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 2);
  float *here = nullptr, *there = nullptr;
  cudaStream_t first = nullptr, second = nullptr;
  ASSERT_EQ(cudaMalloc(&here, 64), cudaSuccess);
  ASSERT_EQ(cudaStreamCreate(&first), cudaSuccess);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  ASSERT_EQ(cudaGetDevice(&device), cudaSuccess);
  EXPECT_EQ(device, 1);
  ASSERT_EQ(cudaMalloc(&there, 64), cudaSuccess);
  ASSERT_EQ(cudaStreamCreate(&second), cudaSuccess);
  emulation::launch("write", 1, 1, 0, second, write, there);
  expect_no_fault();
  emulation::launch("write", 1, 1, 0, second, write, here);
  expect_fault(cudaErrorIllegalAddress, {"is memory of device 0, the stream is of device 1"});
  emulation::launch("write", 1, 1, 0, first, write, here);
  expect_fault(cudaErrorInvalidResourceHandle, {"the stream is of device 0, the current device is 1"});
  EXPECT_EQ(cudaMemcpyPeerAsync(here, 0, there, 1, 64, second), cudaSuccess);
  EXPECT_EQ(cudaMemcpyPeerAsync(here, 1, there, 0, 64, second), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"memory of another device"});
  EXPECT_EQ(cudaStreamSynchronize(second), cudaSuccess);
  float value = 0;
  EXPECT_EQ(cudaMemcpy(&value, here, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(value, 1);
  for (const cudaStream_t stream : {first, second}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  for (float* p : {here, there}) EXPECT_EQ(cudaFree(p), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  cudaGetLastError();
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  emulation::set_device_count(1);
}

TEST(Functions, Occupancy) {
  int blocks = 0;
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, write, 256, 0), cudaSuccess);
  EXPECT_EQ(blocks, 8);
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, write, 32, 0), cudaSuccess);
  EXPECT_EQ(blocks, 32);
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, write, 64, 80 * 1024), cudaSuccess);
  EXPECT_EQ(blocks, 2);
}

TEST(Graphs, AreNotSupported) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaErrorNotSupported);
  expect_fault(cudaErrorNotSupported, {"cudaStreamBeginCapture: the emulator has no stream capture and no graphs"});
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace espalier::testing
