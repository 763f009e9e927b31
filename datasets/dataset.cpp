#include "datasets/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include <nlohmann/json.hpp>

#include "core/checksum.h"
#include "core/random.h"
#include "datasets/rows.h"

namespace espalier {

Tensor rows_of(const Tensor& all, std::span<const int64_t> indices) {
  Shape shape = all.shape();
  shape[0] = static_cast<int64_t>(indices.size());
  Tensor rows = Tensor::empty(shape, all.dtype());
  const size_t bytes = all.size(0) > 0 ? all.bytes() / static_cast<size_t>(all.size(0)) : 0;
  for (size_t i = 0; i < indices.size(); ++i)
    std::memcpy(static_cast<char*>(rows.raw()) + i * bytes,
                static_cast<const char*>(all.raw()) + static_cast<size_t>(indices[i]) * bytes, bytes);
  return rows;
}

namespace {

/// Does the same to every tensor of a data set that has a row for each example.
template <class F>
void for_each_tensor(Dataset& dataset, F&& f) {
  f(dataset.images);
  if (dataset.labels.defined()) f(dataset.labels);
  for (auto& [unused, input] : dataset.inputs) f(input);
  for (Target& target : dataset.targets) f(target.values);
}

}  // namespace

Shape Target::outputs() const {
  Shape shape = values.shape();
  shape.erase(0);
  if (is_classes()) shape.push_back(static_cast<int64_t>(class_names.size()));
  return shape;
}

Shape Dataset::input_shape() const {
  Shape shape = images.shape();
  shape.erase(0);
  return shape;
}

std::vector<Target> Dataset::all_targets() const {
  std::vector<Target> all = {reconstructs ? Target{.name = "input", .values = images}
                                          : Target{.name = "label", .values = labels, .class_names = class_names}};
  all.insert(all.end(), targets.begin(), targets.end());
  return all;
}

bool Dataset::is_classification() const {
  return !reconstructs && targets.empty() && labels.defined() && labels.dtype() == DType::i64 && labels.rank() == 1;
}

std::vector<Tensor> Dataset::example(int64_t count) const {
  std::vector<Tensor> all;
  const auto add = [&](const Tensor& values) {
    Shape shape = values.shape();
    shape[0] = count;
    if (values.dtype() == DType::i64)
      all.push_back(rows_of(values.slice(0, 0, 1).contiguous(), std::vector<int64_t>(static_cast<size_t>(count))));
    else
      all.push_back(Tensor::zeros(shape, DType::f32));
  };
  add(images);
  for (const auto& [input, values] : inputs) {
    if (input == "lengths") {
      const std::vector<int64_t> lengths = values.to_vector<int64_t>();
      all.push_back(Tensor::full({count}, *std::max_element(lengths.begin(), lengths.end()), DType::i64));
    } else {
      add(values);
    }
  }
  return all;
}

Dataset Dataset::subset(const std::vector<int64_t>& indices) const {
  for (const int64_t index : indices)
    check(index >= 0 && index < size(), "subset", "expected indices in 0..{} of '{}', got {}", size() - 1, name, index);
  Dataset part = *this;
  for_each_tensor(part, [&](Tensor& values) { values = rows_of(values.contiguous(), indices); });
  return part;
}

Dataset Dataset::first(int64_t count) const {
  Dataset part = *this;
  count = std::clamp<int64_t>(count, 0, size());
  for_each_tensor(part, [&](Tensor& values) { values = values.slice(0, 0, count); });
  return part;
}

std::string description_of(const Dataset& dataset) {
  const Shape shape = dataset.input_shape();
  nlohmann::json json = {{"name", dataset.name},
                         {"classes", dataset.class_names},
                         {"mean", dataset.mean},
                         {"stddev", dataset.stddev},
                         {"shape", std::vector<int64_t>(shape.begin(), shape.end())}};
  if (!dataset.is_classification())
    for (const Target& target : dataset.all_targets()) {
      const Shape outputs = target.outputs();
      json["targets"].push_back({{"name", target.name},
                                 {"classes", target.class_names},
                                 {"outputs", std::vector<int64_t>(outputs.begin(), outputs.end())}});
    }
  for (const auto& [input, values] : dataset.inputs) json["inputs"].push_back(input);
  if (!dataset.loss.empty()) json["loss"] = dataset.loss;
  if (!dataset.metric.empty()) json["metric"] = dataset.metric;
  return json.dump();
}

uint64_t checksum_of(const Dataset& dataset) {
  const auto more = [](const Tensor& values, uint64_t before) {
    const Tensor all = values.contiguous();
    return checksum(all.raw(), all.bytes(), before);
  };
  const Tensor images = dataset.images.contiguous();
  uint64_t sum = checksum(images.raw(), images.bytes());
  if (dataset.labels.defined()) sum = more(dataset.labels, sum);
  for (const auto& [input, values] : dataset.inputs) sum = more(values, sum);
  for (const Target& target : dataset.targets) sum = more(target.values, sum);
  return sum;
}

TrainValidation split_validation(const Dataset& train, double size, uint64_t seed) {
  const int64_t total = train.size();
  const int64_t count = std::llround(size < 1 ? size * static_cast<double>(total) : size);
  check(size > 0 && count >= 1 && count < total, "split_validation",
        "expected a fraction in (0,1) or a count below the {} examples of '{}', got {}", total, train.name, size);

  const bool has_classes = train.labels.defined() && train.labels.dtype() == DType::i64 && train.labels.rank() == 1;
  std::vector<std::vector<int64_t>> by_class(has_classes ? static_cast<size_t>(train.num_classes()) : 1);
  const Tensor label_tensor = has_classes ? train.labels.contiguous() : Tensor();
  for (int64_t i = 0; i < total; ++i)
    by_class[has_classes ? static_cast<size_t>(label_tensor.data<int64_t>()[i]) : 0].push_back(i);

  // The examples class after class, each class in random order; evenly spaced ones are taken, so that a class gives its
  // share to within one and the parts add up to `count`.
  std::vector<char> chosen(static_cast<size_t>(total), 0);
  Generator random(seed);
  int64_t position = 0;
  for (const std::vector<int64_t>& members : by_class) {
    for (int64_t i : random.permutation(static_cast<int64_t>(members.size()))) {
      const bool take = (position + 1) * count / total > position * count / total;
      chosen[static_cast<size_t>(members[static_cast<size_t>(i)])] = take;
      ++position;
    }
  }
  std::vector<int64_t> kept, taken;
  for (int64_t i = 0; i < total; ++i) (chosen[static_cast<size_t>(i)] ? taken : kept).push_back(i);
  return {train.subset(kept), train.subset(taken)};
}

namespace {

/// Of each channel of floats (N,...), of sequences (N,T,F) the steps that count.
void compute_float_statistics(Dataset& dataset) {
  const Tensor values = dataset.images.contiguous();
  const float* x = values.data<float>();
  const Shape shape = dataset.input_shape();
  if (shape.rank() == 0) return;
  const int64_t channels = shape.rank() == 3 ? shape[0] : shape.back();
  const int64_t inner = shape.rank() == 3 ? shape[1] * shape[2] : 1;  // values of a channel that lie side by side
  const int64_t each = shape.numel(), steps = shape.rank() == 2 ? shape[0] : 1;
  Tensor lengths;
  for (const auto& [name, input] : dataset.inputs)
    if (name == "lengths" && shape.rank() == 2) lengths = input.contiguous();
  // Two passes: values far from 0 lose nothing.
  const auto means_of = [&](auto&& term) {
    std::vector<double> sums(static_cast<size_t>(channels));
    double count = 0;
    for (int64_t n = 0; n < dataset.size(); ++n) {
      const int64_t used = lengths.defined() ? std::clamp<int64_t>(lengths.data<int64_t>()[n], 0, steps) : steps;
      const int64_t end = each / steps * used;
      for (int64_t i = 0; i < end; ++i) {
        const auto c = static_cast<size_t>(i / inner % channels);
        sums[c] += term(static_cast<double>(x[n * each + i]), c);
      }
      count += static_cast<double>(end) / static_cast<double>(channels);
    }
    for (double& sum : sums) sum /= std::max(count, 1.0);
    return sums;
  };
  const std::vector<double> mean = means_of([](double v, size_t) { return v; });
  const std::vector<double> variance = means_of([&](double v, size_t c) { return (v - mean[c]) * (v - mean[c]); });
  for (size_t c = 0; c < mean.size(); ++c) {
    dataset.mean.push_back(static_cast<float>(mean[c]));
    // What is always the same has nothing to normalise.
    const bool varies = variance[c] > 1e-12 * std::max(1e-12, mean[c] * mean[c]);
    dataset.stddev.push_back(varies ? static_cast<float>(std::sqrt(variance[c])) : 1.0f);
  }
}

}  // namespace

void compute_statistics(Dataset& dataset) {
  dataset.mean.clear();
  dataset.stddev.clear();
  if (dataset.images.dtype() == DType::f32) compute_float_statistics(dataset);
  if (!dataset.has_images()) return;
  const int64_t channels = dataset.channels(), plane = dataset.height() * dataset.width();
  const Tensor images = dataset.images.contiguous();
  const uint8_t* pixels = images.data<uint8_t>();
  std::vector<uint64_t> sums(static_cast<size_t>(channels)), squares(static_cast<size_t>(channels));
  constexpr int64_t kBlock = 1 << 15;  // a block's sum of squares fits into 32 bits: 2^15 * 255^2 < 2^32
  for (int64_t n = 0; n < dataset.size(); ++n) {
    for (int64_t c = 0; c < channels; ++c, pixels += plane) {
      for (int64_t begin = 0; begin < plane; begin += kBlock) {
        uint32_t sum = 0, square = 0;
        for (int64_t i = begin; i < std::min(plane, begin + kBlock); ++i) {
          const uint32_t v = pixels[i];
          sum += v;
          square += v * v;
        }
        sums[static_cast<size_t>(c)] += sum;
        squares[static_cast<size_t>(c)] += square;
      }
    }
  }
  const double count = static_cast<double>(dataset.size() * plane);
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = static_cast<double>(sums[static_cast<size_t>(c)]) / count;
    const double variance = static_cast<double>(squares[static_cast<size_t>(c)]) / count - mean * mean;
    dataset.mean.push_back(static_cast<float>(mean / 255));
    // Images all alike have nothing to normalise; 1 keeps them finite.
    dataset.stddev.push_back(variance > 1e-9 ? static_cast<float>(std::sqrt(variance) / 255) : 1.0f);
  }
}

}  // namespace espalier
