// Graphs: long ones, their memory, and threads.
#include <thread>

#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::leaf;
using testing::values;

size_t bytes_in_use() { return memory_stats().current; }

constexpr int kMillion = 1'000'000;

TEST(Graph, AMillionNodesRunBackwardAndTearDown) {
  const size_t before = bytes_in_use();
  {
    const Variable x = leaf({1}, {});
    Variable y = x;
    for (int i = 0; i < kMillion; ++i) y = y + 1.0;
    EXPECT_EQ(y.item(), kMillion + 1);
    y.backward();
    EXPECT_EQ(x.grad().item(), 1);
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(Graph, AMillionNodesTearDownWithoutBackward) {
  const size_t before = bytes_in_use();
  {
    const Variable x = leaf({1}, {});
    Variable y = x;
    for (int i = 0; i < kMillion; ++i) y = y + 1.0;
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(Graph, ALongChainOfSavedTensorsTearsDown) {
  // Here nodes are held by the tensors that later nodes saved, not only by their edges.
  const size_t before = bytes_in_use();
  {
    const Variable x = leaf({1}, {}), w = leaf({0.9999}, {});
    Variable y = x, z = x;
    for (int i = 0; i < kMillion / 5; ++i) {
      y = y * w;
      z = tanh(z);
    }
    EXPECT_GT(bytes_in_use(), before + kMillion / 5 * 64);
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(Graph, ARetainedGraphGoesWhenItsVariablesGo) {
  const size_t before = bytes_in_use();
  {
    const Variable x = leaf({1, 2});
    Variable y = x;
    for (int i = 0; i < 100; ++i) y = exp(y * 0.01) * tanh(y);
    sum(y).backward({}, {.retain_graph = true});
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(Graph, SecondDerivativesLeaveNothingBehind) {
  const size_t before = bytes_in_use();
  {
    const Variable x = leaf({1, 2});
    const Variable y = sum(exp(x) * tanh(x) / sqrt(x));
    const Variable g = grad({y}, {x}, {.create_graph = true})[0];
    const Variable h = grad({sum(g * g)}, {x}, {.create_graph = true})[0];
    grad({sum(h)}, {x}, {.retain_graph = true});
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(Graph, BackwardFreesWhatItSavedAtOnce) {
  const Variable x(Tensor::ones({1024}, DType::f64), true);
  const Variable y = sum(exp(exp(exp(x * 0.1))));
  const size_t before = bytes_in_use();
  y.backward();
  EXPECT_LE(bytes_in_use(), before - 3 * 8192 + 8192);  // three outputs went, one gradient came
}

TEST(Graph, AResultKeepsOnlyWhatBackwardNeeds) {
  const Variable x(Tensor::ones({1024}, DType::f64), true);
  const size_t before = bytes_in_use();
  const Variable y = sum(((x + 1.0) * 2.0 - 3.0) + x);
  EXPECT_LE(bytes_in_use(), before + 64);  // sums and constant factors save nothing
}

TEST(Graph, AProductSavesOnlyTheOtherFactor) {
  const Variable w(Tensor::ones({1024}, DType::f64), true);
  const Variable factor(Tensor::ones({1024}, DType::f64));
  const size_t before = bytes_in_use();
  const Variable y = sum((w + 1.0) * factor);  // the gradient of w + 1 is the factor; w + 1 itself is not needed
  EXPECT_LE(bytes_in_use(), before + 64);
}

TEST(Graph, AStepLoopTakesNoNewMemory) {
  Variable w(Tensor::ones({64, 64}, DType::f32), true);
  const Variable x(Tensor::ones({32, 64}, DType::f32));
  const auto step = [&] {
    w.zero_grad();
    mean(square(relu(linear(x, w)))).backward();
  };
  for (int i = 0; i < 3; ++i) step();
  const MemoryStats before = memory_stats();
  for (int i = 0; i < 100; ++i) step();
  EXPECT_EQ(memory_stats().system_calls, before.system_calls);
  EXPECT_EQ(memory_stats().current, before.current);
}

TEST(Threads, BuildSeparateGraphs) {
  std::vector<std::thread> threads;
  std::vector<double> results(4);
  for (size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([&results, t] {
      const Variable x = leaf({1.0 + static_cast<double>(t)}, {});
      for (int repeat = 0; repeat < 200; ++repeat) {
        Variable y = x;
        for (int i = 0; i < 20; ++i) y = y * 0.5 + square(x) * 0.5;
        y.backward();
      }
      results[t] = x.grad().item() / 200;
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < results.size(); ++t) {
    // y = c x + (1 - c) x^2 with c = 2^-20.
    const double c = std::ldexp(1.0, -20), x = 1.0 + static_cast<double>(t);
    EXPECT_NEAR(results[t], c + (1 - c) * 2 * x, 1e-12);
  }
}

TEST(Threads, ShareAConstantAndKeepTheirOwnGradMode) {
  const Variable shared(Tensor::full({100}, 2, DType::f64));
  std::vector<std::thread> threads;
  std::vector<int> fine(4, 0);
  for (size_t t = 0; t < fine.size(); ++t)
    threads.emplace_back([&, t] {
      const Variable x(Tensor::ones({100}, DType::f64), true);
      bool ok = grad_enabled();
      for (int repeat = 0; repeat < 100; ++repeat) {
        if (t % 2) {
          const NoGrad guard;
          ok &= !(x * shared).requires_grad();
        } else {
          ok &= (x * shared).requires_grad();
        }
      }
      sum(x * shared).backward();
      fine[t] = ok && values(x.grad()) == std::vector<double>(100, 2);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(fine, std::vector<int>(4, 1));
}

}  // namespace
}  // namespace espalier
