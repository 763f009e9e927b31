#include "pruning/learned/hard_concrete.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/fields.h"
#include "core/ops.h"
#include "core/random.h"
#include "pruning/identity.h"
#include "pruning/learned/units.h"

namespace espalier {

namespace {
constexpr uint64_t kGateStream = 0x676174650000;  // apart from those of data and training
constexpr double kOpen = 100;                     // a log alpha whose gate is 1
}  // namespace

void fields(FieldVisitor& f, HardConcreteOptions& o) {
  f("lambda", o.lambda, at_least(0), "Penalty of one expected weight, divided by the number of training images");
  f("open", o.open, between_zero_and_one(), "Probability that a gate is open at the start");
  f.unless_default("beta", o.beta, above(0), "Temperature of the concrete distribution");
  f.unless_default("gamma", o.gamma, Range{.high = 0, .high_is_in = false}, "Where the stretched interval begins");
  f.unless_default("zeta", o.zeta, above(1), "Where it ends");
  f("harden", o.harden, share_above_zero(), "Share of the training after which the gates are folded into the weights");
}

HardConcreteGates::HardConcreteGates(ModulePtr module, std::vector<Site> sites, const HardConcreteOptions& options)
    : module_(std::move(module)), sites_(std::move(sites)), options_(options) {
  check(module_ != nullptr && !sites_.empty(), "HardConcreteGates", "expected a module and at least one site");
  check(options.lambda >= 0 && options.examples >= 0 && options.open > 0 && options.open < 1 && options.beta > 0,
        "HardConcreteGates", "expected lambda >= 0, examples >= 0, 0 < open < 1 and beta > 0, got {}, {}, {} and {}",
        options.lambda, options.examples, options.open, options.beta);
  check(options.gamma < 0 && options.zeta > 1, "HardConcreteGates", "expected gamma < 0 and zeta > 1, got {} and {}",
        options.gamma, options.zeta);
  check(options.min_units >= 0, "HardConcreteGates", "expected min_units >= 0, got {}", options.min_units);
  check(options.harden > 0 && options.harden <= 1, "HardConcreteGates",
        "expected harden in (0,1], a share of the training, got {}", options.harden);
  check_disjoint("HardConcreteGates", sites_);
  check_no_n_of_m("HardConcreteGates", sites_, "gates open one by one");
  Generator generator(options.seed, kGateStream - 1);
  for (const Site& site : sites_) {
    const Tensor& like = site.members.front().parameter.data();
    Tensor initial = Tensor::empty({site.units}, like.dtype(), like.device());
    normal_(initial, std::log(options.open / (1 - options.open)), 0.01, generator);
    log_alphas_.emplace_back("log_alpha." + site.name, Parameter("log_alpha." + site.name, initial));
  }
  register_learned_modules();
  attach();
}

void HardConcreteGates::attach() {
  weights_.clear();
  for (size_t s = 0; s < sites_.size(); ++s) {
    const Tensor& like = log_alphas_[s].second.data();
    const std::vector<int64_t> weights = existing_unit_weights(sites_[s]);
    weights_.push_back(Tensor::from(weights, {sites_[s].units}).to(like.dtype()).to(like.device()));
  }
  transforms_.attach(sites_, [&](size_t s, size_t m) {
    auto gate = std::make_shared<HardConcreteGate>(units_of(sites_[s], m), distribution(s));
    gate->share_parameter("log_alpha", log_alphas_[s].second);
    gate->train(module_->is_training());
    return gate;
  });
  set_step(step_);
}

void HardConcreteGates::set_step(int64_t step) {
  step_ = step;
  for (const auto& entry : transforms_.entries()) entry.transform->set_step(step);
}

HardConcrete HardConcreteGates::distribution(size_t site) const {
  return {.beta = options_.beta,
          .gamma = options_.gamma,
          .zeta = options_.zeta,
          .seed = options_.seed,
          .stream = kGateStream + site};
}

std::vector<bool> HardConcreteGates::open_units(size_t site) const {
  const std::vector<bool> candidates = existing_units(sites_[site]);
  const std::vector<double> z = gates(site);
  std::vector<bool> exists(candidates.size());
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = candidates[i] && z[i] > 0;
  keep_at_least(exists, candidates, log_alphas_[site].second.data().to_vector<double>(), options_.min_units);
  return exists;
}

Variable HardConcreteGates::sample(size_t site) const {
  return distribution(site).sample(log_alphas_[site].second.variable(), step_);
}

std::vector<double> HardConcreteGates::gates(size_t site) const {
  return distribution(site).mean(log_alphas_[site].second.data());
}

double HardConcreteGates::expected_weights() const {
  double total = 0;
  for (size_t s = 0; s < sites_.size(); ++s)
    total += sum(distribution(s).open_probability(log_alphas_[s].second.data()) * weights_[s]).item();
  return total;
}

double HardConcreteGates::sparsity() const {
  if (hard_) return count_sparsity(sites_).sparsity();
  std::vector<std::vector<bool>> exists;
  for (size_t s = 0; s < sites_.size(); ++s) exists.push_back(open_units(s));
  return count_masked(member_masks(sites_, exists)).sparsity();
}

void HardConcreteGates::harden() {
  if (hard_) return;
  hard_ = true;
  std::vector<std::vector<bool>> exists;
  for (size_t s = 0; s < sites_.size(); ++s) {
    exists.push_back(open_units(s));
    Parameter& log_alpha = log_alphas_[s].second;
    const std::vector<double> z = gates(s);
    std::vector<double> values = log_alpha.data().to_vector<double>();
    for (size_t i = 0; i < z.size(); ++i)
      if (exists[s][i] && z[i] == 0) values[i] = kOpen;  // kept though its gate is closed
    Tensor data = log_alpha.data();
    data.copy_(Tensor::from(values, data.shape()));
    log_alpha.zero_grad();
  }
  for (const auto& entry : transforms_.entries()) Parameter(entry.parameter).fold_transforms();
  transforms_.detach();
  for (size_t s = 0; s < sites_.size(); ++s) set_existing_units(sites_[s], exists[s]);
}

nlohmann::json HardConcreteGates::config() const {
  nlohmann::json config = identity_of("HardConcreteGates", sites_, options_);
  config["examples"] = options_.examples;
  config["min_units"] = options_.min_units;
  config["seed"] = options_.seed;
  return config;
}

void HardConcreteGates::on_gradients(Trainer& trainer, const StepRecord& record) {
  if (hard_) return;
  const int64_t examples = options_.examples > 0 ? options_.examples : record.batches * trainer.options().batch_size;
  for (size_t s = 0; s < sites_.size(); ++s) {
    const Tensor p = distribution(s).open_probability(log_alphas_[s].second.data());
    const Tensor slope = p * (1.0 - p) * weights_[s] * (options_.lambda / static_cast<double>(examples));
    const Parameter& log_alpha = log_alphas_[s].second;
    Variable leaf = log_alpha.variable();
    leaf.set_grad(Variable(log_alpha.grad().defined() ? log_alpha.grad() + slope : slope));
  }
}

void HardConcreteGates::on_step_end(Trainer&, const StepRecord& record) {
  if (hard_) return;
  set_step(record.step);
  const int64_t total = record.steps;
  if (record.step >= std::llround(options_.harden * static_cast<double>(total))) harden();
}

std::vector<std::pair<std::string, Tensor>> HardConcreteGates::state() const {
  std::vector<std::pair<std::string, Tensor>> result = {
      {"hard", Tensor::scalar(hard_ ? 1 : 0, DType::i64)},
      {"step", Tensor::scalar(static_cast<double>(step_), DType::i64)}};
  for (size_t s = 0; s < sites_.size(); ++s)
    result.emplace_back(fmt::format("log_alpha/{}", s), log_alphas_[s].second.data());
  return result;
}

void HardConcreteGates::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  size_t found = 0;
  for (const auto& [name, tensor] : state) {
    if (name == "hard") hard_ = tensor.item() != 0;
    if (name == "step") step_ = static_cast<int64_t>(tensor.item());
    for (size_t s = 0; s < sites_.size(); ++s)
      if (name == fmt::format("log_alpha/{}", s) && tensor.shape() == log_alphas_[s].second.shape()) {
        log_alphas_[s].second.set_data(tensor.clone());
        ++found;
      }
  }
  if (found != sites_.size())
    fail<FileError>("HardConcreteGates",
                    "the checkpoint has gates for {} of {} sites; is it of a training with the "
                    "same callbacks?",
                    found, sites_.size());
  if (hard_)
    transforms_.detach();
  else
    attach();
}

}  // namespace espalier
