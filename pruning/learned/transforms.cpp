#include "pruning/learned/transforms.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include <nlohmann/json.hpp>

#include "core/ops.h"
#include "core/random.h"
#include "layers/init.h"
#include "layers/registry.h"
#include "pruning/learned/units.h"
#include "pruning/learned/variational.h"

namespace espalier {

namespace {
constexpr double kEdge = 1e-6;  // u in [kEdge, 1 - kEdge]: its logit is finite

void describe_units(const MemberUnits& units, nlohmann::json& config) {
  config["pattern"] = units.pattern.to_string();
  config["units"] = units.count;
  if (!units.site_units.empty()) config["site_units"] = units.site_units;
}

MemberUnits parse_units(const nlohmann::json& config) {
  MemberUnits units{Pattern::parse(config.at("pattern").get<std::string>()),
                    config.value("site_units", std::vector<int64_t>()), config.at("units").get<int64_t>()};
  for (const int64_t unit : units.site_units)
    check(unit >= -1 && unit < units.count, "module_from_config", "{} expects units of a site below {}, got {}",
          config.at("type").get<std::string>(), units.count, unit);
  return units;
}
}  // namespace

MemberUnits units_of(const Site& site, size_t member) {
  return {site.members[member].pattern, site.members[member].site_units, site.units};
}

Variable HardConcrete::sample(const Variable& log_alpha, int64_t step) const {
  Tensor u = Tensor::empty_like(log_alpha.data());
  Generator generator(seed, stream);
  // The counter of step n starts where n draws would have left it: two values of f64 take a block.
  generator.set_state({seed, stream, static_cast<uint64_t>(step) * static_cast<uint64_t>(log_alpha.numel() / 2 + 1)});
  uniform_(u, kEdge, 1 - kEdge, generator);
  const Tensor noise = log(u) - log(1.0 - u);
  const Variable s = sigmoid((log_alpha + Variable(noise)) / beta);
  return clamp(s * (zeta - gamma) + gamma, 0, 1);
}

std::vector<double> HardConcrete::mean(const Tensor& log_alpha) const {
  std::vector<double> values = log_alpha.to_vector<double>();
  for (double& value : values) {
    const double s = 1 / (1 + std::exp(-value));
    value = std::clamp(s * (zeta - gamma) + gamma, 0.0, 1.0);
  }
  return values;
}

Tensor HardConcrete::open_probability(const Tensor& log_alpha) const {
  return unary(UnaryOp::sigmoid, log_alpha - beta * std::log(-gamma / zeta));
}

HardConcreteGate::HardConcreteGate(MemberUnits units, const HardConcrete& distribution)
    : units_(std::move(units)),
      distribution_(distribution),
      log_alpha_(add_parameter("log_alpha", constant_tensor("HardConcreteGate", {units_.count}, 0))),
      step_(add_buffer("step", Tensor::scalar(0, DType::i64))) {}

Variable HardConcreteGate::forward(const Variable& weight) {
  const Variable& log_alpha = log_alpha_.variable();
  Variable z;
  if (is_training()) {
    z = distribution_.sample(log_alpha, static_cast<int64_t>(step_.item()));
  } else {
    const std::vector<double> values = distribution_.mean(log_alpha.data());
    z = Tensor::from(values, log_alpha.shape()).to(log_alpha.dtype()).to(log_alpha.device());
  }
  const Variable spread = spread_over_units(values_of_member(z, units_), weight.shape(), units_.pattern);
  return weight * espalier::to(spread, weight.device());
}

void HardConcreteGate::set_step(int64_t step) { step_.fill_(static_cast<double>(step)); }

nlohmann::json HardConcreteGate::config() const {
  nlohmann::json config = {{"type", type()},
                           {"beta", distribution_.beta},
                           {"gamma", distribution_.gamma},
                           {"zeta", distribution_.zeta},
                           {"seed", distribution_.seed},
                           {"stream", distribution_.stream}};
  describe_units(units_, config);
  return config;
}

ModulePtr HardConcreteGate::from_config(const nlohmann::json& config) {
  return std::make_shared<HardConcreteGate>(
      parse_units(config),
      HardConcrete{config.at("beta"), config.at("gamma"), config.at("zeta"), config.at("seed"), config.at("stream")});
}

StraightThroughMask::StraightThroughMask(MemberUnits units, const Shape& weight, bool has_scores, GradientFlow flow)
    : units_(std::move(units)),
      weight_(weight),
      flow_(flow),
      scores_(
          add_parameter("scores", has_scores ? constant_tensor("StraightThroughMask", {units_.count}, 0) : Tensor())),
      exists_(add_buffer("exists", Tensor())) {
  const std::vector<bool> none(static_cast<size_t>(mask_layout(weight, units_.pattern).units()));
  set_mask(Mask::from_units(weight, units_.pattern, none));
}

void StraightThroughMask::set_mask(const Mask& mask) {
  check(mask.shape() == weight_ && mask.pattern() == units_.pattern, "StraightThroughMask",
        "expected a mask of {} with units '{}', got one of {} with '{}'", weight_, units_.pattern.to_string(),
        mask.shape(), mask.pattern().to_string());
  if (mask_.defined() && mask.version() == this->mask().version()) return;
  mask_ = mask;
  exists_ = bits_ = mask.words().clone();  // a state that is loaded is written to them
  version_ = bits_.version();
}

const Mask& StraightThroughMask::mask() {
  if (bits_.storage() != exists_.storage() || version_ != exists_.version()) {
    mask_ = Mask::from_words(weight_, units_.pattern, exists_);
    bits_ = exists_;
    version_ = bits_.version();
  }
  return mask_;
}

Variable StraightThroughMask::forward(const Variable& weight) {
  return straight_through(weight, scores_.variable(), units_, mask(), flow_);
}

nlohmann::json StraightThroughMask::config() const {
  nlohmann::json config = {{"type", type()},
                           {"weight", std::vector<int64_t>(weight_.begin(), weight_.end())},
                           {"scores", scores_.defined()},
                           {"flow", name_of(flow_)}};
  describe_units(units_, config);
  return config;
}

ModulePtr StraightThroughMask::from_config(const nlohmann::json& config) {
  const Shape weight(config.at("weight").get<std::vector<int64_t>>());
  checked_empty("StraightThroughMask", weight);  // a shape in a file must not make masks for hours
  return std::make_shared<StraightThroughMask>(parse_units(config), weight, config.at("scores").get<bool>(),
                                               parse_gradient_flow(config.at("flow").get<std::string>()));
}

void register_learned_modules() {
  static std::once_flag once;
  std::call_once(once, [] {
    module_registry().replace("HardConcreteGate", HardConcreteGate::from_config);
    module_registry().replace("StraightThroughMask", StraightThroughMask::from_config);
  });
  register_variational_layers();
}

}  // namespace espalier
