// Changing in place what backward needs is an error that names it; changing anything else is allowed.
#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::constant;
using testing::expect_contains;
using testing::leaf;
using testing::message_of;
using testing::values;
using Values = std::vector<double>;

TEST(InPlace, ChangeOfASavedInputNamesOperationAndVariable) {
  Variable x = leaf({1, 2}), w = leaf({3, 4});
  w.set_name("fc1.weight");
  const Variable y = sum(x * w);
  Tensor data = w.data();
  data.fill_(0);
  expect_contains(message_of([&] { y.backward(); }), {"[backward]", "mul", "fc1.weight", "changed in place", "(2)"});
  EXPECT_FALSE(x.grad().defined());
}

TEST(InPlace, ChangeThroughAViewCounts) {
  Variable x = leaf({1, 2, 3, 4}, {2, 2});
  const Variable y = sum(square(x));
  x.data().select(0, 1).copy_(Tensor::zeros({2}, DType::f64));
  EXPECT_THROW(y.backward(), ArgumentError);
}

TEST(InPlace, ChangeOfASavedOutputNamesTheOperation) {
  for (const auto& [name, f] : {std::pair<std::string, Variable (*)(const Variable&)>{"exp", &exp},
                                {"sqrt", &sqrt},
                                {"tanh", &tanh},
                                {"sigmoid", &sigmoid}}) {
    const Variable x = leaf({1, 2});
    const Variable y = f(x);
    Tensor data = y.data();
    axpy_(1.0, Tensor::ones({2}, DType::f64), data);
    expect_contains(message_of([&] { sum(y).backward(); }), {"[backward]", name, "changed in place", "(2)"});
  }
}

TEST(InPlace, ReplacingTheDataOfASavedLeafCounts) {
  Variable w = leaf({3, 4});
  w.set_name("fc1.weight");
  const Variable y = sum(square(w));
  w.set_data(Tensor::zeros({2}, DType::f64));
  expect_contains(message_of([&] { y.backward(); }), {"fc1.weight", "replaced"});
}

TEST(InPlace, ChangeOfWhatBackwardDoesNotNeedIsAllowed) {
  const Variable x = leaf({1, 2}), w = leaf({3, 4});
  const Variable y = sum(x + w);
  Tensor data = w.data();
  data.fill_(0);
  y.backward();
  EXPECT_EQ(values(x.grad()), (Values{1, 1}));
}

TEST(InPlace, ChangeAfterBackwardIsAllowed) {
  Variable w = leaf({3, 4});
  for (int step = 0; step < 3; ++step) {  // gradient descent
    w.zero_grad();
    sum(square(w)).backward();
    Tensor data = w.data();
    axpy_(-0.25, w.grad().data(), data);
  }
  EXPECT_EQ(values(w), (Values{0.375, 0.5}));
}

TEST(InPlace, ChangeOfAnIndexOrATargetCounts) {
  const Variable x = leaf({1, 2, 3, 4}, {2, 2});
  const auto refuses = [&](const std::string& name, Tensor constant_tensor,
                           const std::function<Variable(const Tensor&)>& f) {
    SCOPED_TRACE(name);
    const Variable y = sum(f(constant_tensor));
    constant_tensor.fill_(0);
    expect_contains(message_of([&] { y.backward(); }), {"[backward]", "changed in place"});
  };
  const Tensor grid = Tensor::from<int64_t>({0, 1}, {1, 2}), list = Tensor::from<int64_t>({0, 1}, {2});
  refuses("gather", grid.clone(), [&](const Tensor& index) { return gather(x, 0, index); });
  refuses("scatter_add", grid.clone(),
          [&](const Tensor& index) { return scatter_add(x, 0, index, slice(x, 0, 0, 1)); });
  refuses("index_select", list.clone(), [&](const Tensor& index) { return index_select(x, 0, index); });
  refuses("index_add", list.clone(), [&](const Tensor& index) { return index_add(x, 0, index, x); });
  refuses("where", Tensor::from<bool>({true, false}, {2}), [&](const Tensor& c) { return where(c, x, x * 2.0); });
}

TEST(InPlace, ChangeOfAnLstmsResultCounts) {
  const Variable x = leaf(Values(4, 0.5), {2, 1, 2}), w_ih = leaf(Values(8, 0.1), {4, 2}),
                 w_hh = leaf(Values(4, 0.2), {4, 1});
  const Variable start = constant({0}, {1, 1});
  const LstmStates states = lstm(x, start, start, w_ih, w_hh, {}, {});
  Tensor output = states.output.data();
  output.fill_(0);
  expect_contains(message_of([&] { sum(states.c).backward(); }), {"[backward]", "lstm", "changed in place"});
}

TEST(InPlace, ChangeOfTheStatisticsOfABatchCounts) {
  const Variable x = leaf({1, 2, 3, 4}, {2, 2});
  BatchStats stats;
  const Variable y = batch_norm(x, {}, {}, 1e-5, &stats);
  stats.mean.fill_(0);
  expect_contains(message_of([&] { sum(y).backward(); }), {"[backward]", "batch_norm", "changed in place"});
}

TEST(InPlace, ChangeOfAMaximumCounts) {
  const Variable x = leaf({1, 2, 3, 4}, {2, 2});
  for (bool keep : {false, true}) {
    const Variable y = max(x, {1}, keep);
    Tensor data = y.data();
    data.fill_(0);
    expect_contains(message_of([&] { sum(y).backward(); }), {"[backward]", "max", "changed in place"});
  }
}

}  // namespace
}  // namespace espalier
