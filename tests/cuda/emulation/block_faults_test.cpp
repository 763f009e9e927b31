// Kernels that are wrong in how the threads of a block meet, or that the processor stops: each is found, and named.
#include "emulation_testing.h"

namespace espalier::testing {
namespace {

__global__ void barrier_of_some(int) {
  if (threadIdx.x < 5) __syncthreads();
}
TEST(BlockFault, BarrierNotReachedByAll) {
  run(2, 64, barrier_of_some, 0);
  expect_fault(cudaErrorLaunchFailure, {"kernel kernel_of_test, block (", "the barrier at block_faults_test.cpp:",
                                        "was reached by 5 of 64 threads; the others have ended, thread (5,0,0)"});
}

__global__ void two_barriers(int) {
  if (threadIdx.x == 3) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
TEST(BlockFault, BarriersAtDifferentPlaces) {
  run(1, 32, two_barriers, 0);
  expect_fault(cudaErrorLaunchFailure, {"reached the barrier at block_faults_test.cpp:", "while thread (", "waits at"});
}

__global__ void barrier_and_exchange(int) {
  if (threadIdx.x == 3) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}
TEST(BlockFault, BarrierWhileTheWarpExchanges) {
  run(1, 64, barrier_and_exchange, 0);
  expect_fault(cudaErrorLaunchFailure,
               {"for the lanes of mask 0xffffffff, but thread (3,0,0) waits at the barrier at"});
}

__global__ void exchange_of_some(int) {
  if (threadIdx.x != 9) __shfl_xor_sync(kFullMask, 1.0f, 1);
}
TEST(BlockFault, LaneThatTheMaskNamesHasEnded) {
  for (uint64_t seed = 0; seed < 10; ++seed) {  // it may end before or after the others come
    emulation::set_seed(seed);
    run(1, 32, exchange_of_some, 0);
    const std::string words = cudaGetErrorString(cudaPeekAtLastError());
    EXPECT_TRUE(words.find("thread (9,0,0) has ended") != std::string::npos ||
                words.find("names lane 9, which has ended or never was") != std::string::npos)
        << words;
    expect_fault(cudaErrorLaunchFailure, {"0xffffffff at block_faults_test.cpp:"});
  }
}

__global__ void vote(int) { __any_sync(kFullMask, 1); }
TEST(BlockFault, LaneThatTheMaskNamesNeverWas) {
  run(1, 48, vote, 0);
  expect_fault(cudaErrorLaunchFailure, {"names lane 16, which has ended or never was"});
}

__global__ void mask_without_caller(int) { __ballot_sync(0xffff0000u, 1); }
TEST(BlockFault, MaskLacksTheCaller) {
  run(1, 16, mask_without_caller, 0);
  expect_fault(cudaErrorLaunchFailure, {"the mask 0xffff0000 at block_faults_test.cpp:", "lacks the calling lane"});
}

__global__ void different_masks(int) { __syncwarp(threadIdx.x == 0 ? 0x3u : kFullMask); }
TEST(BlockFault, LanesWithDifferentMasks) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulation::set_seed(seed);
    run(1, 32, different_masks, 0);
    expect_fault(cudaErrorLaunchFailure, {"0x00000003", "0xffffffff"});
  }
}

__global__ void different_operations(int) {
  if (threadIdx.x % 2 == 0) {
    __syncwarp();
  } else {
    __ballot_sync(kFullMask, 1);
  }
}
TEST(BlockFault, LanesInDifferentOperations) {
  run(1, 32, different_operations, 0);
  expect_fault(cudaErrorLaunchFailure, {"calls block_faults_test.cpp:", "with mask 0xffffffff, lane"});
}

__global__ void shuffle_from_outside(int) {
  if (threadIdx.x < 16) __shfl_down_sync(0xffffu, 1, 8u);
}
TEST(BlockFault, ShuffleFromALaneOutsideTheMask) {
  run(1, 32, shuffle_from_outside, 0);
  expect_fault(cudaErrorLaunchFailure, {"at block_faults_test.cpp:", "which isn't in the mask 0x0000ffff"});
}

__global__ void divide(int* x, int by) { x[0] = 5 / by; }
TEST(BlockFault, DivisionByZero) {
  const DeviceArray<int> x(std::vector<int>{0});
  run(1, 1, divide, x.data(), 0);
  expect_fault(cudaErrorLaunchFailure, {"block (0,0,0), thread (0,0,0): an integer was divided by zero"});
}

__global__ void trap(int when) {
  if (static_cast<int>(threadIdx.x) == when) __trap();
}
TEST(BlockFault, Trap) {
  run(1, 32, trap, 7);
  expect_fault(cudaErrorIllegalInstruction, {"thread (7,0,0): an illegal instruction"});
}

__device__ int descend(int depth, volatile int* last) {
  volatile int here[256];
  here[depth % 256] = depth + (last ? last[0] : 0);
  return depth == 0 ? here[0] : descend(depth - 1, here) + here[depth % 256];
}
__global__ void overflow(int* x, int depth) { x[0] = descend(depth, nullptr); }
TEST(BlockFault, StackOverflow) {
  const DeviceArray<int> x(std::vector<int>{0});
  run(1, 1, overflow, x.data(), 20);
  expect_no_fault();
  run(1, 1, overflow, x.data(), 100000);
  expect_fault(cudaErrorHardwareStackError, {"the thread's local variables exceed the emulator's 131072 bytes"});
}

__global__ void fault_of_one_block(float* x) {
  __syncthreads();
  if (blockIdx.x == 5 && threadIdx.x == 40) x[10'000'000] = 1;
  __syncthreads();
}
TEST(BlockFault, OneBlockOfMany) {
  const DeviceArray<float> x(4);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    emulation::set_seed(seed);
    run(64, 128, fault_of_one_block, x.data());
    expect_fault(cudaErrorIllegalAddress, {"block (5,0,0), thread (40,0,0): writes device memory"});
  }
}

}  // namespace
}  // namespace espalier::testing
