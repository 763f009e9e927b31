// Gathering and scattering on the device against the CPU's, and what happens to indices out of range.
#include "core/ops.h"
#include "tests/core/kernel_cases.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::device;
using testing::expect_equal;
using testing::expect_same;
using testing::random_index;
using testing::RandomTensors;
using testing::to_device;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

constexpr DType kAll[] = {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean};

const std::vector<Shape> kShapes = {{6}, {0, 4}, {17, 9}, {5, 1}, {3, 4, 6}, {2, 3, 1, 4, 5}, {40, 33}};

Tensor values(RandomTensors& random, const Shape& shape, DType dtype) { return (random(shape) * 9.0).to(dtype); }

/// f(dtype, shape, axis, views of the tensor, of an index with `count` along the axis, and of values in its shape)
void for_each_case(RandomTensors& random, int64_t count,
                   const std::function<void(DType, const Shape&, int, const View&, const View&, const View&)>& f) {
  for (const DType dtype : kAll) {
    for (const Shape& shape : kShapes) {
      for (int axis = 0; axis < shape.rank(); ++axis) {
        if (shape[axis] == 0) continue;
        Shape index_shape = shape;
        index_shape[axis] = count;
        const auto x = views(shape, [&](const Shape& s) { return values(random, s, dtype); });
        const auto index = views(index_shape, [&](const Shape& s) { return random_index(random, s, shape[axis]); });
        const auto added = views(index_shape, [&](const Shape& s) { return values(random, s, dtype); });
        for (size_t i = 0; i < x.size(); ++i)
          f(dtype, shape, axis, x[i], index[(i + 1) % x.size()], added[(i + 2) % x.size()]);
      }
    }
  }
}

TEST(CudaIndexing, GatherOnEveryAxisViewAndType) {
  RandomTensors random(DType::f64);
  for_each_case(
      random, 3, [](DType dtype, const Shape& shape, int axis, const View& x, const View& index, const View&) {
        expect_same(
            {.inputs = {x.x, index.x},
             .outputs = {Tensor::empty(index.x.shape(), dtype)},
             .what = fmt::format("gather {} {} axis {}: {}, {}", name_of(dtype), shape, axis, x.name, index.name)},
            [&](const Kernels& k, const Tensors& in, Tensors& out) { k.gather(in[0], axis, in[1], out[0]); });
      });
}

TEST(CudaIndexing, ScatterKeepsTheLastAndAddsInOrder) {
  RandomTensors random(DType::f64);
  // Few indices are walked, many are sorted.
  for (const int64_t count : {4, 50}) {
    for_each_case(
        random, count,
        [](DType dtype, const Shape& shape, int axis, const View& x, const View& index, const View& added) {
          const std::string what = fmt::format("{} {} axis {} with {}: {}, {}, {}", name_of(dtype), shape, axis,
                                               index.x.size(axis), x.name, index.name, added.name);
          // Sums have the CPU's order, and so its bits.
          expect_same(
              {.inputs = {index.x, added.x}, .outputs = {x.x.clone()}, .accumulates = true, .what = "scatter " + what},
              [&](const Kernels& k, const Tensors& in, Tensors& out) { k.scatter(out[0], axis, in[0], in[1]); });
          expect_same(
              {.inputs = {index.x, added.x}, .outputs = {x.x}, .accumulates = true, .what = "scatter_add " + what},
              [&](const Kernels& k, const Tensors& in, Tensors& out) { k.scatter_add(out[0], axis, in[0], in[1]); });
        });
  }
}

TEST(CudaIndexing, ScatterWithManySetsOfIndicesWalksThem) {
  RandomTensors random(DType::f32);
  const Tensor index = random_index(random, {4100, 40}, 7), added = random({4100, 40});
  expect_same({.inputs = {index, added}, .outputs = {random({4100, 7})}, .accumulates = true, .what = "many lines"},
              [](const Kernels& k, const Tensors& in, Tensors& out) { k.scatter_add(out[0], 1, in[0], in[1]); });
}

TEST(CudaIndexing, SelectAndAddRows) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kAll) {
    for (const Shape& shape : kShapes) {
      for (int axis = 0; axis < shape.rank(); ++axis) {
        if (shape[axis] == 0) continue;
        for (const int64_t count : {0, 5, 70}) {
          Shape selected = shape;
          selected[axis] = count;
          const View index = views({count}, [&](const Shape& s) { return random_index(random, s, shape[axis]); })[2];
          const auto x = views(shape, [&](const Shape& s) { return values(random, s, dtype); });
          const auto added = views(selected, [&](const Shape& s) { return values(random, s, dtype); });
          for (size_t i = 0; i < x.size(); ++i) {
            const std::string what =
                fmt::format("{} {} axis {}, {} of it: {}", name_of(dtype), shape, axis, count, x[i].name);
            expect_same(
                {.inputs = {x[i].x, index.x}, .outputs = {Tensor::empty(selected, dtype)}, .what = "select " + what},
                [&](const Kernels& k, const Tensors& in, Tensors& out) { k.index_select(in[0], axis, in[1], out[0]); });
            expect_same(
                {.inputs = {index.x, added[(i + 1) % added.size()].x},
                 .outputs = {x[i].x},
                 .accumulates = true,
                 .what = "add " + what},
                [&](const Kernels& k, const Tensors& in, Tensors& out) { k.index_add(out[0], axis, in[0], in[1]); });
          }
        }
      }
    }
  }
}

TEST(CudaIndexing, AnEmbeddingsGradientHasTheCpusBits) {
  RandomTensors random(DType::f32);
  // Zipf's law, roughly: a few tokens are most of the text. More tokens than a tile of the sort, more words than 2^8.
  const Tensor index = unary(UnaryOp::floor, abs(random({5000})) * abs(random({5000})) * 100.0).to(DType::i64);
  expect_same({.inputs = {index, random({5000, 5})},
               .outputs = {Tensor::zeros({3000, 5})},
               .accumulates = true,
               .what = "tokens"},
              [](const Kernels& k, const Tensors& in, Tensors& out) { k.index_add(out[0], 0, in[0], in[1]); });
}

TEST(CudaIndexing, OutOfRangeIsReportedByTheNextCopyToTheHost) {
  const Tensor x = to_device(Tensor::arange(0, 12, 1, DType::f32).reshape({4, 3}));
  const auto report = [](const Tensor& result) {
    try {
      result.to(Device::cpu());
    } catch (const ArgumentError& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const auto at = [](int64_t bad, int64_t count, const Shape& shape) {
    std::vector<int64_t> index(static_cast<size_t>(count), 1);
    index[static_cast<size_t>(count / 2)] = bad;
    return to_device(Tensor::from(index, shape));
  };
  for (const int64_t bad : {int64_t{-1}, int64_t{4}, int64_t{1} << 40}) {
    // Walked, and sorted.
    for (const int64_t rows : {4, 60}) {
      const auto message = [&](const char* operation, int axis, int64_t size) {
        return fmt::format("[{}] expected indices from 0 to below {}, the size of axis {}, got {}", operation, size,
                           axis, bad);
      };
      const Tensor rank1 = at(bad, rows, {rows}), rank2 = at(bad, rows, {rows, 1});
      const Tensor added = Tensor::ones({rows, 3}, DType::f32, device());
      EXPECT_EQ(report(index_select(x, 0, rank1)), message("index_select", 0, 4));
      EXPECT_EQ(report(index_add(x, 0, rank1, added)), message("index_add", 0, 4));
      EXPECT_EQ(report(gather(x, 0, rank2)), message("gather", 0, 4));
      EXPECT_EQ(report(scatter(x, 0, rank2, added.slice(1, 0, 1))), message("scatter", 0, 4));
      EXPECT_EQ(report(scatter_add(x, 0, rank2, added.slice(1, 0, 1))), message("scatter_add", 0, 4));
    }
  }
  // It is reported once; the process goes on, and the other indices did their work.
  EXPECT_EQ(report(x), "nothing");
  const Tensor sums = index_add(x, 0, at(9, 60, {60}), Tensor::ones({60, 3}, DType::f32, device()));
  EXPECT_NE(report(sums), "nothing");
  EXPECT_EQ(sums.to_vector<float>()[3], 3 + 59);
}

}  // namespace
}  // namespace espalier
