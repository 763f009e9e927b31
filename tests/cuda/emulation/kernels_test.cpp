// Kernels as they should be: right results and no fault, whatever the order of blocks and threads.
#include <array>
#include <bit>
#include <numeric>
#include <set>
#include <thread>

#include "emulation_testing.h"

namespace espalier::testing {
namespace {

constexpr int kSeeds = 25;

class RightKernel : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { emulation::set_seed(static_cast<uint64_t>(GetParam())); }
  void TearDown() override { expect_no_fault(); }
};
INSTANTIATE_TEST_SUITE_P(Seeds, RightKernel, ::testing::Range(0, kSeeds));

__global__ void axpy(float a, const float* x, float* y, int64_t n) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) y[i] += a * x[i];
}

TEST_P(RightKernel, GridStride) {
  const std::vector<float> x = random_values<float>(5000, 1), y = random_values<float>(5000, 2);
  const DeviceArray<float> dx(x), dy(y);
  run(7, 96, axpy, 2.0f, dx.data(), dy.data(), 5000);
  const std::vector<float> got = dy.host();
  for (size_t i = 0; i < x.size(); ++i) ASSERT_FLOAT_EQ(got[i], y[i] + 2 * x[i]);
}

template <class T, class Array>
__device__ T block_sum(T v, const Array& partial) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_down_sync(kFullMask, v, static_cast<unsigned>(offset));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? static_cast<T>(partial[threadIdx.x]) : T{0};
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kFullMask, v, offset);
  }
  return v;
}

template <class T>
__global__ void row_sums(const T* x, T* sums, int rows, int columns) {
  SHARED_ARRAY(T, partial, 32);
  for (int row = static_cast<int>(blockIdx.x); row < rows; row += static_cast<int>(gridDim.x)) {
    T v = 0;
    for (int j = static_cast<int>(threadIdx.x); j < columns; j += static_cast<int>(blockDim.x))
      v += x[row * columns + j];
    v = block_sum(v, partial);
    if (threadIdx.x == 0) sums[row] = v;
    __syncthreads();
  }
}

TEST_P(RightKernel, ReductionWithShuffles) {
  const int rows = 9, columns = 333;
  const std::vector<double> x = random_values<double>(rows * columns, 3);
  const DeviceArray<double> dx(x), sums(rows);
  run(4, 128, row_sums<double>, dx.data(), sums.data(), rows, columns);
  std::vector<double> expected(rows);
  for (int i = 0; i < rows; ++i) expected[i] = std::accumulate(&x[i * columns], &x[i * columns] + columns, 0.0);
  expect_close(sums.host(), expected, tolerance<double>(columns));
}

__global__ void tiled_matmul(const float* a, const float* b, float* c, int n) {
  DYNAMIC_SHARED_ARRAY(float, tile_a);
  const int t = static_cast<int>(blockDim.x), tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const auto tile_b = tile_a + t * t;
  const int row = static_cast<int>(blockIdx.y) * t + ty, column = static_cast<int>(blockIdx.x) * t + tx;
  float sum = 0;
  for (int k = 0; k < n; k += t) {
    tile_a[ty * t + tx] = a[row * n + k + tx];
    tile_b[ty * t + tx] = b[(k + ty) * n + column];
    __syncthreads();
    for (int i = 0; i < t; ++i) sum += tile_a[ty * t + i] * tile_b[i * t + tx];
    __syncthreads();
  }
  c[row * n + column] = sum;
}

TEST_P(RightKernel, TiledMatmul) {
  const int n = 32, tile = 8;
  const std::vector<float> a = random_values<float>(n * n, 4), b = random_values<float>(n * n, 5);
  const DeviceArray<float> da(a), db(b), dc(n * n);
  emulation::launch("matmul", dim3(n / tile, n / tile), dim3(tile, tile), 2 * tile * tile * sizeof(float), nullptr,
                    tiled_matmul, da.data(), db.data(), dc.data(), n);
  std::vector<double> expected(n * n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (int k = 0; k < n; ++k) expected[i * n + j] += double{a[i * n + k]} * b[k * n + j];
  expect_close(dc.host(), expected, tolerance<float>(n));
}

__global__ void histogram(const int* x, unsigned* counts, unsigned long long* total, int* largest, int n) {
  SHARED_ARRAY(unsigned, local, 16);
  if (threadIdx.x < 16) local[threadIdx.x] = 0;
  __syncthreads();
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    atomicAdd(&local[x[i] % 16], 1);
    atomicAdd(total, x[i]);
    atomicMax(largest, x[i]);
  }
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(counts + threadIdx.x, local[threadIdx.x]);
}

TEST_P(RightKernel, HistogramWithAtomics) {
  std::vector<int> x(3000);
  std::vector<unsigned> expected(16);
  unsigned long long total = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<int>(i * i % 1009);
    ++expected[x[i] % 16];
    total += static_cast<unsigned>(x[i]);
  }
  const DeviceArray<int> dx(x), largest(std::vector<int>{-1});
  const DeviceArray<unsigned> counts(std::vector<unsigned>(16, 0));
  const DeviceArray<unsigned long long> sum(std::vector<unsigned long long>{0});
  run(12, 256, histogram, dx.data(), counts.data(), sum.data(), largest.data(), 3000);
  EXPECT_EQ(counts.host(), expected);
  EXPECT_EQ(sum.host()[0], total);
  EXPECT_EQ(largest.host()[0], *std::max_element(x.begin(), x.end()));
}

__global__ void every_atomic(unsigned* u, int* i, float* f) {
  atomicSub(&u[0], 1u);
  atomicMin(&u[1], threadIdx.x + 3);
  atomicAnd(&u[2], ~(1u << threadIdx.x % 32));
  atomicOr(&u[3], 1u << threadIdx.x % 32);
  atomicXor(&u[4], threadIdx.x);
  for (unsigned seen = 0;;) {
    const unsigned expected = seen;
    seen = atomicCAS(&u[5], expected, expected + 2);
    if (seen == expected) break;
  }
  if (threadIdx.x == 5) atomicExch(&i[0], -7);
  atomicAdd(f, 0.5f);
}

TEST_P(RightKernel, EveryAtomic) {
  const DeviceArray<unsigned> u(std::vector<unsigned>{100, 100, kFullMask, 0, 0, 0});
  const DeviceArray<int> i(std::vector<int>{0});
  const DeviceArray<float> f(std::vector<float>{0});
  run(1, 64, every_atomic, u.data(), i.data(), f.data());
  EXPECT_EQ(u.host(), (std::vector<unsigned>{36, 3, 0, kFullMask, 0, 128}));
  EXPECT_EQ(i.host()[0], -7);
  EXPECT_EQ(f.host()[0], 32.0f);
}

__global__ void warp_functions(unsigned* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  unsigned* const mine = out + threadIdx.x * 8;
  mine[0] = __ballot_sync(kFullMask, lane % 3 == 0);
  mine[1] = static_cast<unsigned>(__any_sync(kFullMask, lane == 31) * 2 + __all_sync(kFullMask, lane < 32));
  mine[2] = static_cast<unsigned>(__shfl_sync(kFullMask, lane * 10, 7));
  mine[3] = static_cast<unsigned>(__shfl_up_sync(kFullMask, lane, 3u, 8));
  mine[4] = static_cast<unsigned>(__shfl_down_sync(kFullMask, int64_t{lane}, 3u, 8));
  mine[5] = static_cast<unsigned>(__shfl_xor_sync(kFullMask, static_cast<float>(lane), 5));
  // The halves of a warp on their own, one of them more often.
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  unsigned sum = static_cast<unsigned>(lane);
  for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(half, sum, offset);
  if (lane < 16) sum += __ballot_sync(half, 1);
  mine[6] = sum;
  mine[7] = static_cast<unsigned>(__shfl_sync(kFullMask, lane, lane + 1, 4));
}

TEST_P(RightKernel, WarpFunctions) {
  const DeviceArray<unsigned> out(std::vector<unsigned>(64 * 8));
  run(1, 64, warp_functions, out.data());
  const std::vector<unsigned> got = out.host();
  for (unsigned t = 0; t < 64; ++t) {
    const unsigned lane = t % 32, group = lane % 8;
    const std::array<unsigned, 8> expected = {0x49249249u,
                                              3,
                                              70,
                                              group >= 3 ? lane - 3 : lane,
                                              group + 3 < 8 ? lane + 3 : lane,
                                              lane ^ 5,
                                              lane < 16 ? 120u + 0xffffu : 376u,
                                              lane / 4 * 4 + (lane + 1) % 4};
    for (unsigned k = 0; k < 8; ++k) EXPECT_EQ(got[t * 8 + k], expected[k]) << "thread " << t << ", value " << k;
  }
}

__global__ void block_votes(int* out) {
  out[threadIdx.x * 3] = __syncthreads_count(threadIdx.x % 3 == 0);
  out[threadIdx.x * 3 + 1] = __syncthreads_and(threadIdx.x < 50) + 2 * __syncthreads_and(1);
  out[threadIdx.x * 3 + 2] = __syncthreads_or(threadIdx.x == 49) + 2 * __syncthreads_or(0);
}

TEST_P(RightKernel, BlockVotes) {
  const DeviceArray<int> out(std::vector<int>(150));
  run(1, 50, block_votes, out.data());
  const std::vector<int> got = out.host();
  for (size_t t = 0; t < 50; ++t) {
    EXPECT_EQ(got[t * 3], 17);
    EXPECT_EQ(got[t * 3 + 1], 3);
    EXPECT_EQ(got[t * 3 + 2], 1);
  }
}

/// Neighbours exchange through shared memory, separated by __syncwarp only: right within a warp, whole or in halves.
__global__ void warp_neighbours(int* out, bool halves) {
  SHARED_ARRAY(int, value, 64);
  SHARED_ARRAY(unsigned char, small, 64);
  const unsigned mask = !halves ? kFullMask : threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
  for (int round = 0; round < 3; ++round) {
    value[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
    small[threadIdx.x] = static_cast<unsigned char>(threadIdx.x);
    __syncwarp(mask);
    out[threadIdx.x] = value[threadIdx.x ^ 1] * 100 + small[threadIdx.x ^ 1];
    __syncwarp(mask);
  }
}

TEST_P(RightKernel, SyncwarpOrdersSharedMemory) {
  for (const bool halves : {false, true}) {
    const DeviceArray<int> out(std::vector<int>(64));
    run(2, 64, warp_neighbours, out.data(), halves);
    const std::vector<int> got = out.host();
    for (int t = 0; t < 64; ++t) EXPECT_EQ(got[static_cast<size_t>(t)], ((t ^ 1) + 2) * 100 + (t ^ 1));
  }
}

struct Pair {
  float value;
  int index;
};
/// A struct in shared memory, and a tree whose threads leave one after another.
__global__ void largest(const float* x, Pair* out) {
  SHARED_ARRAY(Pair, best, 128);
  const int t = static_cast<int>(threadIdx.x);
  best[t] = Pair{x[t], t};
  __syncthreads();
  for (int step = 64; step > 0; step /= 2) {
    if (t < step) {
      const Pair a = best[t], b = best[t + step];
      if (b.value > a.value) best[t] = b;
    }
    __syncthreads();
  }
  if (t == 0) *out = best[0];
}

TEST_P(RightKernel, TreeOfStructs) {
  const std::vector<float> x = random_values<float>(128, 6);
  const DeviceArray<float> dx(x);
  const DeviceArray<Pair> out(std::vector<Pair>(1));
  run(1, 128, largest, dx.data(), out.data());
  const auto expected = std::max_element(x.begin(), x.end());
  EXPECT_EQ(out.host()[0].value, *expected);
  EXPECT_EQ(out.host()[0].index, expected - x.begin());
}

struct Operands {
  const float* x;
  int n;
  struct {
    float* y[2];
  } outputs;
};
__global__ void with_struct(Operands o, float4* four) {
  for (int i = static_cast<int>(threadIdx.x); i < o.n; i += static_cast<int>(blockDim.x)) {
    o.outputs.y[0][i] = o.x[i];
    o.outputs.y[1][i] = -__ldg(o.x + i);
  }
  if (threadIdx.x == 0) *four = make_float4(1, 2, 3, 4);
}

TEST_P(RightKernel, PointersInStructs) {
  const DeviceArray<float> x(std::vector<float>{1, 2, 3}), y(3), z(3);
  const DeviceArray<float> four(4);
  run(1, 2, with_struct, Operands{x.data(), 3, {{y.data(), z.data()}}}, reinterpret_cast<float4*>(four.data()));
  EXPECT_EQ(y.host(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(z.host(), (std::vector<float>{-1, -2, -3}));
  EXPECT_EQ(four.host(), (std::vector<float>{1, 2, 3, 4}));
}

__global__ void indices(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&out[block * blockDim.x * blockDim.y * blockDim.z + thread], 1u + block * 1000 + thread);
}

TEST_P(RightKernel, EveryThreadOfThreeDimensions) {
  const unsigned threads = 5 * 3 * 2, blocks = 4 * 3 * 6;
  const DeviceArray<unsigned> out(std::vector<unsigned>(threads * blocks, 0));
  run(dim3(4, 3, 6), dim3(5, 3, 2), indices, out.data());
  const std::vector<unsigned> got = out.host();
  for (unsigned i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], 1 + i / threads * 1000 + i % threads);
}

__global__ void add_one(const float* x, float* y, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) y[i] = x[i] + 1;
}

TEST_P(RightKernel, StreamsWithEvents) {
  const int n = 100;
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t filled = nullptr, consumed = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&consumed), cudaSuccess);
  const DeviceArray<float> x(std::vector<float>(n, 0.0f)), y(n);
  for (int round = 0; round < 4; ++round) {
    ASSERT_EQ(cudaStreamWaitEvent(a, consumed), cudaSuccess);
    emulation::launch("a", 1, 32, 0, a, add_one, x.data(), y.data(), n);
    ASSERT_EQ(cudaEventRecord(filled, a), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(b, filled), cudaSuccess);
    emulation::launch("b", 1, 32, 0, b, add_one, y.data(), x.data(), n);
    ASSERT_EQ(cudaEventRecord(consumed, b), cudaSuccess);
  }
  ASSERT_EQ(cudaEventSynchronize(consumed), cudaSuccess);
  EXPECT_EQ(x.host(), std::vector<float>(n, 8.0f));
  for (const cudaStream_t stream : {a, b}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  for (const cudaEvent_t event : {filled, consumed}) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

TEST(Kernels, SeveralHostThreadsLaunch) {
  std::vector<std::thread> threads;
  std::vector<std::vector<double>> got(4);
  for (size_t k = 0; k < got.size(); ++k)
    threads.emplace_back([k, &got] {
      cudaStream_t stream = nullptr;
      ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
      const DeviceArray<double> x(std::vector<double>(3 * 200, static_cast<double>(k))), sums(3);
      for (int i = 0; i < 20; ++i)
        emulation::launch("sums", 3, 64, 0, stream, row_sums<double>, x.data(), sums.data(), 3, 200);
      expect_no_fault();
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      got[k] = sums.host();
      ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t k = 0; k < got.size(); ++k) EXPECT_EQ(got[k], std::vector<double>(3, 200.0 * static_cast<double>(k)));
}

__global__ void order_of_threads(int* next, int* order) {
  order[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __syncthreads();
  order[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}
std::vector<int> order_under(uint64_t seed) {
  emulation::set_seed(seed);
  const DeviceArray<int> next(std::vector<int>{0}), order(std::vector<int>(4 * 37 * 2));
  run(4, 37, order_of_threads, next.data(), order.data());
  return order.host();
}

TEST(Kernels, SeedShufflesBlocksAndThreads) {
  std::set<int> first_blocks, first_threads;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<int> order = order_under(seed);
    EXPECT_EQ(order, order_under(seed));
    first_blocks.insert(order[0] / 37);
    first_threads.insert(order[0] % 37);
    std::vector<int> times(4 * 37);
    for (const int thread : order) ++times[static_cast<size_t>(thread)];
    EXPECT_EQ(times, std::vector<int>(4 * 37, 2));
  }
  EXPECT_EQ(first_blocks.size(), 4u);
  EXPECT_GE(first_threads.size(), 10u);
}

/// Reverses in place, and has forgotten the barrier between reading and writing.
__global__ void reverse_without_barrier(int* x) {
  const int mine = x[threadIdx.x];
  x[blockDim.x - 1 - threadIdx.x] = mine;
}
__global__ void reverse(int* x) {
  const int mine = x[threadIdx.x];
  __syncthreads();
  x[blockDim.x - 1 - threadIdx.x] = mine;
}

TEST(Kernels, MissingBarrierOnDeviceMemoryShowsUnderSomeSeed) {
  std::vector<int> x(64);
  std::iota(x.begin(), x.end(), 0);
  const std::vector<int> expected(x.rbegin(), x.rend());
  int wrong = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulation::set_seed(seed);
    const DeviceArray<int> right(x), missing(x);
    run(1, 64, reverse, right.data());
    run(1, 64, reverse_without_barrier, missing.data());
    EXPECT_EQ(right.host(), expected);
    wrong += missing.host() != expected;
  }
  EXPECT_GT(wrong, 0);
}

__global__ void intrinsics(double* out) {
  out[0] = __popc(0xF0F0u) + __popcll(1ull << 40) + __clz(1) + __clzll(1) + __ffs(8) + __ffsll(0);
  out[1] = __brev(1u) == 0x80000000u && __umulhi(0x80000000u, 6u) == 3u && __mulhi(-1, 1) == -1 &&
           __umul64hi(1ull << 63, 4ull) == 2;
  out[2] = __float_as_int(1.0f) == 0x3f800000 && __int_as_float(0x40000000) == 2.0f &&
           __longlong_as_double(__double_as_longlong(-3.5)) == -3.5;
  out[3] = rsqrt(4.0) + static_cast<double>(rsqrtf(0.25f));
  double s, c;
  sincospi(1.5, &s, &c);
  out[4] = s;
  out[5] = c;
  float sf, cf;
  sincospif(0.25f, &sf, &cf);
  out[6] = static_cast<double>(sf * sf + cf * cf);
  out[7] = max(3, 5) + min(2.0f, 1.5f) + max(1ll, -1ll) + min(7u, 9u);
  out[8] = __fma_rn(3.0, 4.0, 5.0) + static_cast<double>(__fmaf_rn(1.0f, 2.0f, 3.0f));
}

TEST(Kernels, Intrinsics) {
  const DeviceArray<double> out(9);
  run(1, 1, intrinsics, out.data());
  const std::vector<double> expected = {8 + 1 + 31 + 63 + 4, 1, 1, 2.5, -1, 0, 1, 14.5, 22};
  expect_close(out.host(), expected, 1e-6);
}

}  // namespace
}  // namespace espalier::testing
