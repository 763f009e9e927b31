// What the tests of criteria share: data with known values, networks in double precision, small linear algebra.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/random.h"
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "pruning/criteria/criterion.h"
#include "tests/training/support.h"

namespace espalier::criteria_testing {

using Values = std::vector<double>;
using Matrix = std::vector<Values>;

/// Images (C,H,W) whose pixels are loaded as pixel - 128, to the rounding of f32; labels 0.
inline Dataset images_of(const std::vector<std::vector<int>>& pixels, const Shape& image) {
  std::vector<uint8_t> bytes;
  for (const auto& example : pixels)
    for (int pixel : example) bytes.push_back(static_cast<uint8_t>(pixel + 128));
  const auto n = static_cast<int64_t>(pixels.size());
  Dataset data{.name = "test",
               .source = "test",
               .images = Tensor::from(bytes, {n, image[0], image[1], image[2]}),
               .labels = Tensor::zeros({n}, DType::i64),
               .class_names = {"a", "b", "c"}};
  data.mean.assign(static_cast<size_t>(image[0]), 128.0f / 255);
  data.stddev.assign(static_cast<size_t>(image[0]), 1.0f / 255);
  return data;
}

/// The examples as the network gets them, one row each.
inline Matrix rows_of(const Dataset& data) {
  const Values all = Transform(data.mean, data.stddev).normalize(data.images).to_vector<double>();
  const size_t n = static_cast<size_t>(data.size()), size = all.size() / n;
  Matrix rows;
  for (size_t i = 0; i < n; ++i)
    rows.emplace_back(all.begin() + static_cast<int64_t>(i * size), all.begin() + static_cast<int64_t>((i + 1) * size));
  return rows;
}

template <class... Layers>
ModulePtr double_network(Layers&&... layers) {
  ModulePtr net = share(Sequential(std::forward<Layers>(layers)...));
  net->to(DType::f64);
  return net;
}

/// Linear regression without bias: y = x . w.
inline ModulePtr regression(const Values& w) {
  ModulePtr net = double_network(Flatten(), Linear(static_cast<int64_t>(w.size()), 1, {.bias = false}));
  net->parameters()[0].set_data(Tensor::from(w, {1, static_cast<int64_t>(w.size())}));
  return net;
}

/// 1/2*(output - target)^2, averaged; targets by the example's index.
inline LossFunction squared_error(const Values& targets) {
  return [targets](const Variable& outputs, const Batch& batch) {
    Values wanted;
    for (int64_t i : batch.indices.to_vector<int64_t>()) wanted.push_back(targets[static_cast<size_t>(i)]);
    return mean(square(reshape(outputs, {-1}) - Tensor::from(wanted, {batch.size()}))) * 0.5;
  };
}

/// The mean loss over all the data in one batch.
inline double loss_on(const CriterionInput& input) {
  const EvalMode mode(input.module);
  const NoGrad no_grad;
  const DataLoader loader(*input.data, {.batch_size = input.data->size()});
  BatchStream stream = loader.batches();
  return loss_of(input, *stream.next()).item();
}

/// Gradients of the mean loss over all the data, in one row, parameter after parameter.
inline Values gradient_on(const CriterionInput& input) {
  const EvalMode mode(input.module);
  const DataLoader loader(*input.data, {.batch_size = input.data->size()});
  BatchStream stream = loader.batches();
  Variables leaves;
  for (const Parameter& p : input.module.parameters()) leaves.push_back(p.variable());
  Values all;
  for (const Variable& g : grad({loss_of(input, *stream.next())}, leaves))
    for (double value : g.data().to_vector<double>()) all.push_back(value);
  return all;
}

/// All weights in one row, parameter after parameter.
inline Values weights_of(const Module& net) {
  Values all;
  for (const Parameter& p : net.parameters())
    for (double value : p.data().to_vector<double>()) all.push_back(value);
  return all;
}
inline void set_weights(const Module& net, const Values& all) {
  size_t i = 0;
  for (Parameter p : net.parameters()) {
    const auto n = static_cast<size_t>(p.numel());
    p.set_data(Tensor::from(Values(all.begin() + static_cast<int64_t>(i), all.begin() + static_cast<int64_t>(i + n)),
                            p.shape())
                   .to(p.data().dtype()));
    i += n;
  }
}

/// The criterion's saliencies of all parameters in one row.
inline Values scores_of(Criterion& criterion, const CriterionInput& input) {
  Saliencies result = criterion.score(input.module.parameters(), input);
  Values all;
  for (const Parameter& p : input.module.parameters())
    for (double value : result.at(p.id()).to_vector<double>()) all.push_back(value);
  return all;
}

inline void expect_near(const Values& actual, const Values& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << "at " << i;
}

/// Solves a x = b by Gaussian elimination with row exchanges.
inline Values solved(Matrix a, Values b) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k) {
    size_t best = k;
    for (size_t i = k; i < n; ++i)
      if (std::abs(a[i][k]) > std::abs(a[best][k])) best = i;
    std::swap(a[k], a[best]);
    std::swap(b[k], b[best]);
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = a[i][k] / a[k][k];
      for (size_t j = 0; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (size_t i = 0; i < n; ++i) b[i] /= a[i][i];
  return b;
}

}  // namespace espalier::criteria_testing
