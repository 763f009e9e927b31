// Device memory: what a kernel or the host may not do with it, and how it is given out.
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <cstring>

#include "cuda/emulation/library.h"
#include "emulation_testing.h"

namespace espalier::testing {
namespace {

__global__ void write_at(float* x, int64_t index) { x[index] = 1; }
__global__ void read_at(const float* x, int64_t index, float* out) { out[0] = x[index]; }
__global__ void nothing(const void*) {}

TEST(DeviceMemory, OutOfBounds) {
  const DeviceArray<float> x(std::vector<float>(112)), out(1);
  run(1, 1, write_at, x.data(), 111);
  expect_no_fault();
  run(1, 1, write_at, x.data(), 112);
  expect_fault(cudaErrorIllegalAddress,
               {"kernel kernel_of_test, block (0,0,0), thread (0,0,0): writes device memory at 0x",
                ": 0 bytes past the end of allocation #", " (448 bytes by cudaMalloc)"});
  run(1, 1, read_at, x.data(), 115, out.data());
  expect_fault(cudaErrorIllegalAddress, {": reads device memory at 0x", ": 12 bytes past the end of allocation #"});
  run(1, 1, write_at, x.data(), 10'000);
  expect_fault(cudaErrorIllegalAddress, {": 39552 bytes past the end of allocation #"});
  run(1, 1, write_at, x.data(), -2000);
  expect_fault(cudaErrorIllegalAddress, {": writes device memory"});
  run(1, 1, write_at, x.data(), int64_t{1} << 40);
  expect_fault(cudaErrorIllegalAddress, {" memory at 0x", ", which is no device memory"});
}

TEST(DeviceMemory, WritesBesideAnAllocation) {
  const DeviceArray<float> x(std::vector<float>(10));
  run(1, 1, write_at, x.data(), 10);  // the rest of 64 bytes is accessible: found after the launch
  expect_fault(cudaErrorIllegalAddress, {"kernel kernel_of_test: wrote out of bounds", "allocation #", "(40 bytes by"});
  const DeviceArray<float> y(std::vector<float>(10));
  run(1, 1, write_at, y.data(), -1);
  expect_fault(cudaErrorIllegalAddress, {"wrote out of bounds"});
}

TEST(DeviceMemory, IsNaNUntilItIsWritten) {
  float* x = nullptr;
  ASSERT_EQ(cudaMalloc(&x, 12), cudaSuccess);
  float values[3] = {};
  ASSERT_EQ(cudaMemcpy(values, x, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  for (const float v : values) EXPECT_TRUE(std::isnan(v));
  ASSERT_EQ(cudaMemset(x, 0, 12), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(values, x, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  for (const float v : values) EXPECT_EQ(v, 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x) % 64, 0u);
  EXPECT_EQ(cudaFree(x), cudaSuccess);
}

struct OnePointer {
  float* x;
};
__global__ void write_struct(OnePointer p) { p.x[0] = 1; }

TEST(DeviceMemory, UseAfterFree) {
  float *x = nullptr, *pooled = nullptr;
  ASSERT_EQ(cudaMalloc(&x, 64), cudaSuccess);
  ASSERT_EQ(cudaFree(x), cudaSuccess);
  run(1, 1, write_at, x, 0);
  expect_fault(cudaErrorIllegalAddress,
               {"argument 0 is device pointer 0x", "(64 bytes by cudaMalloc, freed by cudaFree)"});
  run(1, 1, write_struct, OnePointer{x});
  expect_fault(cudaErrorIllegalAddress, {"writes device memory", "freed by cudaFree"});
  float value = 0;
  EXPECT_EQ(cudaMemcpy(&value, x, 4, cudaMemcpyDeviceToHost), cudaErrorIllegalAddress);
  expect_fault(cudaErrorIllegalAddress, {"cudaMemcpy: 4 bytes at device pointer", "freed by cudaFree"});
  ASSERT_EQ(cudaMallocAsync(&pooled, 64, nullptr), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(pooled, nullptr), cudaSuccess);
  run(1, 1, write_at, pooled, 0);
  expect_fault(cudaErrorIllegalAddress, {"by cudaMallocAsync, freed by cudaFreeAsync"});
}

TEST(DeviceMemory, AddressesAreNotReusedSoon) {
  float* first = nullptr;
  ASSERT_EQ(cudaMalloc(&first, 64), cudaSuccess);
  ASSERT_EQ(cudaFree(first), cudaSuccess);
  for (int i = 0; i < 1000; ++i) {
    float* next = nullptr;
    ASSERT_EQ(cudaMalloc(&next, 64), cudaSuccess);
    EXPECT_NE(next, first);
    ASSERT_EQ(cudaFree(next), cudaSuccess);
  }
}

/// The operating system limits a process to some 65,000 mappings: what was freed must not count.
TEST(DeviceMemory, FreedAllocationsLeaveNothingBehind) {
  for (int i = 0; i < 70'000; ++i) {
    char* x = nullptr;
    ASSERT_EQ(cudaMalloc(&x, 100), cudaSuccess) << "allocation " << i;
    ASSERT_EQ(cudaFree(x), cudaSuccess);
  }
}

TEST(DeviceMemory, WrongFrees) {
  char* x = nullptr;
  ASSERT_EQ(cudaMalloc(&x, 64), cudaSuccess);
  EXPECT_EQ(cudaFree(x + 4), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"cudaFree of 0x", "which is no live allocation: 4 bytes into"});
  EXPECT_EQ(cudaFreeAsync(x, nullptr), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"cudaFreeAsync of memory that cudaMallocAsync didn't give"});
  EXPECT_EQ(cudaFree(x), cudaSuccess);
  EXPECT_EQ(cudaFree(x), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"freed by cudaFree"});
  int on_host = 0;
  EXPECT_EQ(cudaFree(&on_host), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"a host pointer"});
  EXPECT_EQ(cudaFreeHost(&on_host), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"which is no pinned memory"});
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
}

struct TwoPointers {
  float *unused, *x;
};
__global__ void write_second(TwoPointers p) { p.x[0] = 1; }

TEST(DeviceMemory, HostPointerGivenToAKernel) {
  std::vector<float> on_host(8);
  run(1, 1, write_at, on_host.data(), 0);
  expect_fault(cudaErrorIllegalAddress, {"kernel kernel_of_test: host pointer given to kernel: argument 0 is 0x"});
  float on_stack = 0;
  run(1, 1, write_struct, OnePointer{&on_stack});
  expect_fault(cudaErrorIllegalAddress, {"writes through a host pointer given to the kernel in a struct"});
  run(1, 1, nothing, nullptr);
  expect_no_fault();
  const DeviceArray<float> x(1);
  run(1, 1, write_second, TwoPointers{&on_stack, x.data()});  // it is there, and nobody follows it
  expect_no_fault();
  EXPECT_EQ(x.host()[0], 1);
}

struct IntWithPadding {
  int n;
  alignas(8) int* out;
};
__global__ void write_n(IntWithPadding p) { p.out[0] = p.n; }
/// An int whose padding makes it look like an address stays what it is.
TEST(DeviceMemory, IntBesidePaddingIsNotChanged) {
  const DeviceArray<int> out(std::vector<int>{0});
  float on_stack = 0;
  for (const void* address : {static_cast<const void*>(out.data()), static_cast<const void*>(&on_stack)}) {
    IntWithPadding p{};
    std::memcpy(&p, &address, sizeof(address));
    p.out = out.data();
    run(1, 1, write_n, p);
    expect_no_fault();
    EXPECT_EQ(out.host()[0], static_cast<int>(reinterpret_cast<uintptr_t>(address) & 0xffffffffu));
  }
}

TEST(DeviceMemory, NullAndWildPointersInAKernel) {
  run(1, 1, write_at, nullptr, 2);
  expect_fault(cudaErrorIllegalAddress, {"writes through a null pointer (address 0x8)"});
  run(1, 1, write_struct, OnePointer{reinterpret_cast<float*>(0x1234567890abcdefu)});
  expect_fault(cudaErrorMisalignedAddress, {"or an address that can't be one"});
}

__global__ void follow(float** table) { table[0][0] = 1; }
TEST(DeviceMemory, PointersThatReachAKernelThroughMemory) {
  const DeviceArray<float> x(4);
  const DeviceArray<float*> table(std::vector<float*>{x.data()});
  run(1, 1, follow, table.data());
  expect_fault(cudaErrorIllegalAddress,
               {"0 bytes into allocation #", "a pointer that reached the kernel through memory"});
}

__global__ void vector_at(const float* x, float4* out) { out[0] = *reinterpret_cast<const float4*>(x); }
__global__ void atomic_at(char* x) { atomicAdd(reinterpret_cast<int*>(x), 1); }
TEST(DeviceMemory, MisalignedAddress) {
  const DeviceArray<float> x(8), out(4);
  auto* const four = reinterpret_cast<float4*>(out.data());
  run(1, 1, vector_at, x.data() + 4, four);
  expect_no_fault();
  run(1, 1, vector_at, x.data() + 1, four);
  expect_fault(cudaErrorMisalignedAddress, {"a vector access to a misaligned address"});
  run(1, 1, atomic_at, reinterpret_cast<char*>(x.data()) + 2);
  expect_fault(cudaErrorMisalignedAddress, {"atomic function on misaligned address 0x"});
}

TEST(DeviceMemoryDeathTest, HostFollowsADevicePointer) {
  float* x = nullptr;
  ASSERT_EQ(cudaMalloc(&x, 40), cudaSuccess);
  volatile float sink = 0;
  EXPECT_DEATH(sink = x[3],
               "\\[cuda emulation\\] host code dereferenced device pointer 0x[0-9a-f]+: 12 bytes into "
               "allocation #[0-9]+ \\(40 bytes by cudaMalloc\\)");
  EXPECT_DEATH(x[0] = 1, "host code dereferenced device pointer");
  std::vector<float> values(10);
  EXPECT_DEATH(std::memcpy(values.data(), x, 40), "host code dereferenced device pointer");
  EXPECT_EQ(cudaFree(x), cudaSuccess);
  EXPECT_DEATH(sink = x[0], "freed by cudaFree");
  static_cast<void>(sink);
}

TEST(DeviceMemoryDeathTest, OtherFaultsOfTheHostStayWhatTheyAre) {
  volatile int* volatile nowhere = nullptr;
  const auto not_by_us = [](int status) { return !WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT; };
  EXPECT_EXIT(*nowhere = 1, not_by_us, "");
}

TEST(DeviceMemory, OutOfMemory) {
  emulation::set_device_memory(size_t{64} << 20);
  size_t free_before = 0, free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_before, &total), cudaSuccess);
  EXPECT_EQ(total, size_t{64} << 20);
  char *x = nullptr, *y = nullptr;
  ASSERT_EQ(cudaMalloc(&x, size_t{40} << 20), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free_before - free, size_t{40} << 20);
  EXPECT_EQ(cudaMalloc(&y, size_t{40} << 20), cudaErrorMemoryAllocation);
  EXPECT_EQ(y, nullptr);
  expect_fault(cudaErrorMemoryAllocation,
               {"out of memory: cudaMalloc of 41943040 bytes on device 0, of whose 67108864"});
  EXPECT_EQ(cudaMallocAsync(&y, size_t{40} << 20, nullptr), cudaErrorMemoryAllocation);
  cudaGetLastError();
  EXPECT_EQ(cudaMalloc(&y, SIZE_MAX), cudaErrorMemoryAllocation);
  cudaGetLastError();
  ASSERT_EQ(cudaFree(x), cudaSuccess);
  ASSERT_EQ(cudaMallocAsync(&y, size_t{40} << 20, nullptr), cudaSuccess);
  EXPECT_EQ(cudaFreeAsync(y, nullptr), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  emulation::set_device_memory(size_t{16} << 30);
}

TEST(DeviceMemory, PoolStatistics) {
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
  const auto get = [&](cudaMemPoolAttr attribute) {
    uint64_t value = 0;
    EXPECT_EQ(cudaMemPoolGetAttribute(pool, attribute, &value), cudaSuccess);
    return value;
  };
  ASSERT_EQ(cudaMemPoolTrimTo(pool, 0), cudaSuccess);
  const uint64_t used = get(cudaMemPoolAttrUsedMemCurrent);
  uint64_t everything = UINT64_MAX;
  ASSERT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything), cudaSuccess);
  char* x = nullptr;
  ASSERT_EQ(cudaMallocAsync(&x, 5'000'000, nullptr), cudaSuccess);
  EXPECT_EQ(get(cudaMemPoolAttrUsedMemCurrent), used + 5'000'000);
  EXPECT_GE(get(cudaMemPoolAttrReservedMemCurrent), used + 5'000'000);
  ASSERT_EQ(cudaFreeAsync(x, nullptr), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(get(cudaMemPoolAttrUsedMemCurrent), used);
  EXPECT_GE(get(cudaMemPoolAttrUsedMemHigh), used + 5'000'000);
  EXPECT_GE(get(cudaMemPoolAttrReservedMemCurrent), used + 5'000'000);  // below the threshold it stays
  ASSERT_EQ(cudaMemPoolTrimTo(pool, 0), cudaSuccess);
  EXPECT_EQ(get(cudaMemPoolAttrReservedMemCurrent), used);
  uint64_t nothing_kept = 0;
  ASSERT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &nothing_kept), cudaSuccess);
  ASSERT_EQ(cudaMallocAsync(&x, 5'000'000, nullptr), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(x, nullptr), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(get(cudaMemPoolAttrReservedMemCurrent), used);
}

TEST(DeviceMemory, CopiesAreChecked) {
  const DeviceArray<float> x(10), y(10);
  std::vector<float> host(10);
  EXPECT_EQ(cudaMemcpy(x.data(), host.data(), 44, cudaMemcpyHostToDevice), cudaErrorIllegalAddress);
  expect_fault(cudaErrorIllegalAddress, {"cudaMemcpy: 44 bytes at device pointer", "they end 4 bytes past the end of"});
  EXPECT_EQ(cudaMemcpy(x.data(), host.data(), 40, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"cudaMemcpy: the destination is device memory, against the kind of the copy"});
  EXPECT_EQ(cudaMemcpyAsync(x.data(), host.data(), 40, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  expect_fault(cudaErrorInvalidValue, {"cudaMemcpyAsync: the source is host memory"});
  EXPECT_EQ(cudaMemcpy(x.data(), y.data(), 40, static_cast<cudaMemcpyKind>(9)), cudaErrorInvalidMemcpyDirection);
  expect_fault(cudaErrorInvalidMemcpyDirection, {"there is no kind 9"});
  EXPECT_EQ(cudaMemset(host.data(), 0, 40), cudaErrorIllegalAddress);
  expect_fault(cudaErrorIllegalAddress, {"cudaMemset: host pointer"});
  EXPECT_EQ(cudaMemset(x.data(), 0, 41), cudaErrorIllegalAddress);
  cudaGetLastError();
  EXPECT_EQ(cudaMemcpy(x.data(), host.data(), 40, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(y.data(), x.data(), 40, cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(y.host(), host);
}

TEST(PinnedMemory, ArrivesWhenTheHostHasWaited) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  cudaEvent_t done = nullptr;
  ASSERT_EQ(cudaEventCreate(&done), cudaSuccess);
  const DeviceArray<float> x(std::vector<float>{1, 2, 3});
  float* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 12), cudaSuccess);
  for (const bool by_event : {false, true}) {
    std::fill_n(pinned, 3, 0.0f);
    ASSERT_EQ(cudaMemcpyAsync(pinned, x.data(), 12, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(done, stream), cudaSuccess);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(pinned[i]));
    ASSERT_EQ(by_event ? cudaEventSynchronize(done) : cudaStreamSynchronize(stream), cudaSuccess);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(pinned[i], static_cast<float>(i + 1));
  }
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(done), cudaSuccess);
}

TEST(PinnedMemory, ChangedBeforeItsCopyIsDone) {
  const DeviceArray<float> x(3);
  float* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 12), cudaSuccess);
  std::fill_n(pinned, 3, 1.0f);
  ASSERT_EQ(cudaMemcpyAsync(x.data(), pinned, 12, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  pinned[1] = 2;
  ASSERT_EQ(cudaMemcpyAsync(x.data(), pinned, 12, cudaMemcpyHostToDevice), cudaSuccess);
  pinned[1] = 3;
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  expect_fault(cudaErrorLaunchFailure, {"pinned memory at 0x", "was changed before a copy of it to the device"});
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

__global__ void add_two(const float* from, float* to) { to[threadIdx.x] = from[threadIdx.x] + 2; }
TEST(PinnedMemory, IsUsableInKernels) {
  float* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&pinned), 32, cudaHostAllocMapped), cudaSuccess);
  const DeviceArray<float> x(std::vector<float>{1, 2, 3, 4});
  ASSERT_EQ(cudaMemcpyAsync(pinned, x.data(), 16, cudaMemcpyDeviceToHost), cudaSuccess);
  run(1, 4, add_two, pinned, pinned + 4);  // on the copy's stream, after it
  expect_no_fault();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pinned[4 + i], static_cast<float>(i + 3));
  cudaPointerAttributes attributes{};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, pinned), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, x.data()), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, &attributes), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

/// What the emulated libraries use.
TEST(LibraryMemory, IsCheckedLikeAKernels) {
  const DeviceArray<float> x(std::vector<float>{1, 2, 3});
  const auto* const values = static_cast<const float*>(emulation::device_read(x.data(), 12, nullptr, "call, A"));
  EXPECT_EQ(values[2], 3);
  static_cast<float*>(emulation::device_write(x.data(), 12, nullptr, "call, C"))[0] = 9;
  EXPECT_EQ(x.host()[0], 9);
  EXPECT_EQ(emulation::device_read(nullptr, 0, nullptr, "call, A"), nullptr);
  const auto expect_thrown = [](const auto& call, const char* words) {
    try {
      call();
      ADD_FAILURE() << "no fault: " << words;
    } catch (const emulation::Fault& fault) {
      EXPECT_NE(std::string(fault.what()).find(words), std::string::npos) << fault.what();
      expect_fault(fault.status, {words});
    }
  };
  float on_host = 0;
  expect_thrown([&] { emulation::device_read(x.data(), 16, nullptr, "call, A"); },
                "call, A: 16 bytes at device pointer");
  expect_thrown([&] { emulation::device_write(&on_host, 4, nullptr, "call, C"); }, "call, C: host pointer 0x");
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  emulation::device_write(x.data(), 12, stream, "call, C");
  expect_thrown([&] { emulation::device_read(x.data(), 12, nullptr, "other"); }, "without synchronisation");
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  emulation::device_read(x.data(), 12, nullptr, "other");
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace espalier::testing
