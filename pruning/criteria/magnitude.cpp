// Criteria that look at nothing but the weights' values.
#include "core/ops.h"
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
    for (const Parameter& p : parameters) result[p.id()] = rand(p.shape(), generator, p.data().dtype());
    return result;
  }
};

class Magnitude : public Criterion {
 public:
  std::string name() const override { return "magnitude"; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput&) override {
    Saliencies result;
    for (const Parameter& p : parameters) result[p.id()] = unary(UnaryOp::abs, p.data());
    return result;
  }
};

class MagnitudeL2 : public Criterion {
 public:
  std::string name() const override { return "magnitude-l2"; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput&) override {
    Saliencies result;
    for (const Parameter& p : parameters) result[p.id()] = unary(UnaryOp::square, p.data());
    return result;
  }
};

}  // namespace

CriterionPtr random_criterion() { return std::make_shared<Random>(); }
CriterionPtr magnitude_criterion() { return std::make_shared<Magnitude>(); }
CriterionPtr magnitude_l2_criterion() { return std::make_shared<MagnitudeL2>(); }

}  // namespace espalier
