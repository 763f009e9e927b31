#include "pruning/recovery/statistics.h"

#include <cmath>
#include <memory>
#include <optional>

#include "core/fields.h"
#include "layers/norm.h"
#include "pruning/recovery/layer_data.h"

namespace espalier {

namespace {
/// Momentum of every BatchNorm: none while alive.
class PlainAverages {
 public:
  explicit PlainAverages(const std::vector<std::pair<std::string, std::shared_ptr<BatchNorm>>>& norms) : norms_(norms) {
    for (const auto& [name, norm] : norms_) {
      before_.push_back(norm->options().momentum);
      norm->set_momentum(std::nullopt);
    }
  }
  ~PlainAverages() {
    for (size_t i = 0; i < norms_.size(); ++i) norms_[i].second->set_momentum(before_[i]);
  }
  PlainAverages(const PlainAverages&) = delete;
  PlainAverages& operator=(const PlainAverages&) = delete;

 private:
  const std::vector<std::pair<std::string, std::shared_ptr<BatchNorm>>>& norms_;
  std::vector<std::optional<double>> before_;
};

/// Sums a layer's outputs over everything but its channels: (N,C,H,W) or (...,C) -> (C), f64.
struct ChannelMean {
  Tensor sum;
  double count = 0;

  void add(const Tensor& output, int axis) {
    const Tensor y = output.to(Device::cpu()).to(DType::f64);
    const int64_t channels = y.size(axis);
    Axes others;
    for (int i = 0; i < y.rank(); ++i)
      if (i != axis) others.push_back(i);
    const Tensor total =
        axis < y.rank() - 1 ? espalier::sum(y, others) : espalier::sum(y.contiguous().reshape({-1, channels}), {0});
    sum = sum.defined() ? sum + total : total;
    count += static_cast<double>(y.numel() / channels);
  }
  std::vector<double> means() const { return (sum * (1 / count)).to_vector<double>(); }
};

/// Means of one layer's outputs over the data, and the BatchNorm that takes its output.
struct Measured {
  std::vector<double> means;
  std::shared_ptr<BatchNorm> norm = nullptr;
  std::string norm_name = {};
};

Measured measure(Module& network, const std::string& layer, const Dataset& data, const CompensateOptions& options) {
  const ModulePtr target = network.find(layer);
  const ChannelAxis axis = target->channels().axis;
  const auto norms = batch_norms(network);
  Measured result;
  ChannelMean mean;
  const EvalMode mode(network);
  const NoGrad no_grad;
  recovery::for_batches("compensate_bias", data, options.batch_size, options.batches, options.seed, network.device(),
                        [&](const Batch& batch) {
                          Variable output;
                          const ForwardObserver observer([&](Module& module, const Variable& x, const Variable& y) {
                            if (&module == target.get()) {
                              output = y;
                              mean.add(y.data(), channel_axis(axis, y.rank()));
                            } else if (output.defined() && x.is_same(output) && !result.norm) {
                              for (const auto& [name, norm] : norms)
                                if (norm.get() == &module) result = {{}, norm, name};
                            }
                          });
                          outputs_of(network, batch);
                        });
  check(mean.count > 0, "compensate_bias", "the forward pass does not call '{}'", layer);
  result.means = mean.means();
  return result;
}

/// Adds to the elements of a parameter that exist.
void add_to(const Parameter& parameter, const std::vector<double>& values) {
  const std::vector<bool> exists = recovery::existing_elements(parameter);
  std::vector<double> sums = parameter.data().to_vector<double>();
  for (size_t i = 0; i < sums.size(); ++i)
    if (exists[i]) sums[i] += values[i];
  Tensor data = parameter.data();
  data.copy_(Tensor::from<double>(sums, parameter.shape()));
}

double largest(const std::vector<double>& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// How far each output's mean is off; 0 for outputs without a weight, which were removed and not damaged.
std::vector<double> differences(const Measured& wanted, const Measured& found, const Parameter& weight) {
  check(wanted.means.size() == found.means.size(), "compensate_bias",
        "'{}' has {} outputs in the pruned network and {} in the dense one; compensate before compaction",
        weight.name(), found.means.size(), wanted.means.size());
  const std::vector<bool> exists = recovery::existing_elements(weight);
  const size_t columns = exists.size() / found.means.size();
  std::vector<double> result(found.means.size(), 0);
  for (size_t c = 0; c < result.size(); ++c)
    for (size_t i = 0; i < columns; ++i)
      if (exists[c * columns + i]) result[c] = wanted.means[c] - found.means[c];
  return result;
}
}  // namespace

void fields(FieldVisitor& f, RecalibrateOptions& o) {
  f.unless_default("batch_size", o.batch_size, at_least(1), "Images in a batch");
  f.unless_default("batches", o.batches, at_least(1), "Over which statistics are averaged, at most");
}

void fields(FieldVisitor& f, CompensateOptions& o) {
  f.unless_default("batch_size", o.batch_size, at_least(1), "Images in a batch");
  f.unless_default("batches", o.batches, at_least(1), "On which means are measured, at most");
}

int64_t recalibrate_batch_norm(Module& module, const Dataset& data, const RecalibrateOptions& options) {
  const auto norms = batch_norms(module);
  if (norms.empty()) return 0;
  check(data.size() > 0, "recalibrate_batch_norm", "expected examples to run the network on, got none");
  check(options.batch_size > 0 && options.batches > 0, "recalibrate_batch_norm",
        "expected batch_size and batches > 0, got {} and {}", options.batch_size, options.batches);
  const EvalMode mode(module);
  const NoGrad no_grad;
  const PlainAverages averages(norms);
  for (const auto& [name, norm] : norms) {
    norm->train();
    norm->reset_running_stats();
  }
  // A last batch with fewer examples would count as much as a full one.
  const int64_t batch_size = std::min(options.batch_size, data.size());
  const int64_t full = data.size() / batch_size;
  recovery::for_batches("recalibrate_batch_norm", data, batch_size, std::min(options.batches, full), options.seed,
                        module.device(), [&](const Batch& batch) { outputs_of(module, batch); });
  return static_cast<int64_t>(norms.size());
}

std::vector<Compensation> compensate_bias(Module& pruned, Module& dense, const Dataset& data,
                                          const CompensateOptions& options) {
  std::vector<Compensation> results;
  for (const recovery::WeightLayer& layer :
       recovery::layers_to_repair("compensate_bias", pruned, dense, data, options.batch_size, options.seed)) {
    const Measured wanted = measure(dense, layer.name, data, options),
                   found = measure(pruned, layer.name, data, options);
    const std::vector<double> shift = differences(wanted, found, layer.weight);
    Compensation result{.layer = layer.name, .target = {}, .largest_shift = largest(shift), .largest_remaining = 0};
    std::vector<double> left = shift;
    const auto settle = [&](const Parameter& bias) {  // what a masked bias cannot take stays
      const std::vector<bool> exists = recovery::existing_elements(bias);
      for (size_t c = 0; c < left.size(); ++c)
        if (exists[c]) left[c] = 0;
    };
    if (layer.bias.defined()) {
      add_to(layer.bias, shift);
      settle(layer.bias);
      result.target = layer.bias.name();
    } else if (found.norm != nullptr && found.norm->bias().defined()) {
      // BatchNorm in evaluation: (x - mean)/sqrt(var + e)*w + b, so x + s is b + s*w/sqrt(var + e).
      const std::vector<double> variance = found.norm->running_var().to_vector<double>();
      const std::vector<double> scale = found.norm->weight().data().to_vector<double>();
      std::vector<double> scaled = shift;
      for (size_t c = 0; c < scaled.size(); ++c)
        scaled[c] *= scale[c] / std::sqrt(variance[c] + found.norm->options().epsilon);
      add_to(found.norm->bias(), scaled);
      settle(found.norm->bias());
      result.target = found.norm_name + ".bias";
    } else {
      result.target = "nothing: no bias, and no BatchNorm takes the output";
    }
    result.largest_remaining = largest(left);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace espalier
