// What streams and events order, and accesses that they don't.
#include "emulation_testing.h"

namespace espalier::testing {
namespace {

__global__ void write(float* x) { x[threadIdx.x] = 1; }
__global__ void read(const float* x) { static_cast<void>(x[threadIdx.x]); }
struct Views {
  const float* x;
};
__global__ void read_struct(Views v) { static_cast<void>(v.x[threadIdx.x]); }

class Streams : public ::testing::Test {
 protected:
  void SetUp() override {
    for (cudaStream_t* stream : {&a_, &b_})
      ASSERT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
  }
  void TearDown() override {
    expect_no_fault();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (const cudaStream_t stream : {a_, b_}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess);
  }
  template <class... P, class... A>
  void on(cudaStream_t stream, const char* name, void (*kernel)(P...), A... arguments) {
    emulation::launch(name, 1, 32, 0, stream, kernel, arguments...);
  }

  cudaStream_t a_ = nullptr, b_ = nullptr;
  cudaEvent_t event_ = nullptr;
  const DeviceArray<float> x_{32};
};

TEST_F(Streams, ReadOfAnotherStreamsWrite) {
  on(a_, "writer", write, x_.data());
  on(b_, "reader", read, x_.data());
  expect_fault(cudaErrorLaunchFailure, {"kernel reader: allocation #", "was last written on stream #",
                                        " by kernel writer, and "
                                        "is now read on stream #",
                                        "without synchronisation between them"});
  on(b_, "reader", read_struct, Views{x_.data()});
  expect_fault(cudaErrorLaunchFailure, {"kernel reader: allocation #"});
  std::vector<float> host(32);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), x_.data(), 4, cudaMemcpyDeviceToHost, b_), cudaErrorLaunchFailure);
  expect_fault(cudaErrorLaunchFailure, {"cudaMemcpyAsync: allocation #", "is now read"});
}

TEST_F(Streams, WriteOverAnotherStreamsReadOrWrite) {
  on(a_, "reader", read, x_.data());
  on(b_, "other reader", read, x_.data());  // readers don't mind each other
  expect_no_fault();
  on(b_, "writer", write, x_.data());
  expect_fault(cudaErrorLaunchFailure, {"kernel writer: allocation #", "was last read on stream #"});
  EXPECT_EQ(cudaMemsetAsync(x_.data(), 0, 4, b_), cudaErrorLaunchFailure);
  expect_fault(cudaErrorLaunchFailure, {"cudaMemsetAsync: "});
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  on(b_, "writer", write, x_.data());
  expect_no_fault();
  on(a_, "writer", write, x_.data());
  expect_fault(cudaErrorLaunchFailure, {"was last written on stream #"});
}

TEST_F(Streams, EventsOrder) {
  on(a_, "writer", write, x_.data());
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_), cudaSuccess);  // not recorded yet: waits for nothing
  on(b_, "reader", read, x_.data());
  expect_fault(cudaErrorLaunchFailure, {"kernel reader"});
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  on(b_, "reader", read, x_.data());  // recorded, but b doesn't wait
  expect_fault(cudaErrorLaunchFailure, {"kernel reader"});
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_), cudaSuccess);
  on(b_, "reader", read, x_.data());
  expect_no_fault();
  on(a_, "writer", write, x_.data());  // b has read it; the event says nothing of that
  expect_fault(cudaErrorLaunchFailure, {"was last read on stream #"});
}

TEST_F(Streams, TheHostsWaitsOrder) {
  on(a_, "writer", write, x_.data());
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  on(b_, "reader", read, x_.data());
  expect_no_fault();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  on(a_, "writer", write, x_.data());
  expect_no_fault();
}

TEST_F(Streams, TheDefaultStreamOrdersBlockingStreams) {
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  on(blocking, "writer", write, x_.data());
  on(nullptr, "writer", write, x_.data());
  on(blocking, "reader", read, x_.data());
  expect_no_fault();
  on(a_, "reader", read, x_.data());
  expect_fault(cudaErrorLaunchFailure, {"was last written on the default stream by kernel writer"});
  EXPECT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
}

TEST_F(Streams, AsynchronousMemoryBelongsToItsStream) {
  float* y = nullptr;
  ASSERT_EQ(cudaMallocAsync(&y, 128, a_), cudaSuccess);
  on(b_, "writer", write, y);
  expect_fault(cudaErrorLaunchFailure, {"was last written on stream #", " by cudaMallocAsync"});
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_), cudaSuccess);
  on(b_, "reader", read, y);
  expect_no_fault();
  EXPECT_EQ(cudaFreeAsync(y, a_), cudaErrorLaunchFailure);  // b may still read it
  expect_fault(cudaErrorLaunchFailure, {"cudaFreeAsync: allocation #", "is now written or freed on stream #"});
  EXPECT_EQ(cudaFree(y), cudaErrorLaunchFailure);
  expect_fault(cudaErrorLaunchFailure, {"cudaFree: allocation #"});
  ASSERT_EQ(cudaEventRecord(event_, b_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(a_, event_), cudaSuccess);
  EXPECT_EQ(cudaFreeAsync(y, a_), cudaSuccess);
}

TEST_F(Streams, PinnedMemoryOnAnotherStream) {
  float* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 128), cudaSuccess);
  const DeviceArray<float> y(32);
  ASSERT_EQ(cudaMemcpyAsync(pinned, x_.data(), 128, cudaMemcpyDeviceToHost, a_), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(y.data(), pinned, 128, cudaMemcpyHostToDevice, b_), cudaErrorLaunchFailure);
  expect_fault(cudaErrorLaunchFailure,
               {"cudaMemcpyAsync: pinned memory at 0x", "without synchronisation with the copy into it"});
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(y.data(), pinned, 128, cudaMemcpyHostToDevice, b_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Streams, QueriesMayComeTooEarly) {
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);  // never recorded
  on(a_, "writer", write, x_.data());
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);
  expect_no_fault();  // "not ready" is an answer, not an error
  on(b_, "reader", read, x_.data());
  expect_no_fault();
  EXPECT_EQ(cudaStreamQuery(b_), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(b_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(a_), cudaSuccess);
}

TEST_F(Streams, ElapsedTime) {
  cudaEvent_t start = nullptr, end = nullptr;
  ASSERT_EQ(cudaEventCreate(&start), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&end), cudaSuccess);
  float milliseconds = -1;
  ASSERT_EQ(cudaEventRecord(start, a_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  ASSERT_EQ(cudaEventRecord(end, a_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, event_), cudaErrorInvalidResourceHandle);
  expect_fault(cudaErrorInvalidResourceHandle, {"measures no time"});
  for (const cudaEvent_t event : {start, end}) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

TEST_F(Streams, HostFunctions) {
  float* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 128), cudaSuccess);
  on(a_, "writer", write, x_.data());
  ASSERT_EQ(cudaMemcpyAsync(pinned, x_.data(), 128, cudaMemcpyDeviceToHost, a_), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                a_, [](void* p) { static_cast<float*>(p)[1] += static_cast<float*>(p)[0]; }, pinned),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(pinned[1], 2);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Streams, DestroyedHandles) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  expect_fault(cudaErrorInvalidResourceHandle, {"the stream's handle is none, or of a stream that was destroyed"});
  EXPECT_EQ(cudaEventRecord(event, a_), cudaErrorInvalidResourceHandle);
  expect_fault(cudaErrorInvalidResourceHandle, {"the event's handle is none"});
  on(stream, "writer", write, x_.data());
  expect_fault(cudaErrorInvalidResourceHandle, {"the stream's handle"});
}

}  // namespace
}  // namespace espalier::testing
