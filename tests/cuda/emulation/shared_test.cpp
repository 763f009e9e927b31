// Kernels that use shared memory wrongly.
#include "emulation_testing.h"

namespace espalier::testing {
namespace {

__global__ void write_element(int index) {
  SHARED_ARRAY(float, values, 32);
  if (threadIdx.x == 3) values[index] = 1;
}
TEST(SharedFault, OutOfBounds) {
  run(1, 32, write_element, 31);
  expect_no_fault();
  run(1, 32, write_element, 32);
  expect_fault(cudaErrorIllegalAddress, {"thread (3,0,0): element 32 of shared array 'values', which has 32"});
  run(1, 32, write_element, -1);
  expect_fault(cudaErrorIllegalAddress, {"element -1 of shared array 'values'"});
}

__global__ void write_dynamic(unsigned index) {
  DYNAMIC_SHARED_ARRAY(double, values);
  const auto rest = values + 2;
  if (threadIdx.x == 0) rest[index] = 1;
}
TEST(SharedFault, OutOfBoundsOfDynamicMemory) {
  emulation::launch("dynamic", 1, 32, 80, nullptr, write_dynamic, 7u);
  expect_no_fault();
  emulation::launch("dynamic", 1, 32, 80, nullptr, write_dynamic, 8u);
  expect_fault(cudaErrorIllegalAddress, {"kernel dynamic", "element 10 of shared array 'values', which has 10"});
}

__global__ void read_unwritten(float* out, bool write) {
  SHARED_ARRAY(float, values, 32);
  if (write || threadIdx.x != 4) values[threadIdx.x] = 2;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = values[4];
}
TEST(SharedFault, Uninitialised) {
  const DeviceArray<float> out(1);
  run(1, 32, read_unwritten, out.data(), true);
  expect_no_fault();
  // What an earlier block has written there doesn't count.
  run(1, 32, read_unwritten, out.data(), false);
  expect_fault(cudaErrorLaunchFailure, {"uninitialised shared memory: reads element 4 of 'values'"});
}

__global__ void atomic_on_unwritten(int) {
  SHARED_ARRAY(int, count, 1);
  atomicAdd(&count[0], 1);
}
TEST(SharedFault, AtomicOnUninitialised) {
  run(1, 32, atomic_on_unwritten, 0);
  expect_fault(cudaErrorLaunchFailure, {"uninitialised shared memory: reads element 0 of 'count'"});
}

enum class Between { nothing, syncwarp, shuffle, syncthreads };
/// Each thread reads what the thread `distance` further has written.
__global__ void read_other(int* out, unsigned distance, Between between) {
  SHARED_ARRAY(int, values, 64);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (between == Between::syncwarp) __syncwarp();
  if (between == Between::shuffle) __shfl_sync(kFullMask, 0, 0);
  if (between == Between::syncthreads) __syncthreads();
  out[threadIdx.x] = values[(threadIdx.x + distance) % 64];
}
TEST(SharedFault, RaceOfWriteAndRead) {
  const DeviceArray<int> out(std::vector<int>(64));
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 64, read_other, out.data(), 32u, Between::syncthreads);
    expect_no_fault();
    run(1, 64, read_other, out.data(), 0u, Between::nothing);  // its own
    expect_no_fault();
    for (const Between between : {Between::nothing, Between::syncwarp, Between::shuffle}) {
      run(1, 64, read_other, out.data(), 32u, between);
      // Where the reader came first, nothing was written yet.
      EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure) << seed << " " << static_cast<int>(between);
      const std::string words = emulation::last_fault();
      EXPECT_TRUE(words.find("race: reads element") != std::string::npos ||
                  words.find("race: writes element") != std::string::npos ||
                  words.find("uninitialised shared memory") != std::string::npos)
          << words;
    }
  }
}

__global__ void neighbours(int* out, bool synchronised) {
  SHARED_ARRAY(int, values, 32);
  values[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (synchronised) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}
TEST(SharedFault, RaceWithinAWarp) {
  const DeviceArray<int> out(std::vector<int>(32));
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 32, neighbours, out.data(), true);
    expect_no_fault();
    run(1, 32, neighbours, out.data(), false);
    expect_fault(cudaErrorLaunchFailure, {"race: ", " of shared array 'values', which thread ("});
  }
}

__global__ void halves(int* out, unsigned distance) {
  SHARED_ARRAY(int, values, 32);
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncwarp(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
  out[threadIdx.x] = values[threadIdx.x ^ distance];
}
TEST(SharedFault, SyncwarpOfAHalfDoesNotOrderTheOther) {
  const DeviceArray<int> out(std::vector<int>(32));
  run(1, 32, halves, out.data(), 8u);
  expect_no_fault();
  run(1, 32, halves, out.data(), 16u);
  expect_fault(cudaErrorLaunchFailure, {"race: "});
}

__global__ void all_write_one(int) {
  SHARED_ARRAY(int, value, 1);
  value[0] = 7;
}
TEST(SharedFault, RaceOfTwoWrites) {
  run(1, 32, all_write_one, 0);
  expect_fault(cudaErrorLaunchFailure,
               {"race: writes element 0 of shared array 'value', which thread (", "has written"});
}

/// A tree that has forgotten the barrier at the end of its loop.
__global__ void tree(int* out, bool barrier) {
  SHARED_ARRAY(int, values, 128);
  values[threadIdx.x] = 1;
  __syncthreads();
  for (unsigned step = 64; step > 0; step /= 2) {
    if (threadIdx.x < step) values[threadIdx.x] += values[threadIdx.x + step];
    if (barrier) __syncthreads();
  }
  if (threadIdx.x == 0) out[0] = values[0];
}
TEST(SharedFault, MissingBarrierInAReduction) {
  const DeviceArray<int> out(std::vector<int>(1));
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 128, tree, out.data(), true);
    expect_no_fault();
    EXPECT_EQ(out.host()[0], 128);
    run(1, 128, tree, out.data(), false);
    expect_fault(cudaErrorLaunchFailure, {"race: ", "shared array 'values'"});
  }
}

/// Reads, then reuses the array, with no barrier after the reads.
__global__ void reuse(int* out, bool barrier) {
  SHARED_ARRAY(double, values, 64);
  values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = static_cast<int>(values[63 - threadIdx.x]);
  if (barrier) __syncthreads();
  values[threadIdx.x] = 2;
}
TEST(SharedFault, RaceOfReadAndLaterWrite) {
  const DeviceArray<int> out(std::vector<int>(64));
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 64, reuse, out.data(), true);
    expect_no_fault();
    run(1, 64, reuse, out.data(), false);
    expect_fault(cudaErrorLaunchFailure, {"race: ", "shared array 'values', which thread ("});
  }
}

__global__ void count(int* out, bool barrier_before, bool barrier_after) {
  SHARED_ARRAY(int, sum, 1);
  if (threadIdx.x == 0) sum[0] = 0;
  if (barrier_before) __syncthreads();
  atomicAdd(&sum[0], 1);
  if (barrier_after) __syncthreads();
  if (threadIdx.x == 0) out[0] = sum[0];
}
TEST(SharedFault, AtomicsRaceWithPlainAccesses) {
  const DeviceArray<int> out(std::vector<int>(1));
  run(1, 64, count, out.data(), true, true);
  expect_no_fault();
  EXPECT_EQ(out.host()[0], 64);
  run(1, 64, count, out.data(), true, false);
  expect_fault(cudaErrorLaunchFailure, {"race: ", "shared array 'sum'"});
  int found = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 2, count, out.data(), false, true);  // either thread may come first
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
    found += emulation::last_fault().find("race: ") != std::string::npos;
  }
  EXPECT_GT(found, 0);
}

template <int N>
__global__ void large_static(int) {
  SHARED_ARRAY(float, large, N);
  large[threadIdx.x] = 0;
}
TEST(SharedFault, StaticMemoryBeyondTheLimit) {
  run(1, 32, large_static<12 * 1024>, 0);
  expect_no_fault();
  run(1, 32, large_static<12 * 1024 + 1>, 0);
  expect_fault(cudaErrorLaunchOutOfResources, {"static shared memory of 49168 bytes up to 'large' exceeds the 49152"});
  emulation::launch("both", 1, 32, 1024, nullptr, large_static<12 * 1024>, 0);
  expect_fault(cudaErrorLaunchOutOfResources,
               {"1024 bytes of dynamic and 49152 of static shared memory exceed the 49152"});
}

__global__ void large_dynamic(int) {
  DYNAMIC_SHARED_ARRAY(int, values);
  if (threadIdx.x == 0) values[12 * 1024] = 0;
}
TEST(SharedFault, DynamicMemoryBeyondTheLimit) {
  const size_t bytes = 48 * 1024 + 4;
  emulation::launch("large", 1, 32, bytes, nullptr, large_dynamic, 0);
  expect_fault(cudaErrorInvalidValue, {"kernel large: 49156 bytes of dynamic shared memory; a block may have 49152"});
  ASSERT_EQ(cudaFuncSetAttribute(large_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
            cudaSuccess);
  emulation::launch("large", 1, 32, bytes, nullptr, large_dynamic, 0);
  expect_no_fault();
  cudaFuncAttributes attributes{};
  ASSERT_EQ(cudaFuncGetAttributes(&attributes, large_dynamic), cudaSuccess);
  EXPECT_EQ(attributes.maxDynamicSharedSizeBytes, static_cast<int>(bytes));
  EXPECT_EQ(cudaFuncSetAttribute(large_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024),
            cudaErrorInvalidValue);
  cudaGetLastError();
}

}  // namespace
}  // namespace espalier::testing
