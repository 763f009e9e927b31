// backward(): what arrives in the leaves, how often, and what the engine refuses.
#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::constant;
using testing::expect_contains;
using testing::leaf;
using testing::message_of;
using testing::values;
using Values = std::vector<double>;

TEST(Backward, FillsTheGradientOfEveryLeaf) {
  const Variable a = leaf({1, 2}), b = leaf({3, 4}), c = constant({5, 6});
  EXPECT_FALSE(a.grad().defined());
  sum(a * b * c).backward();
  EXPECT_EQ(values(a.grad()), (Values{15, 24}));
  EXPECT_EQ(values(b.grad()), (Values{5, 12}));
  EXPECT_FALSE(c.grad().defined());
}

TEST(Backward, AccumulatesUntilTheGradientIsZeroed) {
  Variable x = leaf({1, 2});
  sum(square(x)).backward();
  EXPECT_EQ(values(x.grad()), (Values{2, 4}));
  sum(x * 3.0).backward();
  EXPECT_EQ(values(x.grad()), (Values{5, 7}));
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  sum(x * 3.0).backward();
  EXPECT_EQ(values(x.grad()), (Values{3, 3}));
}

TEST(Backward, StartsFromTheGivenGradient) {
  const Variable x = leaf({1, 2, 3});
  (x * 2.0).backward(constant({1, 10, 100}));
  EXPECT_EQ(values(x.grad()), (Values{2, 20, 200}));
}

TEST(Backward, OfALeafGivesItsOwnGradient) {
  const Variable x = leaf({7}, {});
  x.backward();
  EXPECT_EQ(values(x.grad()), Values{1});
}

TEST(Backward, NeedsAGradientForSeveralElements) {
  const Variable x = leaf({1, 2, 3});
  expect_contains(message_of([&] { (x * 2.0).backward(); }), {"[backward]", "(3)"});
  expect_contains(message_of([&] { (x * 2.0).backward(constant({1, 2})); }), {"[backward]", "(3)", "(2)"});
  expect_contains(message_of([&] {
                    (x * 2.0).backward(constant({1, 2, 3}, {3}, DType::f32));
                  }),
                  {"[backward]", "f64", "f32"});
  expect_contains(message_of([&] { sum(constant({1, 2})).backward(); }), {"[backward]", "requires a gradient"});
  EXPECT_THROW(Variable().backward(), ArgumentError);
}

TEST(Backward, FreesTheGraphUnlessItIsRetained) {
  const Variable x = leaf({2, 3});
  const Variable y = sum(square(x));
  y.backward({}, {.retain_graph = true});
  y.backward();
  EXPECT_EQ(values(x.grad()), (Values{8, 12}));
  expect_contains(message_of([&] { y.backward(); }), {"[backward]", "freed", "retain_graph"});
  EXPECT_EQ(values(x.grad()), (Values{8, 12}));
}

TEST(Backward, FreedGraphNamesTheOperation) {
  const Variable x = leaf({2, 3});
  const Variable middle = exp(x);
  sum(middle).backward();
  expect_contains(message_of([&] { sum(middle * 2.0).backward(); }), {"exp"});
}

TEST(Backward, AddsOverAllPaths) {
  const Variable x = leaf({3}, {});
  const Variable y = x * x;      // 9
  const Variable z = y + y * x;  // x^2 + x^3
  const Variable w = z * y - x;  // x^4 + x^5 - x
  w.backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 4 * 27 + 5 * 81 - 1);
}

TEST(Backward, CountsAVariableUsedTwiceInOneOperation) {
  const Variable x = leaf({1, 2, 3, 4}, {2, 2});
  sum(x * x).backward();
  EXPECT_EQ(values(x.grad()), (Values{2, 4, 6, 8}));
  Variable y = leaf({1, 2, 3, 4}, {2, 2});
  sum(matmul(y, y)).backward();  // d/dy_ij = sum of column... row j of y plus column i of y
  EXPECT_EQ(values(y.grad()), (Values{3 + 4, 7 + 4, 3 + 6, 7 + 6}));
  Variable z = leaf({1, 2});
  sum(cat({z, z, z}, 0) * constant({1, 2, 3, 4, 5, 6})).backward();
  EXPECT_EQ(values(z.grad()), (Values{1 + 3 + 5, 2 + 4 + 6}));
}

TEST(Backward, GoesThroughAWideDiamond) {
  // 2^40 paths: a walk that follows each of them never ends.
  const Variable x = leaf({1}, {});
  Variable y = x;
  for (int i = 0; i < 40; ++i) y = y * 0.5 + y * 0.5;
  y.backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 1);
}

TEST(Backward, GivesEveryLeafAGradientOfItsOwn) {
  const Variable a = leaf({1, 2}), b = leaf({3, 4}), c = leaf({5, 6});
  const Variable start = constant({1, 1});
  (a + b + c).backward(start);
  EXPECT_NE(a.grad().data().storage(), b.grad().data().storage());
  EXPECT_NE(b.grad().data().storage(), c.grad().data().storage());
  EXPECT_NE(a.grad().data().storage(), c.grad().data().storage());
  for (const Variable& x : {a, b, c}) EXPECT_NE(x.grad().data().storage(), start.data().storage());
  Tensor of_a = a.grad().data();
  of_a.fill_(9);
  EXPECT_EQ(values(b.grad()), (Values{1, 1}));
  EXPECT_EQ(values(c.grad()), (Values{1, 1}));
  EXPECT_EQ(values(start), (Values{1, 1}));
}

TEST(Backward, GivesEveryLeafAGradientOfItsOwnFromAFreshTensorToo) {
  // The product's gradient is a new tensor that the addition hands to both of its inputs.
  const Variable a = leaf({1, 2}), b = leaf({3, 4});
  sum((a + b) * constant({2, 3})).backward();
  EXPECT_NE(a.grad().data().storage(), b.grad().data().storage());
  Tensor of_a = a.grad().data();
  of_a.fill_(9);
  EXPECT_EQ(values(b.grad()), (Values{2, 3}));
}

TEST(Backward, GradientsAreContiguousAndWhole) {
  // Gradients of views are parts of larger tensors; the leaf keeps none of the rest alive.
  const Variable a = leaf(Values(6, 1), {2, 3}), b = leaf(Values(6, 1), {2, 3});
  sum(cat({transpose(a, 0, 1), transpose(b, 0, 1)}, 1) * constant(Values(12, 2), {3, 4})).backward();
  for (const Variable& x : {a, b}) {
    EXPECT_TRUE(x.grad().data().is_contiguous());
    EXPECT_EQ(x.grad().data().storage()->bytes(), 6 * sizeof(double));
    EXPECT_EQ(values(x.grad()), Values(6, 2));
  }
}

TEST(Backward, DoesNotChangeAnEarlierGradientHeldElsewhere) {
  const Variable x = leaf({1, 2});
  sum(x).backward();
  const Variable first = x.grad();
  sum(x).backward();
  EXPECT_EQ(values(x.grad()), (Values{2, 2}));
  EXPECT_EQ(values(first), (Values{1, 1}));
}

TEST(Backward, KeepsTheLeafsDtype) {
  const Variable x = leaf({1.5, 2.5}, {2}, DType::f32);
  const Variable y = to(x, DType::f64);
  EXPECT_EQ(y.dtype(), DType::f64);
  sum(square(y)).backward();
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(values(x.grad()), (Values{3, 5}));
}

TEST(Backward, CreateGraphMakesTheGradientDifferentiable) {
  Variable x = leaf({2, 3});
  sum(x * square(x)).backward({}, {.create_graph = true});
  EXPECT_TRUE(x.grad().requires_grad());
  EXPECT_EQ(values(x.grad()), (Values{12, 27}));
  EXPECT_EQ(values(grad({sum(x.grad())}, {x})[0]), (Values{12, 18}));
  x.zero_grad();  // the gradient's graph holds the leaf, and the leaf the gradient
}

TEST(Backward, UnusedOutputsOfAnOperationAreNoGradient) {
  const auto parameters = [] {
    return Variables{leaf(Values(12, 0.5), {3, 2, 2}), leaf(Values(4, 0.1), {2, 2}), leaf(Values(4, 0.2), {2, 2}),
                     leaf(Values(16, 0.3), {8, 2}), leaf(Values(16, 0.4), {8, 2})};
  };
  const auto run = [](const Variables& p) { return lstm(p[0], p[1], p[2], p[3], p[4], {}, {}); };
  for (int used = 0; used < 3; ++used) {
    const Variables p = parameters(), q = parameters();
    const LstmStates all = run(q), some = run(p);
    sum(used == 0 ? some.output : used == 1 ? some.h : some.c).backward();
    // The same with the others used, but times 0.
    (sum(all.output) * (used == 0 ? 1.0 : 0.0) + sum(all.h) * (used == 1 ? 1.0 : 0.0) +
     sum(all.c) * (used == 2 ? 1.0 : 0.0))
        .backward();
    for (size_t i = 0; i < p.size(); ++i)
      EXPECT_TRUE(all_close(p[i].grad().data(), q[i].grad().data(), 1e-12, 1e-14))
          << "output " << used << ", input " << i;
  }
}

// --- history -------------------------------------------------------------------------------------------------------

TEST(History, IsRecordedOnlyWhereAnInputRequiresAGradient) {
  const Variable x = leaf({1, 2}), c = constant({1, 2});
  EXPECT_TRUE(x.is_leaf());
  EXPECT_EQ(x.node(), nullptr);
  const Variable y = x + c, z = c + c;
  EXPECT_TRUE(y.requires_grad());
  EXPECT_FALSE(y.is_leaf());
  EXPECT_STREQ(y.node()->operation(), "add");
  EXPECT_FALSE(z.requires_grad());
  EXPECT_TRUE(z.is_leaf());
}

TEST(History, DetachCutsAndSharesTheTensor) {
  const Variable x = leaf({1, 2});
  const Variable y = x * 2.0, d = y.detach();
  EXPECT_FALSE(d.requires_grad());
  EXPECT_EQ(d.data().storage(), y.data().storage());
  sum(y * d).backward();
  EXPECT_EQ(values(x.grad()), (Values{4, 8}));  // d counts as a constant
}

TEST(History, NoGradRecordsNothingAndNests) {
  const Variable x = leaf({1, 2});
  EXPECT_TRUE(grad_enabled());
  {
    const NoGrad outer;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE((x * 2.0).requires_grad());
    {
      const NoGrad inner;
      EXPECT_FALSE((x * 2.0).requires_grad());
    }
    EXPECT_FALSE(grad_enabled());
    EXPECT_TRUE(x.requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE((x * 2.0).requires_grad());
}

TEST(History, GradModeComesBackAfterAnErrorInBackward) {
  const Variable x = leaf({1, 2});
  const Variable wrong = record("wrong", Tensor::zeros({2}, DType::f64), {x},
                                [](const BackwardContext&) -> Variables { throw Error("no gradient"); });
  EXPECT_THROW(sum(wrong).backward(), Error);
  EXPECT_TRUE(grad_enabled());
}

TEST(History, OnlyLeavesChangeTheirDataOrFlag) {
  Variable x = leaf({1, 2});
  Variable y = exp(x);
  expect_contains(message_of([&] { y.set_requires_grad(false); }), {"exp"});
  expect_contains(message_of([&] { y.set_data(Tensor::zeros({2})); }), {"exp"});
  Variable labels(Tensor::zeros({2}, DType::i64));
  expect_contains(message_of([&] { labels.set_requires_grad(true); }), {"i64"});
  expect_contains(message_of([&] { x.set_grad(constant({1})); }), {"[set_grad]", "(2)", "(1)"});
}

TEST(History, CopiesShareTheVariable) {
  Variable x = leaf({1, 2});
  Variable same = x;
  EXPECT_TRUE(x.is_same(same));
  sum(same * 2.0).backward();
  EXPECT_EQ(values(x.grad()), (Values{2, 2}));
  same.set_name("weight");
  EXPECT_EQ(x.name(), "weight");
  EXPECT_FALSE(x.is_same(x.detach()));
}

// --- operations written by others ----------------------------------------------------------------------------------

/// An operation of one input whose backward returns what the test says.
Variable custom(const Variable& x, Backward backward) { return record("custom", x.data().clone(), {x}, backward); }

TEST(Record, ChecksWhatBackwardReturns) {
  const Variable x = leaf({1, 2});
  const auto backward_of = [&](const Backward& backward) { sum(custom(x, backward)).backward(); };
  expect_contains(message_of([&] { backward_of([](const BackwardContext&) { return Variables{}; }); }),
                  {"custom", "0 gradients", "1 input"});
  expect_contains(message_of([&] {
                    backward_of([](const BackwardContext&) { return Variables{constant({1, 2, 3})}; });
                  }),
                  {"custom", "(3)", "(2)"});
  expect_contains(message_of([&] {
                    backward_of([](const BackwardContext&) { return Variables{constant({1, 2}, {2}, DType::f32)}; });
                  }),
                  {"custom", "f32", "f64"});
  EXPECT_FALSE(x.grad().defined());
}

TEST(Record, AnUndefinedGradientIsZero) {
  const Variable x = leaf({1, 2});
  sum(custom(x, [](const BackwardContext&) { return Variables(1); }) + x).backward();
  EXPECT_EQ(values(x.grad()), (Values{1, 1}));
}

TEST(Record, SaysWhichGradientsAreNeeded) {
  const Variable x = leaf({1, 2}), c = constant({1, 2}), unwanted = leaf({1, 2});
  std::vector<bool> needed;
  const auto three = [&] {
    return record("three", Tensor::ones({2}, DType::f64), {x, c, unwanted}, [&](const BackwardContext& context) {
      needed = {context.needs(0), context.needs(1), context.needs(2)};
      EXPECT_STREQ(context.operation(), "three");
      return Variables{context.grad(), {}, context.needs(2) ? context.grad() : Variable()};
    });
  };
  sum(three()).backward();
  EXPECT_EQ(needed, (std::vector<bool>{true, false, true}));
  grad({sum(three())}, {x});
  EXPECT_EQ(needed, (std::vector<bool>{true, false, false}));
}

TEST(Record, SecondDerivativeCanBeRefused) {
  const Variable x = leaf({1, 2});
  const auto cube = [](const Variable& v) {
    return record("cube", (v.data() * v.data()) * v.data(), {v}, [s = Saved(v)](const BackwardContext& c) {
      require_first_derivative_only(c);
      return Variables{c.grad() * (square(s.unpack(c)) * 3.0)};
    });
  };
  EXPECT_EQ(values(grad({sum(cube(x))}, {x})[0]), (Values{3, 12}));
  expect_contains(message_of([&] { grad({sum(cube(x))}, {x}, {.create_graph = true}); }),
                  {"cube", "second derivative"});
}

TEST(Record, GivesSeveralOutputs) {
  const Variable x = leaf({1, 2});
  const Variables both =
      record("both", std::vector<Tensor>{x.data() * 2.0, x.data() * 3.0}, {x}, [](const BackwardContext& c) {
        Variable total;
        for (int i : {0, 1}) {
          if (!c.grad(i).defined()) continue;
          const Variable term = c.grad(i) * (2.0 + i);
          total = total.defined() ? total + term : term;
        }
        return Variables{total};
      });
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[1].output_index(), 1);
  EXPECT_EQ(values(grad({sum(both[1])}, {x}, {.retain_graph = true})[0]), (Values{3, 3}));
  EXPECT_EQ(values(grad({sum(both[0] * both[1])}, {x})[0]), (Values{12, 24}));  // d(6 x^2)
}

}  // namespace
}  // namespace espalier
