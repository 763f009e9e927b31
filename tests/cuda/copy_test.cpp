// fill, copy and where on the device against the CPU's.
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::expect_same;
using testing::RandomTensors;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

constexpr DType kAll[] = {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean};

const std::vector<Shape> kShapes = {{}, {0}, {1}, {3}, {17, 19}, {1021}, {2, 3, 1, 5, 4}};

/// Numbers that all types but bool can tell apart after conversion to integers and back.
Tensor values(RandomTensors& random, const Shape& shape, DType dtype) { return (random(shape) * 20.0).to(dtype); }

TEST(CudaCopy, FillsEveryTypeAndView) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kAll) {
    for (const double value : {0.0, 1.0, -3.0, 2.75, 200.0}) {
      for (const Shape& shape : kShapes) {
        for (const View& out : views(shape, [&](const Shape& s) { return values(random, s, dtype); }))
          expect_same({.outputs = {out.x},
                       .what = fmt::format("fill {} with {}: {} {}", name_of(dtype), value, shape, out.name)},
                      [&](const Kernels& k, const Tensors&, Tensors& to) { k.fill(to[0], value); });
      }
    }
  }
}

TEST(CudaCopy, LeavesTheRestOfAViewAlone) {
  Tensor whole = Tensor::full({6, 8}, 5, DType::f32, testing::device());
  whole.slice(1, 2, 5).fill_(7);
  const auto values = whole.to_vector<float>();
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], i % 8 >= 2 && i % 8 < 5 ? 7 : 5) << i;
}

TEST(CudaCopy, ConvertsEveryTypeToEveryOther) {
  RandomTensors random(DType::f64);
  for (const DType from : kAll) {
    for (const DType to : kAll) {
      for (const Shape& shape : kShapes) {
        const auto sources = views(shape, [&](const Shape& s) { return values(random, s, from); });
        const auto targets = views(shape, [&](const Shape& s) { return Tensor::zeros(s, to); });
        for (size_t i = 0; i < sources.size(); ++i) {
          const View &x = sources[i], &out = targets[(i + i / 2) % targets.size()];
          expect_same(
              {.inputs = {x.x},
               .outputs = {out.x},
               .what = fmt::format("{} to {} {}: {} to {}", name_of(from), name_of(to), shape, x.name, out.name)},
              [](const Kernels& k, const Tensors& in, Tensors& result) { k.copy(in[0], result[0]); });
        }
      }
    }
  }
}

TEST(CudaCopy, ConvertsWhatIsNoNumber) {
  const Tensor x = Tensor::from(std::vector<float>{NAN, INFINITY, -0.0f, -1.5f, 0.3f}, {5});
  for (const DType to : {DType::f64, DType::boolean})
    expect_same({.inputs = {x}, .outputs = {Tensor::empty({5}, to)}, .what = name_of(to)},
                [](const Kernels& k, const Tensors& in, Tensors& out) { k.copy(in[0], out[0]); });
}

TEST(CudaCopy, TransposesThroughTiles) {
  RandomTensors random(DType::f64);
  struct Case {
    Shape shape;
    std::vector<int> axes;
  };
  // Whole tiles, ragged ones, and further axes before, between and after the two that change places.
  for (const auto& [shape, axes] : std::vector<Case>{{{64, 96}, {1, 0}},
                                                     {{33, 70}, {1, 0}},
                                                     {{17, 16}, {1, 0}},
                                                     {{3, 40, 35}, {0, 2, 1}},
                                                     {{2, 20, 3, 37}, {0, 2, 3, 1}},
                                                     {{18, 2, 3, 19}, {3, 1, 2, 0}},
                                                     {{2, 5, 6, 7, 33}, {4, 2, 0, 1, 3}}}) {
    for (const DType dtype : {DType::u8, DType::f32, DType::f64}) {
      const Tensor x = values(random, shape, dtype).permute(axes);
      expect_same({.inputs = {x},
                   .outputs = {Tensor::empty(x.shape(), dtype)},
                   .what = fmt::format("transpose {} of {}", shape, name_of(dtype))},
                  [](const Kernels& k, const Tensors& in, Tensors& out) { k.copy(in[0], out[0]); });
    }
  }
}

TEST(CudaCopy, ExpandsBroadcastTensors) {
  RandomTensors random(DType::f32);
  for (const Tensor& x :
       {random({}).expand({5, 300}), random({1, 40}).expand({30, 40}), random({30, 1}).expand({30, 40})})
    expect_same({.inputs = {x}, .outputs = {Tensor::empty(x.shape())}, .what = x.shape().to_string()},
                [](const Kernels& k, const Tensors& in, Tensors& out) { k.copy(in[0], out[0]); });
}

TEST(CudaCopy, WhereChoosesForEveryType) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kAll) {
    for (const Shape& shape : kShapes) {
      const auto conditions = views(shape, [&](const Shape& s) { return random(s) > 0.0; });
      const auto make = [&](const Shape& s) { return values(random, s, dtype); };
      const auto a_views = views(shape, make);
      auto b_views = views(shape, make);
      b_views.push_back({"one for all", make({}).expand(shape)});
      for (size_t i = 0; i < b_views.size(); ++i) {
        const View &c = conditions[i % conditions.size()], &a = a_views[(i + i / 2) % a_views.size()];
        expect_same(
            {.inputs = {c.x, a.x, b_views[i].x},
             .outputs = {Tensor::empty(shape, dtype)},
             .what = fmt::format("where of {} {}: {}, {}, {}", name_of(dtype), shape, c.name, a.name, b_views[i].name)},
            [](const Kernels& k, const Tensors& in, Tensors& out) { k.where(in[0], in[1], in[2], out[0]); });
      }
    }
  }
}

}  // namespace
}  // namespace espalier
