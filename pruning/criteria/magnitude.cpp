// Criteria that look at nothing but the weights' values and whether they exist.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"
#include "pruning/criteria/criterion.h"

namespace espalier {
namespace {

class Random : public Criterion {
 public:
  std::string name() const override { return "random"; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    constexpr uint64_t kStream = 0x72616E64;
    Saliencies result;
    Generator generator(input.seed, kStream);
    for (const Parameter& p : parameters)
      result[p.id()] = rand(p.shape(), generator, p.data().dtype()).to(p.data().device());
    return result;
  }
};

/// A function of one parameter after the other.
class ByParameter : public Criterion {
 public:
  using Function = std::function<Tensor(const Parameter&)>;
  ByParameter(std::string name, Function function) : name_(std::move(name)), function_(std::move(function)) {}
  std::string name() const override { return name_; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput&) override {
    Saliencies result;
    for (const Parameter& p : parameters) result[p.id()] = function_(p);
    return result;
  }

 private:
  std::string name_;
  Function function_;
};

CriterionPtr by_parameter(std::string name, ByParameter::Function function) {
  return std::make_shared<ByParameter>(std::move(name), std::move(function));
}

Tensor sigma_score(const Parameter& p, double k) {
  if (p.mask().defined() && p.mask().count() == 0) return Tensor::zeros_like(p.data());
  const Tensor score = abs(p.data()) - sigma_threshold(p.data(), k, p.mask());
  return p.mask().defined() ? p.mask().apply(score.contiguous()) : score;
}

class Sigma : public Criterion {
 public:
  explicit Sigma(double k) : k_(k) { check(std::isfinite(k), "sigma", "expected a finite k, got {}", k); }
  std::string name() const override { return "sigma"; }
  void fields(FieldVisitor& f) override { f("k", k_, "Thresholds are at mean(|w|) - k * deviation"); }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput&) override {
    Saliencies result;
    for (const Parameter& p : parameters) result[p.id()] = sigma_score(p, k_);
    return result;
  }

 private:
  double k_;
};

class Connections : public Criterion {
 public:
  std::string name() const override { return "connections"; }
  void check_fits(const Module&, const std::vector<Site>& sites) const override {
    for (const Site& site : sites)
      for (const SiteMember& member : site.members)
        check(!member.masked ||
                  (member.pattern.kind() != Pattern::Kind::element && member.pattern.kind() != Pattern::Kind::n_of_m),
              name(),
              "counts the connections of a unit, and each unit of site '{}' is one weight: all would score the same; "
              "prune 'channel 0' or channels (channel_sites), or choose by magnitude, taylor or woodfisher",
              site.name);
  }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    if (input.sites) check_fits(input.module, *input.sites);
    Saliencies result;
    for (const Parameter& p : parameters) {
      if (p.shape().rank() < 2)
        result[p.id()] = Tensor::zeros_like(p.data());
      else
        result[p.id()] = p.mask().defined() ? p.mask().expand(p.data().dtype()) : Tensor::ones_like(p.data());
    }
    return result;
  }
};

Tensor lamp_score(const Parameter& p) {
  const std::vector<double> weight = p.data().to_vector<double>();
  std::vector<size_t> order(weight.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return std::abs(weight[a]) < std::abs(weight[b]); });
  // From the largest down: the sum grows by adding, nothing cancels.
  std::vector<double> score(weight.size(), 0.0);
  double sum = 0;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    const double square = weight[*i] * weight[*i];
    sum += square;
    if (sum > 0) score[*i] = square / sum;
  }
  return Tensor::from(score, p.shape()).to(p.data().dtype()).to(p.data().device());
}

}  // namespace

CriterionPtr random_criterion() { return std::make_shared<Random>(); }

CriterionPtr magnitude_criterion() {
  return by_parameter("magnitude", [](const Parameter& p) { return abs(p.data()); });
}

CriterionPtr magnitude_l2_criterion() {
  return by_parameter("magnitude-l2", [](const Parameter& p) { return square(p.data()); });
}

CriterionPtr energy_criterion() {
  return by_parameter("energy", [](const Parameter& p) { return square(p.data()) * 0.5; });
}

CriterionPtr sigma_criterion(double k) { return std::make_shared<Sigma>(k); }

double sigma_threshold(const Tensor& weight, double k, const Mask& mask) {
  check(!mask.defined() || mask.shape() == weight.shape(), "sigma_threshold",
        "expected a mask of the weight's shape {}, got {}", weight.shape(), mask.shape());
  const auto count = static_cast<double>(mask.defined() ? mask.count_elements() : weight.numel());
  check(count > 0, "sigma_threshold", "expected a weight to take the mean of, got none: shape {}{}", weight.shape(),
        mask.defined() ? ", all masked" : "");
  const Tensor exact = weight.to(DType::f64).contiguous();
  const Tensor size = abs(mask.defined() ? mask.apply(exact) : exact);
  const double mean = sum(size).item() / count;
  const Tensor deviation = size - mean;
  const double variance = sum(square(mask.defined() ? mask.apply(deviation) : deviation)).item() / count;
  return mean - k * std::sqrt(variance);
}

CriterionPtr connections_criterion() { return std::make_shared<Connections>(); }

CriterionPtr lamp_criterion() { return by_parameter("lamp", lamp_score); }

}  // namespace espalier
