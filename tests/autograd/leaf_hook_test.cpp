// The hook of backward that hears when a leaf's gradient is final.
#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::constant;
using testing::expect_contains;
using testing::leaf;
using testing::message_of;
using testing::values;
using Values = std::vector<double>;

struct Heard {
  std::string name;
  Values gradient;
  bool operator==(const Heard&) const = default;
};

Variable named(const char* name, const Values& data) {
  Variable x = leaf(data);
  x.set_name(name);
  return x;
}

TEST(LeafHook, HearsEachLeafOnceWhenItsLastContributionHasArrived) {
  const Variable a = named("a", {3}), b = named("b", {5});
  const Variable product = sum(square(a) * b);
  const Variable y = product + sum(a);  // the newer operation brings a its first contribution
  std::vector<Heard> heard;
  Values a_when_b_is_final;
  y.backward({}, {.on_leaf_gradient = [&](const Variable& x) {
               heard.push_back({x.name(), values(x.grad())});
               if (x.is_same(b)) a_when_b_is_final = values(a.grad());
             }});
  EXPECT_EQ(heard, (std::vector<Heard>{{"b", {9}}, {"a", {31}}}));
  EXPECT_EQ(a_when_b_is_final, Values{1});
}

TEST(LeafHook, HearsTheLastLayerFirstWhileTheOthersWait) {
  const Variable x = constant({1, 2}, {1, 2});
  Variable first = leaf({1, 0, 0, 1}, {2, 2}), second = leaf({2, 3}, {1, 2});
  std::vector<const void*> heard;
  bool first_waits = false;
  sum(linear(relu(linear(x, first)), second)).backward({}, {.on_leaf_gradient = [&](const Variable& w) {
                                                         heard.push_back(w.id());
                                                         if (w.is_same(second)) first_waits = !first.grad().defined();
                                                       }});
  EXPECT_EQ(heard, (std::vector<const void*>{second.id(), first.id()}));
  EXPECT_TRUE(first_waits);
}

TEST(LeafHook, CountsALeafThatOneOperationHasTwiceOnce) {
  const Variable x = leaf({2});
  int calls = 0;
  (x * x).backward({}, {.on_leaf_gradient = [&](const Variable&) { ++calls; }});
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(values(x.grad()), Values{4});
  x.backward({}, {.on_leaf_gradient = [&](const Variable&) { ++calls; }});
  EXPECT_EQ(calls, 2);
}

TEST(LeafHook, HearsOfEverySecondBackwardAndMayReplaceTheGradient) {
  const Variable x = leaf({1, 2});
  const Variable y = sum(x * 3.0);
  int calls = 0;
  const auto halve = [&](Variable leaf) {
    ++calls;
    leaf.set_grad(leaf.grad() * 0.5);
  };
  y.backward({}, {.retain_graph = true, .on_leaf_gradient = halve});
  EXPECT_EQ(values(x.grad()), (Values{1.5, 1.5}));
  y.backward({}, {.on_leaf_gradient = halve});
  EXPECT_EQ(values(x.grad()), (Values{2.25, 2.25}));
  EXPECT_EQ(calls, 2);
}

TEST(LeafHook, DoesNotHearOfALeafWithoutAGradient) {
  const Variable used = leaf({1}), unused = leaf({1});
  const Variable y = record("first_only", used.data(), {used, unused}, [](const BackwardContext& c) -> Variables {
    return {c.grad(), Variable()};
  });
  std::vector<const void*> heard;
  y.backward({}, {.on_leaf_gradient = [&](const Variable& x) { heard.push_back(x.id()); }});
  EXPECT_EQ(heard, std::vector<const void*>{used.id()});
}

TEST(LeafHook, ItsExceptionEndsThePass) {
  const Variable a = leaf({1}), b = leaf({2});
  const Variable y = exp(a) * b;
  const auto fails = [](const Variable&) { fail("reduce", "the other process is gone"); };
  expect_contains(message_of([&] { y.backward({}, {.on_leaf_gradient = fails}); }), {"[reduce]", "other process"});
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE(b.grad().defined());
  EXPECT_FALSE(a.grad().defined());
  expect_contains(message_of([&] { y.backward(); }), {"[backward]", "freed"});
}

}  // namespace
}  // namespace espalier
