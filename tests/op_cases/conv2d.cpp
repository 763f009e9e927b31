#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

struct Geometry {
  std::string variant;
  Shape x, w;
  Conv2dShape conv = {};
  int derivatives = 2;

  Shape y() const {
    const auto size = [](int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
      return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    };
    return {x[0], w[0], size(x[2], w[2], conv.stride_h, conv.padding_h, conv.dilation_h),
            size(x[3], w[3], conv.stride_w, conv.padding_w, conv.dilation_w)};
  }
};

const std::vector<Geometry> kGeometries = {
    {"plain", {2, 2, 4, 5}, {3, 2, 3, 3}},
    {"pointwise", {2, 3, 2, 3}, {4, 3, 1, 1}},
    {"pointwise_stride", {1, 3, 5, 5}, {2, 3, 1, 1}, {.stride_h = 2, .stride_w = 2}},
    {"same", {1, 2, 5, 5}, {3, 2, 3, 3}, {.padding_h = 1, .padding_w = 1}},
    {"stride", {1, 2, 6, 7}, {2, 2, 3, 3}, {.stride_h = 2, .stride_w = 3}},
    {"stride_padding", {2, 2, 5, 4}, {2, 2, 3, 3}, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}},
    // The last row and column of x are never reached: their gradient is 0.
    {"stride_leaves_a_rest", {1, 1, 6, 6}, {2, 1, 3, 3}, {.stride_h = 2, .stride_w = 2}},
    {"wide_padding", {1, 2, 3, 3}, {2, 2, 2, 3}, {.padding_h = 3, .padding_w = 2}},
    {"dilation", {1, 2, 7, 8}, {2, 2, 3, 2}, {.padding_h = 1, .dilation_h = 2, .dilation_w = 3}},
    {"groups", {2, 4, 3, 3}, {4, 2, 3, 3}, {.padding_h = 1, .padding_w = 1, .groups = 2}},
    {"depthwise", {1, 3, 5, 5}, {3, 1, 3, 3}, {.padding_h = 1, .padding_w = 1, .groups = 3}},
    {"depthwise_multiplier", {1, 2, 5, 5}, {4, 1, 3, 3}, {.stride_h = 2, .stride_w = 2, .groups = 2}},
    {"everything",
     {2, 4, 5, 4},
     {4, 2, 3, 2},
     {.stride_h = 2, .stride_w = 1, .padding_h = 2, .padding_w = 1, .dilation_h = 2, .dilation_w = 2, .groups = 2}},
    {"kernel_is_image", {3, 2, 3, 2}, {4, 2, 3, 2}},
    {"row_kernel", {1, 2, 3, 6}, {2, 2, 1, 5}, {.padding_w = 2}},
    {"large", {1, 16, 9, 17}, {18, 16, 5, 5}, {.padding_h = 2, .padding_w = 2}, 0},
    {"large_stride",
     {2, 16, 14, 14},
     {32, 16, 3, 3},
     {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1},
     0},
};

/// Every product x * w of the convolution: f(index in x, index in w, index in y).
void for_each_product(const Geometry& g, const std::function<void(const Index&, const Index&, const Index&)>& f) {
  const int64_t channels = g.w[1], filters = g.w[0] / g.conv.groups;
  for_each(g.y(), [&](const Index& y) {
    for_each({channels, g.w[2], g.w[3]}, [&](const Index& k) {
      const int64_t row = y[2] * g.conv.stride_h + k[1] * g.conv.dilation_h - g.conv.padding_h;
      const int64_t column = y[3] * g.conv.stride_w + k[2] * g.conv.dilation_w - g.conv.padding_w;
      if (row < 0 || row >= g.x[2] || column < 0 || column >= g.x[3]) return;
      f({y[0], y[1] / filters * channels + k[0], row, column}, {y[1], k[0], k[1], k[2]}, y);
    });
  });
}

void add(std::vector<OpCase>& cases, const Geometry& g) {
  const int64_t window = g.w[1] * g.w[2] * g.w[3], positions = g.y()[0] * g.y()[2] * g.y()[3];
  for (bool bias : {false, true}) {
    if (bias && g.conv.groups == 1 && g.derivatives > 0 && g.variant != "plain") continue;  // a bias is a bias
    std::vector<OpInput> inputs = {{g.x}, {g.w}};
    if (bias) inputs.push_back({{g.w[0]}});
    cases.push_back(
        {.name = fmt::format("conv2d.{}{}", g.variant, bias ? "_bias" : ""),
         .inputs = inputs,
         .run = [=](const Variables& v) { return Variables{conv2d(v[0], v[1], bias ? v[2] : Variable(), g.conv)}; },
         .reference =
             [=](const Arrays& v) {
               Array y(g.y());
               for_each_product(g,
                                [&](const Index& x, const Index& w, const Index& at) { y(at) += v[0](x) * v[1](w); });
               if (bias) for_each(y.shape, [&](const Index& i) { y(i) += v[2]({i[1]}); });
               return Arrays{y};
             },
         .terms = window + 1,
         .scale = 4,
         .derivatives = g.derivatives});
  }
  cases.push_back({.name = "conv2d_input_grad." + g.variant,
                   .inputs = {{g.y()}, {g.w}},
                   .run = [=](const Variables& v) { return Variables{conv2d_input_grad(v[0], v[1], g.x, g.conv)}; },
                   .reference =
                       [=](const Arrays& v) {
                         Array dx(g.x);
                         for_each_product(
                             g, [&](const Index& x, const Index& w, const Index& y) { dx(x) += v[0](y) * v[1](w); });
                         return Arrays{dx};
                       },
                   .terms = g.w[0] * window,
                   .scale = 4,
                   .derivatives = g.derivatives});
  cases.push_back({.name = "conv2d_weight_grad." + g.variant,
                   .inputs = {{g.y()}, {g.x}},
                   .run = [=](const Variables& v) { return Variables{conv2d_weight_grad(v[0], v[1], g.w, g.conv)}; },
                   .reference =
                       [=](const Arrays& v) {
                         Array dw(g.w);
                         for_each_product(
                             g, [&](const Index& x, const Index& w, const Index& y) { dw(w) += v[0](y) * v[1](x); });
                         return Arrays{dw};
                       },
                   .terms = positions,
                   .scale = 4,
                   .derivatives = g.derivatives});
}

}  // namespace

void add_conv2d(std::vector<OpCase>& cases) {
  for (const Geometry& g : kGeometries) add(cases, g);
}

}  // namespace espalier::op_cases
