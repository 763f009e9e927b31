#include "pruning/learned/variational.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include <nlohmann/json.hpp>

#include "core/fields.h"
#include "pruning/learned/variational_ops.h"

namespace espalier {

namespace {

template <class Plain, class Variational>
ModulePtr from_config(const nlohmann::json& config) {
  const std::string type = config.at("type").get<std::string>();
  check(config.contains("layer"), "module_from_config", "{} needs the key \"layer\"", type);
  VariationalOptions options;
  for (const auto& [key, value] : config.items()) {
    check(key == "type" || key == "layer" || key == "threshold", "module_from_config", "{} has no option \"{}\"{}",
          type, key, did_you_mean(key, {"layer", "threshold"}));
    if (key != "threshold") continue;
    check(value.is_number(), "module_from_config", "\"threshold\" of {} must be a number", type);
    options.threshold = value.template get<double>();
  }
  const auto layer = std::dynamic_pointer_cast<Plain>(module_from_config(config["layer"]));
  check(layer != nullptr, "module_from_config", "\"layer\" of {} is of another type", type);
  return std::make_shared<Variational>(*layer, options);
}

Tensor value_of(const Parameter& parameter) { return parameter.defined() ? parameter.data() : Tensor(); }

}  // namespace

void fields(FieldVisitor& f, VariationalOptions& o) {
  f("initial_log_sigma2", o.initial_log_sigma2, "log sigma^2 at the start: -8 to -10 is little noise");
  f("threshold", o.threshold, "Weights with a larger log alpha are removed");
}

void fields(FieldVisitor& f, VariationalPenaltyOptions& o) {
  f("kl_weight", o.weight, at_least(0), "Of the penalty, after the warm-up");
  f.unless_default("kl_warmup_begin", o.warmup_begin, share(), "Share of the training after which it begins to rise");
  f("kl_warmup", o.warmup_end, share(), "Share of the training after which it has its weight");
}

VariationalLayer::VariationalLayer(const Parameter& weight, const Parameter& bias, const VariationalOptions& options)
    : weight_(add_parameter("weight", weight.data())),
      bias_(add_parameter("bias", value_of(bias))),
      log_sigma2_(add_parameter("log_sigma2", Tensor::full(weight.shape(), options.initial_log_sigma2,
                                                           weight.data().dtype(), weight.data().device()))),
      threshold_(options.threshold) {
  check(std::isfinite(options.initial_log_sigma2) && std::isfinite(options.threshold), "variational layer",
        "expected finite initial_log_sigma2 and threshold, got {} and {}", options.initial_log_sigma2,
        options.threshold);
  register_variational_layers();
}

void VariationalLayer::take_over(const Parameter& weight, const Parameter& bias) {
  share_parameter("weight", weight);
  if (bias.defined()) share_parameter("bias", bias);
}

Mask VariationalLayer::mask() const {
  const Tensor certainty = -log_alpha_of(weight_.data(), log_sigma2_.data());
  const Shape& shape = weight_.shape();
  const Mask before = weight_.mask().defined() ? weight_.mask().as_elements() : Mask::all(shape);
  // from_threshold keeps scores of at least the threshold.
  const Mask sure = Mask::from_threshold(shape, Pattern::element(), certainty, -threshold_);
  std::vector<bool> exists = (sure & before).units();
  keep_at_least(exists, before.units(), certainty.to_vector<double>(), 1);
  return Mask::from_units(shape, Pattern::element(), exists);
}

Variable VariationalLayer::variance() const {
  const Variable all = variational_variance(weight_, log_sigma2_);
  return weight_.mask().defined() ? all * Variable(weight_.mask().expand(all.dtype())) : all;
}

Variable VariationalLayer::evaluation_weight() const {
  const Tensor log_alpha = log_alpha_of(weight_.data(), log_sigma2_.data());
  return where(log_alpha <= threshold_, weight_,
               Variable(Tensor::scalar(0, weight_.data().dtype(), weight_.data().device())));
}

nlohmann::json VariationalLayer::config_of(const nlohmann::json& plain) const {
  return {{"type", type()}, {"layer", plain}, {"threshold", threshold_}};
}

VariationalLinear::VariationalLinear(const Linear& layer, const VariationalOptions& options)
    : VariationalLayer(layer.weight(), layer.bias(), options) {
  take_over(layer.weight(), layer.bias());
}

Variable VariationalLinear::forward(const Variable& x) {
  const Shape& w = weight().shape();
  check(x.rank() >= 1 && x.size(-1) == w[1], label(), "expected an input (...,{}), got {}", w[1], x.shape());
  if (!is_training()) return linear(x, evaluation_weight(), bias());
  return gaussian_sample(linear(x, weight(), bias()), linear(square(x), variance()));
}

nlohmann::json VariationalLinear::config() const {
  const Shape& w = weight().shape();
  return config_of({{"type", "Linear"}, {"in_features", w[1]}, {"out_features", w[0]}, {"bias", bias().defined()}});
}

int64_t VariationalLinear::macs(const Shape&, const Shape& output) const { return output.numel() * weight().size(1); }

ModulePtr VariationalLinear::plain() const {
  auto layer = std::make_shared<Linear>(weight().size(1), weight().size(0), LinearOptions{.bias = bias().defined()});
  layer->share_parameter("weight", weight());
  if (bias().defined()) layer->share_parameter("bias", bias());
  return layer;
}

namespace {
std::shared_ptr<Conv2d> conv_with(const Parameter& weight, const Parameter& bias, const Conv2dOptions& options) {
  auto layer = std::make_shared<Conv2d>(weight.size(1) * options.groups, weight.size(0), options);
  layer->share_parameter("weight", weight);
  if (bias.defined()) layer->share_parameter("bias", bias);
  return layer;
}
}  // namespace

VariationalConv2d::VariationalConv2d(const Conv2d& layer, const VariationalOptions& options)
    : VariationalLayer(layer.weight(), layer.bias(), options),
      layer_(conv_with(layer.weight(), layer.bias(), layer.options())) {
  take_over(layer.weight(), layer.bias());
}

Variable VariationalConv2d::forward(const Variable& x) {
  const Conv2dShape shape = layer_->geometry();
  if (!is_training()) return conv2d(x, evaluation_weight(), bias(), shape);
  return gaussian_sample(conv2d(x, weight(), bias(), shape), conv2d(square(x), variance(), {}, shape));
}

nlohmann::json VariationalConv2d::config() const { return config_of(layer_->config()); }

int64_t VariationalConv2d::macs(const Shape& input, const Shape& output) const { return layer_->macs(input, output); }

ModulePtr VariationalConv2d::plain() const { return conv_with(weight(), bias(), layer_->options()); }

void register_variational_layers() {
  static std::once_flag once;
  std::call_once(once, [] {
    register_module_type("VariationalLinear", from_config<Linear, VariationalLinear>);
    register_module_type("VariationalConv2d", from_config<Conv2d, VariationalConv2d>);
  });
}

namespace {
/// Replaces every child for which `make` returns a module, in this Sequential and the ones below. A layer used twice is
/// replaced by one layer used twice.
template <class Make>
int64_t replace_layers(Sequential& network, std::map<const Module*, ModulePtr>& done, const Make& make) {
  int64_t replaced = 0;
  for (size_t i = 0; i < network.size(); ++i) {
    const ModulePtr child = network[i];
    const auto known = done.find(child.get());
    const ModulePtr made = known != done.end() ? known->second : make(child);
    if (made != nullptr) {
      if (known == done.end()) ++replaced;
      done.emplace(child.get(), made);
      made->train(child->is_training());
      network.replace(i, made);
    } else if (auto inner = std::dynamic_pointer_cast<Sequential>(child)) {
      replaced += replace_layers(*inner, done, make);
    }
  }
  return replaced;
}

void check_not_compacted(const Module& layer) {
  const ChannelReader reader = layer.channels().readers[0];
  check(reader.inputs.empty() && (reader.border.empty() || !layer.buffer(reader.border).defined()), "make_variational",
        "{} was compacted and selects its inputs; make it variational before compaction", layer.label());
}
}  // namespace

int64_t make_variational(Sequential& network, const VariationalOptions& options) {
  register_variational_layers();
  // Fresh layers draw initial values that are thrown away: what they drew is put back.
  const Generator before = default_generator();
  std::map<const Module*, ModulePtr> done;
  const int64_t replaced = replace_layers(network, done, [&](const ModulePtr& child) -> ModulePtr {
    if (const auto layer = std::dynamic_pointer_cast<Linear>(child)) {
      check_not_compacted(*layer);
      return std::make_shared<VariationalLinear>(*layer, options);
    }
    if (const auto layer = std::dynamic_pointer_cast<Conv2d>(child)) {
      check_not_compacted(*layer);
      return std::make_shared<VariationalConv2d>(*layer, options);
    }
    return nullptr;
  });
  default_generator() = before;
  check(replaced > 0, "make_variational", "there is no Linear or Conv2d in this Sequential or the Sequentials in it");
  network.named_parameters();  // full names
  return replaced;
}

SparsityCount remove_variational(Sequential& network) {
  SparsityCount count;
  const Generator before = default_generator();
  std::map<const Module*, ModulePtr> done;
  replace_layers(network, done, [&](const ModulePtr& child) -> ModulePtr {
    const auto layer = std::dynamic_pointer_cast<VariationalLayer>(child);
    if (!layer) return nullptr;
    const Mask mask = layer->mask();
    Parameter weight = layer->weight();
    weight.set_mask(mask);
    count.weights += mask.num_elements();
    count.masked += mask.num_elements() - mask.count_elements();
    return layer->plain();
  });
  default_generator() = before;
  check(count.weights > 0, "remove_variational", "the network has no variational layer");
  network.named_parameters();
  return count;
}

std::vector<std::shared_ptr<VariationalLayer>> variational_layers(const Module& network) {
  std::vector<std::shared_ptr<VariationalLayer>> layers;
  for (const auto& [name, module] : network.named_modules())
    if (auto layer = std::dynamic_pointer_cast<VariationalLayer>(module)) layers.push_back(std::move(layer));
  check(!layers.empty(), "variational dropout", "the network has no variational layer; call make_variational first");
  return layers;
}

SparsityCount variational_sparsity(const Module& network) {
  SparsityCount count;
  for (const auto& layer : variational_layers(network)) {
    count.weights += layer->weight().numel();
    count.masked += layer->weight().numel() - layer->mask().count_elements();
  }
  return count;
}

Variable variational_kl(const Module& network) {
  Variable total;
  for (const auto& layer : variational_layers(network)) {
    const Variable kl = variational_kl(layer->weight(), layer->log_sigma2());
    total = total.defined() ? total + kl : kl;
  }
  return total;
}

VariationalPenalty::VariationalPenalty(ModulePtr network, const VariationalPenaltyOptions& options)
    : network_(std::move(network)), options_(options) {
  check(network_ != nullptr, "VariationalPenalty", "expected a network, got a null pointer");
  check(options.weight >= 0 && std::isfinite(options.weight), "VariationalPenalty", "expected a weight >= 0, got {}",
        options.weight);
  check(0 <= options.warmup_begin && options.warmup_begin <= options.warmup_end && options.warmup_end <= 1,
        "VariationalPenalty", "expected 0 <= warmup_begin <= warmup_end <= 1, shares of the training, got {} and {}",
        options.warmup_begin, options.warmup_end);
  check(options.examples >= 0, "VariationalPenalty", "expected examples >= 0, got {}", options.examples);
  variational_layers(*network_);
}

double VariationalPenalty::weight_at(int64_t step, int64_t total) const {
  const double t = static_cast<double>(step) / static_cast<double>(std::max<int64_t>(total, 1));
  if (t >= options_.warmup_end) return options_.weight;
  if (t <= options_.warmup_begin) return 0;
  return options_.weight * (t - options_.warmup_begin) / (options_.warmup_end - options_.warmup_begin);
}

nlohmann::json VariationalPenalty::config() const {
  return {{"type", "VariationalPenalty"},
          {"weight", options_.weight},
          {"warmup_begin", options_.warmup_begin},
          {"warmup_end", options_.warmup_end},
          {"examples", options_.examples}};
}

void VariationalPenalty::on_gradients(Trainer& trainer, const StepRecord& record) {
  const double weight = weight_at(record.step, record.steps);
  if (weight == 0) return;
  const int64_t examples = options_.examples > 0 ? options_.examples : record.batches * trainer.options().batch_size;
  for (const auto& layer : variational_layers(*network_))
    add_variational_kl_gradient(layer->weight().variable(), layer->log_sigma2().variable(),
                                weight / static_cast<double>(examples));
}

}  // namespace espalier
