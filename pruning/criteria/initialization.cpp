// Criteria for networks that have not been trained yet.
#include <cmath>

#include "layers/norm.h"
#include "pruning/criteria/scoring.h"

namespace espalier {
namespace {

class Snip : public Criterion {
 public:
  std::string name() const override { return "snip"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const Scoring scoring(*this, parameters, input);
    const std::vector<Tensor> gradients = scoring.mean_gradients();
    std::vector<Tensor> sensitivity;
    double total = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      sensitivity.push_back(abs(gradients[i] * parameters[i].data()));
      total += sum(sensitivity.back().to(DType::f64)).item();
    }
    const double scale = total > 0 ? 1 / total : 0;
    return scoring.combine(sensitivity, [scale](const Tensor& s, const Tensor&) { return s * scale; });
  }
};

class GraSP : public Criterion {
 public:
  std::string name() const override { return "grasp"; }
  bool needs_data() const override { return true; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const Scoring scoring(*this, parameters, input);
    check_state(input);
    // Two passes: H and g of the mean loss, where the mean of each batch's own Hg would be something else.
    const std::vector<Tensor> g = scoring.mean_gradients();
    std::vector<Tensor> total = scoring.zeros();
    scoring.for_each([&](const Batch& batch, double share) {
      const std::vector<Tensor> product = scoring.hessian_product(scoring.gradients(batch, true), g);
      for (size_t i = 0; i < product.size(); ++i) axpy_(share, product[i], total[i]);
    });
    return scoring.combine(total, [](const Tensor& hg, const Tensor& weight) { return weight * hg; });
  }

  /// A network that has been trained does much better than guessing. Losses that others name have no such measure.
  void check_state(const CriterionInput& input) const override {
    if (input.loss || input.data == nullptr || !input.data->loss.empty()) return;
    const Scoring scoring(*this, {}, input);
    const MetricPtr r2 = metric_registry().find("grasp", "r2")();
    double loss = 0, guessing = 0;
    const NoGrad no_grad;
    scoring.for_each([&](const Batch& batch, double share) {
      const Variable outputs = forward_of(input, batch).first();
      const Tensor targets = batch.labels.to(outputs.device());
      if (is_floating(targets.dtype())) {
        r2->add(outputs.data(), targets);
        loss = 1 - r2->value();  // the squared error, as a share of the targets' variance
        guessing = 1;
      } else {
        Batch first = batch;
        first.labels = targets;
        first.targets.clear();
        loss += share * batch_loss(outputs, first).item();
        guessing = std::log(static_cast<double>(outputs.size(-1)));
      }
    });
    check(loss >= 0.5 * guessing, name(),
          "judges networks before their training, by how gradients flow, and this one is trained: its loss on the "
          "examples is {:.3g}, that of guessing {:.3g}; prune it by taylor, obd or magnitude, or prune once before the "
          "training (curve one-shot, begin 0)",
          loss, guessing);
  }
};

/// Absolute weights, no biases, BatchNorm without statistics: the sum of its outputs counts the flow along all paths.
void make_positive(Module& module) {
  for (const auto& [name, parameter] : module.named_parameters()) {
    // "conv1.bias", "lstm.bias_hh_l0"
    const bool is_bias = name.substr(name.rfind('.') + 1).starts_with("bias");
    Parameter handle = parameter;
    handle.set_requires_grad(true);
    handle.set_data(is_bias ? Tensor::zeros_like(parameter.data()) : abs(parameter.data()));
  }
  for (const auto& [name, part] : module.named_modules()) {
    for (const ChannelReader& reader : part->channels().readers)
      if (!reader.border.empty() && part->buffer(reader.border).defined())
        part->set_buffer(reader.border, Tensor::zeros_like(part->buffer(reader.border)));
  }
  for (const auto& [name, norm] : batch_norms(module)) {
    Tensor mean = norm->running_mean(), variance = norm->running_var();  // handles on the buffers
    mean.fill_(0);
    variance.fill_(1 - norm->options().epsilon);
  }
}

class SynFlow : public Criterion {
 public:
  explicit SynFlow(const Shape& image) : image_(image) {
    for (const int64_t size : image) check(size > 0, "synflow", "expected sizes above 0 of an input, got {}", image);
  }
  std::string name() const override { return "synflow"; }
  bool needs_data() const override { return image_.rank() == 0; }

  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    const ModulePtr copy = input.module.clone();
    copy->to(DType::f64);
    copy->eval();
    make_positive(*copy);

    // The copy lists its parameters in the order of the original.
    const std::vector<Parameter> originals = input.module.parameters(), copies = copy->parameters();
    Variables leaves;
    for (const Parameter& p : copies) leaves.push_back(p.variable());
    const RecordHistory recording;
    Variable flow;
    for (const Variable& output : copy->call(ones(input, copies.front().data().device())))
      flow = flow.defined() ? flow + sum(output) : sum(output);
    const Variables gradients = grad({flow}, leaves, {.allow_unused = true});
    if (!std::isfinite(flow.item()))
      fail<NumericError>(name(), "the sum of the outputs is {}; scale the weights down before scoring", flow.item());

    Saliencies of_all, result;
    for (size_t i = 0; i < copies.size(); ++i)
      of_all[originals[i].id()] =
          gradients[i].defined() ? leaves[i].data() * gradients[i].data() : Tensor::zeros_like(leaves[i].data());
    for (const Parameter& p : parameters) {
      const auto found = of_all.find(p.id());
      check(found != of_all.end(), name(), "'{}' is no parameter of this {}", p.name(), input.module.type());
      result[p.id()] = found->second.contiguous();
    }
    return result;
  }

 private:
  /// What goes through the network.
  Bundle ones(const CriterionInput& input, Device device) const {
    if (image_.rank() > 0) {
      Shape shape = image_;
      shape.insert(0, 1);
      return Tensor::ones(shape, DType::f64, device);
    }
    check(input.data != nullptr && input.data->size() > 0, name(),
          "expected the shape of an image: give synflow_criterion one, or data to take it from");
    check(input.data->images.dtype() != DType::i64, name(),
          "sends ones through the network, and '{}' has whole numbers as inputs, which look up rows of a table; use "
          "snip or taylor",
          input.data->name);
    Variables inputs;
    for (const Tensor& one : input.data->example())
      inputs.emplace_back(is_floating(one.dtype()) ? Tensor::ones(one.shape(), DType::f64, device) : one.to(device));
    return inputs;
  }

  Shape image_;
};

}  // namespace

CriterionPtr snip_criterion() { return std::make_shared<Snip>(); }
CriterionPtr grasp_criterion() { return std::make_shared<GraSP>(); }
CriterionPtr synflow_criterion(const Shape& image) { return std::make_shared<SynFlow>(image); }

}  // namespace espalier
