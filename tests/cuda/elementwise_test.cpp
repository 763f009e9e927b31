// The elementwise kernels against the CPU's: every operation, type and combination of strides.
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::cpu;
using testing::cuda;
using testing::device;
using testing::epsilon;
using testing::expect_equal;
using testing::expect_same;
using testing::RandomTensors;
using testing::to_device;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

constexpr DType kArithmetic[] = {DType::f32, DType::f64, DType::i64, DType::i32};
constexpr DType kAll[] = {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean};

/// Scalars, nothing, less than a vector of 16 bytes and not a multiple of one, more than a block, and five axes.
const std::vector<Shape> kShapes = {{}, {0}, {1}, {3}, {17, 19}, {1021}, {2, 3, 1, 5, 4}};

/// Values of both signs, with what floating-point operations may stumble over.
Tensor values(RandomTensors& random, const Shape& shape, DType dtype) {
  Tensor x = random(shape) * 3.0;
  if (is_floating(dtype)) {
    x = where(x > 6.0, Tensor::scalar(NAN, DType::f64), x);
    x = where(x < -6.0, Tensor::scalar(-INFINITY, DType::f64), x);
    x = where(x == unary(UnaryOp::round, x), Tensor::scalar(-0.0, DType::f64), x);
  }
  return x.to(dtype);
}

/// How far libraries' functions may be apart: a few units in the last place.
double few_ulp(DType dtype) { return is_floating(dtype) ? 8 * epsilon(dtype) : 0; }

TEST(CudaElementwise, UnaryOperations) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kArithmetic) {
    for (int op = 0; op <= static_cast<int>(UnaryOp::isnan); ++op) {
      const auto operation = static_cast<UnaryOp>(op);
      const bool integers_too = operation <= UnaryOp::square || operation == UnaryOp::relu;
      if (operation == UnaryOp::logical_not || (!is_floating(dtype) && !integers_too)) continue;
      for (const Shape& shape : kShapes) {
        for (const View& x : views(shape, [&](const Shape& s) { return values(random, s, dtype); })) {
          const DType result = operation == UnaryOp::isnan ? DType::boolean : dtype;
          const double tolerance = few_ulp(dtype);
          expect_same({.inputs = {x.x},
                       .outputs = {Tensor::empty(shape, result)},
                       .absolute = tolerance / 8,
                       .relative = tolerance,
                       .what = fmt::format("unary {} of {} {} {}", op, name_of(dtype), shape, x.name)},
                      [&](const Kernels& k, const Tensors& in, Tensors& out) { k.unary(operation, in[0], out[0]); });
        }
      }
    }
  }
}

TEST(CudaElementwise, BinaryOperationsOnBroadcastAndStridedOperands) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kArithmetic) {
    for (int op = 0; op <= static_cast<int>(BinaryOp::relu_grad); ++op) {
      const auto operation = static_cast<BinaryOp>(op);
      const bool positive = !is_floating(dtype) && (operation == BinaryOp::div || operation == BinaryOp::pow);
      const auto second = [&](const Shape& s) {
        return positive ? (abs(random(s)) * 2.0 + 1.0).to(dtype) : values(random, s, dtype);
      };
      for (const Shape& shape : kShapes) {
        const auto a_views = views(shape, [&](const Shape& s) { return values(random, s, dtype); });
        auto b_views = views(shape, second);
        b_views.push_back({"one for all", second({}).expand(shape)});
        if (shape.rank() > 1) {
          Shape column = shape;
          column[shape.rank() - 1] = 1;
          b_views.push_back({"a column", second(column).expand(shape)});
        }
        for (size_t i = 0; i < b_views.size(); ++i) {
          const View &a = a_views[i % a_views.size()], &b = b_views[i];
          expect_same(
              {.inputs = {a.x, b.x},
               .outputs = {Tensor::empty(shape, dtype)},
               .relative = operation == BinaryOp::pow ? 4 * few_ulp(dtype) : 0,
               .what = fmt::format("binary {} of {} {}: {}, {}", op, name_of(dtype), shape, a.name, b.name)},
              [&](const Kernels& k, const Tensors& in, Tensors& out) { k.binary(operation, in[0], in[1], out[0]); });
        }
      }
    }
  }
}

TEST(CudaElementwise, NumbersOnEitherSide) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kArithmetic) {
    for (int op = 0; op <= static_cast<int>(BinaryOp::relu_grad); ++op) {
      const auto operation = static_cast<BinaryOp>(op);
      for (const double number : {2.0, 3.0, 1.0, 0.5, -0.5, -1.0, -7.0}) {
        if (!is_floating(dtype) && (number != std::floor(number) || (operation == BinaryOp::pow && number < 0)))
          continue;
        for (const bool reversed : {false, true}) {
          Tensor x = (abs(random({5, 67})) * 3.0 + 1.0).to(dtype);  // divides and is a power, whatever the type
          expect_same(
              {.inputs = {x, x.transpose(0, 1)},
               .outputs = {Tensor::empty({5, 67}, dtype), Tensor::empty({67, 5}, dtype)},
               .relative = operation == BinaryOp::pow ? 4 * few_ulp(dtype) : 0,
               .what = fmt::format("{} and operation {} of {}, reversed {}", number, op, name_of(dtype), reversed)},
              [&](const Kernels& k, const Tensors& in, Tensors& out) {
                for (size_t i = 0; i < 2; ++i) k.binary_scalar(operation, in[i], number, reversed, out[i]);
              });
        }
      }
    }
  }
}

TEST(CudaElementwise, IntegersWithoutAResultAreRefusedAsOnTheCpu) {
  const Tensor x = to_device(Tensor::from(std::vector<int32_t>{5, 6, 7, 8}, {2, 2}));
  const auto message = [](const auto& call) {
    try {
      call();
    } catch (const ArgumentError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const BinaryOp op : {BinaryOp::div, BinaryOp::pow}) {
    const Tensor refused =
        to_device(Tensor::from(std::vector<int32_t>{1, 2, op == BinaryOp::div ? 0 : -3, 4}, {2, 2}).transpose(0, 1));
    const std::string got = message([&] { binary(op, x, refused); });
    EXPECT_NE(got, "");
    EXPECT_EQ(got, message([&] { binary(op, x.to(Device::cpu()), refused.to(Device::cpu())); }));
    EXPECT_EQ(message([&] { binary(op, 2.0, refused); }), got);
    EXPECT_NE(message([&] { binary(op, x, op == BinaryOp::div ? 0.0 : -1.0); }), "");
  }
  // The most negative number by -1 wraps instead of trapping.
  const Tensor least = to_device(Tensor::from(std::vector<int64_t>{INT64_MIN, 12}, {2}));
  EXPECT_EQ((least / -1.0).to_vector<int64_t>(), (std::vector<int64_t>{INT64_MIN, -12}));
}

TEST(CudaElementwise, LogicalOperations) {
  RandomTensors random(DType::f64);
  for (const Shape& shape : kShapes) {
    const auto make = [&](const Shape& s) { return random(s) > 0.0; };
    const auto a_views = views(shape, make), b_views = views(shape, make);
    for (size_t i = 0; i < a_views.size(); ++i) {
      const View &a = a_views[i], &b = b_views[b_views.size() - 1 - i];
      for (const BinaryOp op : {BinaryOp::logical_and, BinaryOp::logical_or, BinaryOp::logical_xor})
        expect_same({.inputs = {a.x, b.x}, .outputs = {Tensor::empty(shape, DType::boolean)}, .what = a.name},
                    [&](const Kernels& k, const Tensors& in, Tensors& out) { k.binary(op, in[0], in[1], out[0]); });
      expect_same(
          {.inputs = {a.x}, .outputs = {Tensor::empty(shape, DType::boolean)}, .what = a.name},
          [&](const Kernels& k, const Tensors& in, Tensors& out) { k.unary(UnaryOp::logical_not, in[0], out[0]); });
    }
  }
}

TEST(CudaElementwise, ComparisonsOfEveryType) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kAll) {
    for (const Shape& shape : kShapes) {
      // Few different values: equal ones are common.
      const auto make = [&](const Shape& s) { return unary(UnaryOp::round, values(random, s, DType::f64)).to(dtype); };
      const auto a_views = views(shape, make), b_views = views(shape, make);
      for (size_t i = 0; i < a_views.size(); ++i) {
        const View &a = a_views[i], &b = b_views[(i + 1) % b_views.size()];
        for (int op = 0; op <= static_cast<int>(CompareOp::ge); ++op)
          expect_same({.inputs = {a.x, b.x},
                       .outputs = {Tensor::empty(shape, DType::boolean)},
                       .what = fmt::format("comparison {} of {} {} {}", op, name_of(dtype), shape, a.name)},
                      [&](const Kernels& k, const Tensors& in, Tensors& out) {
                        k.compare(static_cast<CompareOp>(op), in[0], in[1], out[0]);
                      });
      }
    }
  }
}

TEST(CudaElementwise, ClampKeepsNaNAndTakesFractionalBounds) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kArithmetic) {
    for (const auto& [low, high] : std::vector<std::pair<double, double>>{
             {-1.5, 2.5}, {-INFINITY, 0.25}, {0, INFINITY}, {-INFINITY, INFINITY}, {1, 1}}) {
      for (const View& x : views({13, 21}, [&](const Shape& s) { return values(random, s, dtype); }))
        expect_same({.inputs = {x.x},
                     .outputs = {Tensor::empty({13, 21}, dtype)},
                     .what = fmt::format("clamp to {}, {} of {} {}", low, high, name_of(dtype), x.name)},
                    [&](const Kernels& k, const Tensors& in, Tensors& out) { k.clamp(in[0], low, high, out[0]); });
    }
  }
}

TEST(CudaElementwise, AxpyAccumulates) {
  RandomTensors random(DType::f64);
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (const View& x : views(shape, [&](const Shape& s) { return random(s).to(dtype); })) {
        for (const View& out : views(shape, [&](const Shape& s) { return random(s).to(dtype); })) {
          // A GPU fuses the product and the sum.
          expect_same({.inputs = {x.x},
                       .outputs = {out.x},
                       .absolute = 4 * epsilon(dtype),
                       .relative = epsilon(dtype),
                       .accumulates = true,
                       .what = fmt::format("axpy of {} {}: {} to {}", name_of(dtype), shape, x.name, out.name)},
                      [](const Kernels& k, const Tensors& in, Tensors& to) { k.axpy(-0.3, in[0], to[0]); });
        }
      }
    }
  }
}

TEST(CudaElementwise, WorksInPlaceOnPermutedTensors) {
  RandomTensors random(DType::f32);
  Tensor x = random({37, 41}).transpose(0, 1);
  expect_same({.inputs = {random({41, 37})}, .outputs = {x}, .accumulates = true, .what = "in place"},
              [](const Kernels& k, const Tensors& in, Tensors& out) {
                k.binary(BinaryOp::mul, out[0], in[0], out[0]);
                k.unary(UnaryOp::relu, out[0], out[0]);
                k.binary_scalar(BinaryOp::sub, out[0], 1.0, true, out[0]);
              });
}

}  // namespace
}  // namespace espalier
