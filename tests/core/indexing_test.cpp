#include "core/ops.h"
#include "core/threads.h"
#include "tests/core/kernel_cases.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::for_each_index;
using testing::Index;
using testing::poisoned;
using testing::random_index;
using testing::RandomTensors;
using testing::value_at;
using testing::View;
using testing::views;

const std::vector<Shape> kShapes = {{6}, {4, 5}, {5, 1}, {3, 4, 6}, {2, 3, 4, 5}, {40, 33}};
const std::vector<DType> kTypes = {DType::f32, DType::f64, DType::i64, DType::u8, DType::boolean};

Index moved(const Index& at, int axis, int64_t to) {
  Index result = at;
  result[static_cast<size_t>(axis)] = to;
  return result;
}

TEST(Indexing, GatherOnEveryAxisViewAndType) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kTypes) {
    for (const Shape& shape : kShapes) {
      for (int axis = 0; axis < shape.rank(); ++axis) {
        Shape index_shape = shape;
        index_shape[axis] = 3;
        for (const View& x : views(shape, [&](const Shape& s) { return (random(s) * 9.0).to(dtype); })) {
          for (const View& index :
               views(index_shape, [&](const Shape& s) { return random_index(random, s, shape[axis]); })) {
            Tensor out = poisoned(index_shape, dtype);
            cpu().gather(x.x, axis, index.x, out);
            for_each_index(index_shape, [&](const Index& at) {
              ASSERT_EQ(value_at(out, at), value_at(x.x, moved(at, axis, value_at<int64_t>(index.x, at))))
                  << x.name << " " << index.name << " " << shape.to_string() << " axis " << axis;
            });
          }
        }
      }
    }
  }
}

TEST(Indexing, ScatterKeepsTheLastAndScatterAddSums) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kTypes) {
    for (const Shape& shape : kShapes) {
      for (int axis = 0; axis < shape.rank(); ++axis) {
        Shape index_shape = shape;
        index_shape[axis] = 9;  // with repeats
        for (const View& values : views(index_shape, [&](const Shape& s) { return (random(s) * 9.0).to(dtype); })) {
          const Tensor index = random_index(random, index_shape, shape[axis]);
          const Tensor start = (random(shape) * 9.0).to(dtype);
          Tensor assigned = start.clone(), added = start.clone();
          cpu().scatter(assigned, axis, index, values.x);
          cpu().scatter_add(added, axis, index, values.x);
          Tensor expected = start.to(DType::f64).clone(), sums = expected.clone();
          for_each_index(index_shape, [&](const Index& at) {
            const Index target = moved(at, axis, value_at<int64_t>(index, at));
            int64_t offset = 0;
            for (int i = 0; i < shape.rank(); ++i) offset += target[static_cast<size_t>(i)] * expected.strides()[i];
            expected.data<double>()[offset] = value_at(values.x, at);
            sums.data<double>()[offset] += value_at(values.x, at);
          });
          ASSERT_TRUE(identical(assigned, expected.to(dtype))) << name_of(dtype) << " " << shape.to_string();
          for_each_index(shape, [&](const Index& at) {
            const double sum = value_at(sums, at), got = value_at(added, at);
            if (dtype == DType::boolean) {
              ASSERT_EQ(got, sum > 0);
            } else if (dtype == DType::u8) {
              ASSERT_EQ(got, static_cast<uint8_t>(static_cast<int64_t>(sum)));
            } else {
              ASSERT_NEAR(got, sum, dtype == DType::f32 ? 1e-4 : 1e-12);
            }
          });
        }
      }
    }
  }
}

TEST(Indexing, IndexSelectAndIndexAddOnEveryAxisAndView) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kTypes) {
    for (const Shape& shape : kShapes) {
      for (int axis = 0; axis < shape.rank(); ++axis) {
        for (const View& index : views({7}, [&](const Shape& s) { return random_index(random, s, shape[axis]); })) {
          for (const View& x : views(shape, [&](const Shape& s) { return (random(s) * 9.0).to(dtype); })) {
            Shape out_shape = shape;
            out_shape[axis] = 7;
            Tensor out = poisoned(out_shape, dtype);
            cpu().index_select(x.x, axis, index.x, out);
            for_each_index(out_shape, [&](const Index& at) {
              const int64_t picked = value_at<int64_t>(index.x, {at[static_cast<size_t>(axis)]});
              ASSERT_EQ(value_at(out, at), value_at(x.x, moved(at, axis, picked))) << x.name << " axis " << axis;
            });
          }
          if (dtype == DType::u8 || dtype == DType::boolean) continue;  // as in scatter_add
          Shape values_shape = shape;
          values_shape[axis] = 7;
          for (const View& values : views(values_shape, [&](const Shape& s) { return (random(s) * 9.0).to(dtype); })) {
            const Tensor start = (random(shape) * 9.0).to(dtype);
            Tensor added = start.clone();
            cpu().index_add(added, axis, index.x, values.x);
            for_each_index(shape, [&](const Index& at) {
              double expected = value_at(start, at);
              for (int64_t i = 0; i < 7; ++i) {
                if (value_at<int64_t>(index.x, {i}) == at[static_cast<size_t>(axis)])
                  expected += value_at(values.x, moved(at, axis, i));
              }
              ASSERT_NEAR(value_at(added, at), expected, dtype == DType::f32 ? 1e-4 : 1e-12)
                  << values.name << " axis " << axis;
            });
          }
        }
      }
    }
  }
}

TEST(Indexing, EmptyIndexAndEmptySlabs) {
  const Tensor none = Tensor::zeros({0}, DType::i64), x = Tensor::ones({3, 4});
  EXPECT_EQ(index_select(x, 0, none).shape(), (Shape{0, 4}));
  EXPECT_TRUE(identical(index_add(x, 0, none, Tensor::zeros({0, 4})), x));
  EXPECT_EQ(index_select(Tensor::zeros({3, 0}), 0, Tensor::from<int64_t>({2, 1}, {2})).shape(), (Shape{2, 0}));
  EXPECT_EQ(gather(x, 1, Tensor::zeros({3, 0}, DType::i64)).shape(), (Shape{3, 0}));
}

TEST(Indexing, OutOfRangeNamesTheIndex) {
  const Tensor x = Tensor::ones({3, 4});
  Tensor out = Tensor::zeros({2, 4});
  for (const int64_t bad : {int64_t{3}, int64_t{-1}, int64_t{1} << 40}) {
    const Tensor list = Tensor::from<int64_t>({0, bad}, {2});
    const Tensor full = list.unsqueeze(1).expand({2, 4});
    const std::vector<std::function<void()>> calls = {[&] { cpu().index_select(x, 0, list, out); },
                                                      [&] { cpu().gather(x, 0, full, out); },
                                                      [&] {
                                                        Tensor y = x.clone();
                                                        cpu().scatter(y, 0, full, out);
                                                      },
                                                      [&] {
                                                        Tensor y = x.clone();
                                                        cpu().scatter_add(y, 0, full, out);
                                                      },
                                                      [&] {
                                                        Tensor y = x.clone();
                                                        cpu().index_add(y, 0, list, out);
                                                      }};
    for (const auto& call : calls) {
      try {
        call();
        FAIL() << "expected an error for index " << bad;
      } catch (const ArgumentError& error) {
        EXPECT_NE(std::string(error.what()).find(std::to_string(bad)), std::string::npos) << error.what();
      }
    }
  }
}

TEST(Indexing, SumsDoNotDependOnTheThreadCount) {
  RandomTensors random(DType::f32), whole(DType::f64);
  const Tensor values = random({3000, 64}), list = random_index(whole, {3000}, 50);
  const Tensor full = list.unsqueeze(1).expand({3000, 64});
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = index_add(Tensor::zeros({50, 64}), 0, list, values);
  const Tensor scattered = scatter_add(Tensor::zeros({3000, 64}), 0, full, values);
  for (const int count : {2, 4}) {
    set_num_threads(count);
    EXPECT_TRUE(identical(index_add(Tensor::zeros({50, 64}), 0, list, values), one));
    EXPECT_TRUE(identical(scatter_add(Tensor::zeros({3000, 64}), 0, full, values), scattered));
  }
  set_num_threads(threads);
  EXPECT_TRUE(identical(scattered.slice(0, 0, 50), one));
}

}  // namespace
}  // namespace espalier
