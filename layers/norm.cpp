#include "layers/norm.h"

#include "core/kernels.h"
#include "layers/config_reader.h"
#include "layers/init.h"
#include "layers/input_selection.h"
#include "layers/modules_of_type.h"

namespace espalier {

namespace {
int64_t checked_features(const char* type, int64_t features, const BatchNormOptions& options) {
  check(features > 0, type, "expected a positive number of features, got {}", features);
  check(options.epsilon >= 0, type, "expected epsilon of at least 0, got {}", options.epsilon);
  return features;
}

void check_momentum(const char* type, const std::optional<double>& momentum) {
  check(!momentum || (*momentum >= 0 && *momentum <= 1), type, "expected a momentum from 0 to 1, got {}",
        momentum.value_or(0));
}
}  // namespace

BatchNorm::BatchNorm(const char* type, int64_t num_features, const BatchNormOptions& options)
    : options_(options),
      weight_(add_parameter("weight", options.affine
                                          ? constant_tensor(type, {checked_features(type, num_features, options)}, 1)
                                          : Tensor())),
      bias_(add_parameter("bias", options.affine ? constant_tensor(type, {num_features}, 0) : Tensor())),
      running_mean_(
          add_buffer("running_mean", constant_tensor(type, {checked_features(type, num_features, options)}, 0))),
      running_var_(add_buffer("running_var", constant_tensor(type, {num_features}, 1))),
      num_batches_tracked_(add_buffer("num_batches_tracked", Tensor::zeros({}, DType::i64))) {
  check_momentum(type, options.momentum);
}

Variable BatchNorm::forward(const Variable& input) {
  const Variable x = canonical(input);
  if (x.size(1) != num_features())
    fail(label(), "expected {} channels, got {}: input {}; build the layer with num_features={}", num_features(),
         x.size(1), input.shape(), x.size(1));
  if (x.dtype() != running_mean_.dtype() || x.device() != running_mean_.device())
    fail(label(), "expected {} on {} as the layer's statistics, got input {}; move one of them with to()",
         name_of(running_mean_.dtype()), running_mean_.device().name(), describe(x.data()));
  Variable y;
  if (is_training()) {
    const int64_t values = x.numel() / num_features();
    if (values < 2)
      fail(label(), "in training each channel needs more than one value, got input {}; use a larger batch or eval()",
           input.shape());
    BatchStats stats;
    y = batch_norm(x, weight_, bias_, options_.epsilon, &stats);
    update_running_stats(stats, values);
  } else {
    y = batch_norm_eval(x, running_mean_, running_var_, weight_, bias_, options_.epsilon);
  }
  return input.rank() == x.rank() ? y : reshape(y, input.shape());
}

void BatchNorm::update_running_stats(const BatchStats& stats, int64_t values) {
  const double momentum = options_.momentum ? *options_.momentum : 1 / (num_batches_tracked_.item() + 1);
  const double unbias = static_cast<double>(values) / static_cast<double>(values - 1);
  kernels(running_mean_.device())
      .batch_norm_track(stats.mean, stats.variance, momentum, unbias, running_mean_, running_var_,
                        num_batches_tracked_);
  for (Tensor* changed : {&running_mean_, &running_var_, &num_batches_tracked_}) changed->bump_version();
}

void BatchNorm::reset_running_stats() {
  running_mean_.fill_(0);
  running_var_.fill_(1);
  num_batches_tracked_.fill_(0);
}

void BatchNorm::keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) {
  check(!inputs.empty() && inputs == outputs, label(), "expected one list of channels to keep, got {} and {} of them",
        inputs.size(), outputs.size());
  count_inputs(label(), inputs, num_features());
  const Tensor index = Tensor::from(inputs, {static_cast<int64_t>(inputs.size())}).to(running_mean_.device());
  Tensor mean = index_select(running_mean_, 0, index), variance = index_select(running_var_, 0, index);
  running_mean_ = std::move(mean);
  running_var_ = std::move(variance);
}

void BatchNorm::set_momentum(std::optional<double> momentum) {
  check_momentum("BatchNorm::set_momentum", momentum);
  options_.momentum = momentum;
}

nlohmann::json BatchNorm::config() const {
  nlohmann::json result = {
      {"type", type()}, {"num_features", num_features()}, {"epsilon", options_.epsilon}, {"affine", weight_.defined()}};
  result["momentum"] = options_.momentum ? nlohmann::json(*options_.momentum) : nlohmann::json();
  return result;
}

namespace {
template <class Norm>
ModulePtr batch_norm_from(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t features = reader.integer("num_features");
  BatchNormOptions options{.epsilon = reader.number("epsilon", 1e-5), .affine = reader.boolean("affine", true)};
  if (reader.has("momentum") && config.at("momentum").is_null())
    options.momentum = std::nullopt;
  else
    options.momentum = reader.number("momentum", 0.1);
  reader.finish();
  return std::make_shared<Norm>(features, options);
}
}  // namespace

ModulePtr BatchNorm1d::from_config(const nlohmann::json& config) { return batch_norm_from<BatchNorm1d>(config); }
ModulePtr BatchNorm2d::from_config(const nlohmann::json& config) { return batch_norm_from<BatchNorm2d>(config); }

Variable BatchNorm1d::canonical(const Variable& x) const {
  if (x.rank() == 2) return x;
  if (x.rank() != 3)
    fail(label(), "expected (N,{}) or (N,{},L), got {}; for images use BatchNorm2d", num_features(), num_features(),
         x.shape());
  return unsqueeze(x, 3);
}

Variable BatchNorm2d::canonical(const Variable& x) const {
  if (x.rank() != 4)
    fail(label(), "expected images (N,{},H,W), got {}; for features use BatchNorm1d", num_features(), x.shape());
  return x;
}

std::vector<std::pair<std::string, std::shared_ptr<BatchNorm>>> batch_norms(const Module& network) {
  return modules_of_type<BatchNorm>(network);
}

namespace {
const Shape& checked_shape(const Shape& shape, const LayerNormOptions& options) {
  check(shape.rank() > 0 && shape.numel() > 0, "LayerNorm", "expected positive sizes, got {}", shape);
  check(options.epsilon >= 0, "LayerNorm", "expected epsilon of at least 0, got {}", options.epsilon);
  return shape;
}
}  // namespace

LayerNorm::LayerNorm(const Shape& shape, LayerNormOptions options)
    : shape_(checked_shape(shape, options)),
      options_(options),
      weight_(add_parameter("weight", options.affine ? constant_tensor("LayerNorm", shape, 1) : Tensor())),
      bias_(add_parameter("bias", options.affine && options.bias ? constant_tensor("LayerNorm", shape, 0) : Tensor())) {
}

Variable LayerNorm::forward(const Variable& x) {
  const Shape& shape = normalized_shape();
  const int axes = shape.rank();
  bool fits = x.rank() >= axes;
  for (int i = 0; fits && i < axes; ++i) fits = x.size(x.rank() - axes + i) == shape[i];
  if (!fits) fail(label(), "expected an input whose last axes are {}, got {}", shape, x.shape());
  return layer_norm(x, axes, weight_, bias_, options_.epsilon);
}

nlohmann::json LayerNorm::config() const {
  const Shape& shape = normalized_shape();
  return {{"type", type()},
          {"shape", std::vector<int64_t>(shape.begin(), shape.end())},
          {"epsilon", options_.epsilon},
          {"affine", weight_.defined()},
          {"bias", bias_.defined()}};
}

ModulePtr LayerNorm::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const Shape shape(reader.integers("shape"));
  const LayerNormOptions options{.epsilon = reader.number("epsilon", 1e-5),
                                 .affine = reader.boolean("affine", true),
                                 .bias = reader.boolean("bias", true)};
  reader.finish();
  return std::make_shared<LayerNorm>(shape, options);
}

}  // namespace espalier
