// The caching allocator: what it counts, what it reuses, and what happens when there is no memory.
#include "core/storage.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/ops.h"

namespace espalier {
namespace {

TEST(Storage, IsAlignedAndKnowsItsSize) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{1000}, size_t{1} << 20}) {
    const Storage storage(bytes, Device::cpu());
    EXPECT_EQ(storage.bytes(), bytes);
    EXPECT_EQ(storage.device(), Device::cpu());
    EXPECT_NE(storage.data(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(storage.data()) % 64, 0u);
  }
}

TEST(Storage, CountsVersions) {
  Storage storage(64, Device::cpu());
  EXPECT_EQ(storage.version(), 0u);
  storage.bump_version();
  EXPECT_EQ(storage.version(), 1u);
}

TEST(Memory, CurrentFollowsLiveStorages) {
  release_cached_memory();
  const size_t before = memory_stats().current;
  {
    const Tensor x = Tensor::empty({1000});  // 4000 bytes
    const size_t with_x = memory_stats().current;
    EXPECT_GE(with_x, before + 4000);
    EXPECT_LE(with_x, before + 4000 + 4000 / 8 + 64);
    const Tensor view = x.slice(0, 0, 10);
    EXPECT_EQ(memory_stats().current, with_x);
  }
  EXPECT_EQ(memory_stats().current, before);
}

TEST(Memory, AViewKeepsItsStorageAlive) {
  const size_t before = memory_stats().current;
  Tensor view;
  {
    Tensor x = Tensor::full({100}, 3);
    view = x.slice(0, 50, 60);
  }
  EXPECT_GT(memory_stats().current, before);
  EXPECT_EQ(view.to_vector<float>(), std::vector<float>(10, 3));
  view = Tensor();
  EXPECT_EQ(memory_stats().current, before);
}

TEST(Memory, PeakIsTheHighestSinceTheReset) {
  reset_peak_memory();
  const size_t before = memory_stats().current;
  EXPECT_EQ(memory_stats().peak, before);
  { const Tensor x = Tensor::empty({100'000}); }
  const size_t peak = memory_stats().peak;
  EXPECT_GE(peak, before + 400'000);
  EXPECT_EQ(memory_stats().current, before);
  { const Tensor x = Tensor::empty({1000}); }
  EXPECT_EQ(memory_stats().peak, peak);
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak, before);
}

TEST(Memory, FreedBlocksAreReused) {
  release_cached_memory();
  EXPECT_EQ(memory_stats().cached, 0u);
  const void* first;
  {
    const Tensor x = Tensor::empty({5000});
    first = x.raw();
  }
  EXPECT_GE(memory_stats().cached, 20'000u);
  const uint64_t calls = memory_stats().system_calls;
  const Tensor y = Tensor::empty({5000});
  EXPECT_EQ(y.raw(), first);
  EXPECT_EQ(memory_stats().system_calls, calls);
  EXPECT_EQ(memory_stats().cached, 0u);
}

TEST(Memory, ASteadyLoopTakesNothingFromTheSystem) {
  const auto step = [] {
    const Tensor x = Tensor::ones({64, 100}), w = Tensor::ones({100, 30});
    return sum(matmul(x, w) * 2.0 + 1.0).item();
  };
  step();
  const MemoryStats before = memory_stats();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(step(), 64 * 30 * 201);
  EXPECT_EQ(memory_stats().system_calls, before.system_calls);
  EXPECT_EQ(memory_stats().current, before.current);
  EXPECT_EQ(memory_stats().cached, before.cached);
}

TEST(Memory, GivesTheCacheBack) {
  { const Tensor x = Tensor::empty({12345}); }
  EXPECT_GT(memory_stats().cached, 0u);
  const size_t current = memory_stats().current;
  release_cached_memory();
  EXPECT_EQ(memory_stats().cached, 0u);
  EXPECT_EQ(memory_stats().current, current);
}

TEST(Memory, WasteIsBounded) {
  for (int64_t bytes = 1; bytes < (1 << 24); bytes = bytes * 5 / 4 + 1) {
    const size_t before = memory_stats().current;
    const Storage storage(static_cast<size_t>(bytes), Device::cpu());
    const size_t taken = memory_stats().current - before;
    EXPECT_GE(taken, static_cast<size_t>(bytes));
    EXPECT_LE(taken, static_cast<size_t>(bytes) + std::max<size_t>(64, static_cast<size_t>(bytes) / 8)) << bytes;
  }
}

TEST(Memory, RunningOutIsAnErrorThatLosesNothing) {
  const Tensor x = Tensor::full({1000}, 7);
  const MemoryStats before = memory_stats();
  const int64_t absurd = int64_t{1} << 56;  // elements: 2^58 bytes
  try {
    Tensor::empty({absurd});
    FAIL() << "expected an error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("memory"), std::string::npos) << message;
    EXPECT_NE(message.find("cpu"), std::string::npos) << message;
    EXPECT_NE(message.find(std::to_string(absurd * 4)), std::string::npos) << message;
  }
  EXPECT_EQ(memory_stats().current, before.current);
  EXPECT_EQ(sum(x).item(), 7000);
  EXPECT_EQ(sum(Tensor::ones({1000})).item(), 1000);
}

TEST(Memory, ASizeThatOverflowsIsAnError) {
  const int64_t large = int64_t{1} << 31;
  EXPECT_THROW(Tensor::empty({large, large, 4}), Error);
  EXPECT_THROW(Tensor::empty({large, large, large, large}), Error);
  EXPECT_THROW(Tensor::empty({2, -1}), ArgumentError);
  EXPECT_EQ(Tensor::empty({0, large}).numel(), 0);
}

TEST(Memory, ThreadsShareTheAllocator) {
  const size_t before = memory_stats().current;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&wrong, t] {
      for (int i = 0; i < 300; ++i) {
        // Two threads that held one block would see each other's values.
        const Tensor x = Tensor::full({64 + i % 7 * 32}, static_cast<double>(t * 1000 + static_cast<size_t>(i)));
        const std::vector<float> values = x.to_vector<float>();
        for (float v : values) wrong[t] += v != static_cast<float>(t * 1000 + static_cast<size_t>(i));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
  EXPECT_EQ(memory_stats().current, before);
}

}  // namespace
}  // namespace espalier
