#include <cmath>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

constexpr double kEpsilon = 1e-3;

struct Moments {
  std::vector<double> mean, variance;
};

/// Mean and biased variance of x for each value of key(index).
Moments moments(const Array& x, size_t keys, const std::function<size_t(const Index&)>& key) {
  std::vector<double> count(keys, 0);
  Moments m{std::vector<double>(keys, 0), std::vector<double>(keys, 0)};
  for_each(x.shape, [&](const Index& i) {
    m.mean[key(i)] += x(i);
    ++count[key(i)];
  });
  for (size_t k = 0; k < keys; ++k) m.mean[k] /= count[k];
  for_each(x.shape, [&](const Index& i) { m.variance[key(i)] += (x(i) - m.mean[key(i)]) * (x(i) - m.mean[key(i)]); });
  for (size_t k = 0; k < keys; ++k) m.variance[k] /= count[k];
  return m;
}

void add_batch_norm(std::vector<OpCase>& cases, const std::string& variant, const Shape& x) {
  const int64_t channels = x[1];
  cases.push_back({.name = "batch_norm." + variant,
                   .inputs = {{x}, {{channels}}, {{channels}}},
                   .run =
                       [](const Variables& v) {
                         BatchStats stats;
                         return Variables{batch_norm(v[0], v[1], v[2], kEpsilon, &stats)};
                       },
                   .reference =
                       [=](const Arrays& a) {
                         const auto channel = [](const Index& i) { return static_cast<size_t>(i[1]); };
                         const Moments m = moments(a[0], static_cast<size_t>(channels), channel);
                         return Arrays{fill(x, [&](const Index& i) {
                           const double scale = a[1]({i[1]}) / std::sqrt(m.variance[channel(i)] + kEpsilon);
                           return (a[0](i) - m.mean[channel(i)]) * scale + a[2]({i[1]});
                         })};
                       },
                   .terms = x.numel() / channels,
                   .scale = 4});
  for (bool affine : {true, false}) {
    std::vector<OpInput> inputs = {{x}};
    if (affine) inputs.insert(inputs.end(), {{{channels}}, {{channels}}});
    const auto mean = [](int64_t c) { return 0.25 * static_cast<double>(c) - 0.5; };
    const auto variance = [](int64_t c) { return 0.5 + 0.25 * static_cast<double>(c); };
    cases.push_back({.name = fmt::format("batch_norm_eval.{}{}", variant, affine ? "" : "_plain"),
                     .inputs = inputs,
                     .run =
                         [=](const Variables& v) {
                           std::vector<double> means, variances;
                           for (int64_t c = 0; c < channels; ++c) {
                             means.push_back(mean(c));
                             variances.push_back(variance(c));
                           }
                           const auto constant = [&](const std::vector<double>& values) {
                             return Tensor::from(values, {channels}).to(v[0].dtype()).to(v[0].device());
                           };
                           return Variables{batch_norm_eval(v[0], constant(means), constant(variances),
                                                            affine ? v[1] : Variable(), affine ? v[2] : Variable(),
                                                            kEpsilon)};
                         },
                     .reference =
                         [=](const Arrays& a) {
                           return Arrays{fill(x, [&](const Index& i) {
                             const double normal = (a[0](i) - mean(i[1])) / std::sqrt(variance(i[1]) + kEpsilon);
                             return affine ? normal * a[1]({i[1]}) + a[2]({i[1]}) : normal;
                           })};
                         },
                     .terms = 4,
                     .scale = 4});
  }
}

void add_layer_norm(std::vector<OpCase>& cases, const std::string& variant, const Shape& x, int axes, bool affine) {
  const Shape inner(x.end() - axes, x.end());
  std::vector<OpInput> inputs = {{x}};
  if (affine) inputs.insert(inputs.end(), {{inner}, {inner}});
  cases.push_back({.name = "layer_norm." + variant,
                   .inputs = inputs,
                   .run =
                       [=](const Variables& v) {
                         return Variables{
                             layer_norm(v[0], axes, affine ? v[1] : Variable(), affine ? v[2] : Variable(), kEpsilon)};
                       },
                   .reference =
                       [=](const Arrays& a) {
                         const auto row = [&](const Index& i) {
                           size_t at = 0;
                           for (int k = 0; k < x.rank() - axes; ++k)
                             at = at * static_cast<size_t>(x[k]) + static_cast<size_t>(i[static_cast<size_t>(k)]);
                           return at;
                         };
                         const Moments m = moments(a[0], static_cast<size_t>(x.numel() / inner.numel()), row);
                         return Arrays{fill(x, [&](const Index& i) {
                           const double normal = (a[0](i) - m.mean[row(i)]) / std::sqrt(m.variance[row(i)] + kEpsilon);
                           return affine ? normal * a[1].broadcast(i) + a[2].broadcast(i) : normal;
                         })};
                       },
                   .terms = inner.numel(),
                   .scale = 4});
}

void add_dropout(std::vector<OpCase>& cases) {
  // Which elements fall is the generator's business: the reference takes them from a run on ones, and says what
  // becomes of the others.
  cases.push_back(
      {.name = "dropout.keeps_scaled",
       .inputs = {{.shape = {5, 7}, .away_from_zero = 0.01}},
       .run =
           [](const Variables& v) {
             Generator generator(7);
             return Variables{dropout(v[0], 0.4, generator)};
           },
       .reference =
           [](const Arrays& a) {
             Generator generator(7);
             const std::vector<double> kept = dropout(Tensor::ones({5, 7}), 0.4, generator).data().to_vector<double>();
             Array out = a[0];
             for (size_t i = 0; i < kept.size(); ++i) out.values[i] = kept[i] > 0 ? a[0].values[i] / 0.6 : 0;
             return Arrays{out};
           },
       .scale = 4});
}

}  // namespace

void add_normalization(std::vector<OpCase>& cases) {
  add_batch_norm(cases, "features", {6, 3});
  add_batch_norm(cases, "images", {2, 3, 3, 2});
  add_batch_norm(cases, "one_channel", {3, 1, 2, 2});
  add_batch_norm(cases, "wide", {2, 2, 3, 7});
  add_layer_norm(cases, "last", {3, 5}, 1, true);
  add_layer_norm(cases, "last_plain", {3, 5}, 1, false);
  add_layer_norm(cases, "two_axes", {3, 2, 4}, 2, true);
  add_layer_norm(cases, "all", {2, 4}, 2, true);
  add_layer_norm(cases, "sequence", {2, 3, 17}, 1, true);
  add_dropout(cases);
}

}  // namespace espalier::op_cases
