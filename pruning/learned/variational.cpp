#include "pruning/learned/variational.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include <nlohmann/json.hpp>

#include "core/fields.h"
#include "layers/containers.h"
#include "layers/modules_of_type.h"
#include "layers/registry.h"
#include "pruning/learned/variational_ops.h"

namespace espalier {

namespace {

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
  return std::make_shared<VariationalLayer>(module_from_config(config["layer"]), options);
}

Tensor value_of(const Parameter& parameter) { return parameter.defined() ? parameter.data() : Tensor(); }

/// The layer's only reader. Throws unless the layer is affine and as its options made it.
ChannelReader reader_of(const ModulePtr& layer) {
  const char* operation = "variational layer";
  check(layer != nullptr, operation, "expected a layer, got a null pointer");
  const ChannelAccount account = layer->channels();
  check(account.is_affine, operation, "expected a Linear, a Conv2d or another affine layer, got {}", layer->label());
  const ChannelReader& reader = account.readers[0];
  check(reader.inputs.empty() && (reader.border.empty() || !layer->buffer(reader.border).defined()), operation,
        "{} was compacted and selects its inputs; make it variational before compaction", layer->label());
  return reader;
}

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

VariationalLayer::VariationalLayer(ModulePtr layer, const VariationalOptions& options)
    : layer_(std::move(layer)),
      reader_(reader_of(layer_)),
      weight_(add_parameter("weight", layer_->parameter(reader_.weight).data())),
      bias_(add_parameter("bias", reader_.bias.empty() ? Tensor() : value_of(layer_->parameter(reader_.bias)))),
      log_sigma2_(add_parameter("log_sigma2", Tensor::full(weight_.shape(), options.initial_log_sigma2,
                                                           weight_.data().dtype(), weight_.data().device()))),
      threshold_(options.threshold) {
  check(std::isfinite(options.initial_log_sigma2) && std::isfinite(options.threshold), "variational layer",
        "expected finite initial_log_sigma2 and threshold, got {} and {}", options.initial_log_sigma2,
        options.threshold);
  share_parameter("weight", layer_->parameter(reader_.weight));
  if (bias_.defined()) share_parameter("bias", layer_->parameter(reader_.bias));
  module_registry().replace(type(), from_config);
}

Variable VariationalLayer::affine(const Variable& x, const Variable& weight, const Variable& bias) const {
  return reader_.window ? conv2d(x, weight, bias, *reader_.window) : linear(x, weight, bias);
}

Variable VariationalLayer::forward(const Variable& x) {
  if (!is_training()) return affine(x, evaluation_weight(), bias_);
  return gaussian_sample(affine(x, weight_, bias_), affine(square(x), variance(), {}));
}

nlohmann::json VariationalLayer::config() const {
  return {{"type", type()}, {"layer", layer_->config()}, {"threshold", threshold_}};
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

void register_variational_layers() {
  static std::once_flag once;
  std::call_once(once, [] {
    module_registry().replace("VariationalLinear", from_config);
    module_registry().replace("VariationalConv2d", from_config);
  });
}

namespace {
/// Replaces every child for which `make` returns a module, in this Sequential and the ones below. A layer used twice is
/// replaced by one layer used twice.
template <class Make>
int64_t replace_layers(Sequential& network, std::map<const Module*, ModulePtr>& done, const Make& make) {
  int64_t replaced = 0;
  std::map<const Module*, std::shared_ptr<Sequential>> containers;
  for (const auto& [name, container] : modules_of_type<Sequential>(network)) containers[container.get()] = container;
  for (size_t i = 0; i < network.size(); ++i) {
    const ModulePtr child = network[i];
    const auto known = done.find(child.get());
    const ModulePtr made = known != done.end() ? known->second : make(child);
    if (made != nullptr) {
      if (known == done.end()) ++replaced;
      done.emplace(child.get(), made);
      made->train(child->is_training());
      network.replace(i, made);
    } else if (const auto inner = containers.find(child.get()); inner != containers.end()) {
      replaced += replace_layers(*inner->second, done, make);
    }
  }
  return replaced;
}

std::shared_ptr<Sequential> sequential(const char* operation, const Module& network) {
  const auto found = modules_of_type<Sequential>(network);  // the network itself comes first
  check(!found.empty() && found.front().first.empty(), operation, "expected a network that is a Sequential, got a {}",
        network.type());
  return found.front().second;
}
}  // namespace

int64_t make_variational(Module& network, const VariationalOptions& options) {
  register_variational_layers();
  std::map<const Module*, ModulePtr> done;
  const int64_t replaced =
      replace_layers(*sequential("make_variational", network), done, [&](const ModulePtr& child) -> ModulePtr {
        if (!child->channels().is_affine) return nullptr;
        return std::make_shared<VariationalLayer>(child, options);
      });
  check(replaced > 0, "make_variational",
        "there is no Linear, Conv2d or other affine layer in this Sequential or the Sequentials in it");
  network.named_parameters();  // full names
  return replaced;
}

SparsityCount remove_variational(Module& network) {
  SparsityCount count;
  std::map<const Module*, ModulePtr> plain, done;
  for (const auto& [name, layer] : modules_of_type<VariationalLayer>(network)) plain[layer.get()] = layer->plain();
  check(!plain.empty(), "remove_variational", "the network has no variational layer");
  for (const auto& [name, layer] : modules_of_type<VariationalLayer>(network)) {
    const Mask mask = layer->mask();
    Parameter weight = layer->weight();
    weight.set_mask(mask);
    count.weights += mask.num_elements();
    count.masked += mask.num_elements() - mask.count_elements();
  }
  replace_layers(*sequential("remove_variational", network), done, [&](const ModulePtr& child) {
    const auto found = plain.find(child.get());
    return found == plain.end() ? ModulePtr() : found->second;
  });
  network.named_parameters();
  return count;
}

std::vector<std::shared_ptr<VariationalLayer>> variational_layers(const Module& network) {
  std::vector<std::shared_ptr<VariationalLayer>> layers;
  for (const auto& [name, layer] : modules_of_type<VariationalLayer>(network)) layers.push_back(layer);
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
