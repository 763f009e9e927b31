#include <algorithm>
#include <cmath>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

/// Log-softmax along one axis, from the definition.
Array log_softmax_of(const Array& x, int axis) {
  return fill(x.shape, [&](const Index& i) {
    double sum = 0;
    Index at = i;
    for (int64_t k = 0; k < x.shape[axis]; ++k) {
      at[static_cast<size_t>(axis)] = k;
      sum += std::exp(x(at));
    }
    return x(i) - std::log(sum);
  });
}

void add_softmax(std::vector<OpCase>& cases) {
  struct Variant {
    std::string name;
    Shape shape;
    int axis;
  };
  const std::vector<Variant> variants = {{"last", {3, 5}, -1}, {"first", {4, 3}, 0},       {"middle", {2, 3, 4}, 1},
                                         {"vector", {7}, 0},   {"one", {3, 1}, -1},        {"wide", {2, 67}, -1},
                                         {"rows", {0, 4}, -1}, {"images", {2, 3, 2, 2}, 1}};
  for (const Variant& t : variants) {
    const int axis = t.axis < 0 ? t.axis + t.shape.rank() : t.axis;
    cases.push_back({.name = "softmax." + t.name,
                     .inputs = {{t.shape, -4, 4}},
                     .run = [=](const Variables& v) { return Variables{softmax(v[0], t.axis)}; },
                     .reference =
                         [=](const Arrays& a) {
                           Array out = log_softmax_of(a[0], axis);
                           for (double& value : out.values) value = std::exp(value);
                           return Arrays{out};
                         },
                     .terms = t.shape[axis]});
    cases.push_back({.name = "log_softmax." + t.name,
                     .inputs = {{t.shape, -4, 4}},
                     .run = [=](const Variables& v) { return Variables{log_softmax(v[0], t.axis)}; },
                     .reference = [=](const Arrays& a) { return Arrays{log_softmax_of(a[0], axis)}; },
                     .terms = t.shape[axis],
                     .scale = 4});
  }
}

/// Puts the losses of single examples together.
Arrays reduced(Reduction reduction, const std::vector<double>& losses, const Shape& shape, double weight) {
  if (reduction == Reduction::none) {
    Array out(shape);
    out.values = losses;
    return {out};
  }
  double sum = 0;
  for (double loss : losses) sum += loss;
  return {Array({}, reduction == Reduction::sum ? sum : sum / weight)};
}

const char* name_of(Reduction reduction) {
  return reduction == Reduction::none ? "none" : reduction == Reduction::mean ? "mean" : "sum";
}

void add_classification(std::vector<OpCase>& cases) {
  struct Variant {
    std::string name;
    double smoothing;
    bool weighted;
    int64_t ignore;
  };
  const std::vector<int64_t> targets = {2, 0, 3, 2, 1};
  const std::vector<double> class_weights = {0.5, 2, 1, 0.25};
  for (const Variant& t : std::vector<Variant>{{"plain", 0, false, -100},
                                               {"smoothed", 0.1, false, -100},
                                               {"weighted", 0, true, -100},
                                               {"ignored", 0, false, 2},
                                               {"smoothed_weighted", 0.2, true, -100},
                                               {"everything", 0.3, true, 3}}) {
    for (Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
      const auto options = [=](const Variable& x) {
        CrossEntropyOptions o{.label_smoothing = t.smoothing, .ignore_index = t.ignore, .reduction = reduction};
        if (t.weighted) o.class_weights = Tensor::from(class_weights, {4}).to(x.dtype()).to(x.device());
        return o;
      };
      const auto loss = [=](const Array& log_p) {
        std::vector<double> losses;
        double total_weight = 0;
        for (int64_t n = 0; n < 5; ++n) {
          const int64_t target = targets[static_cast<size_t>(n)];
          if (target == t.ignore) {
            losses.push_back(0);
            continue;
          }
          const auto weight = [&](int64_t c) { return t.weighted ? class_weights[static_cast<size_t>(c)] : 1.0; };
          double smooth = 0;
          for (int64_t c = 0; c < 4; ++c) smooth -= weight(c) * log_p({n, c});
          losses.push_back(-(1 - t.smoothing) * weight(target) * log_p({n, target}) + t.smoothing / 4 * smooth);
          total_weight += weight(target);
        }
        return reduced(reduction, losses, {5}, total_weight);
      };
      const auto labels = [=](const Variable& x) { return Tensor::from(targets, {5}).to(x.device()); };
      cases.push_back(
          {.name = fmt::format("cross_entropy.{}_{}", t.name, name_of(reduction)),
           .inputs = {{{5, 4}, -4, 4}},
           .run = [=](const Variables& v) { return Variables{cross_entropy(v[0], labels(v[0]), options(v[0]))}; },
           .reference = [=](const Arrays& a) { return loss(log_softmax_of(a[0], 1)); },
           .terms = 20,
           .scale = 8});
      if (t.smoothing > 0) continue;
      cases.push_back(
          {.name = fmt::format("nll_loss.{}_{}", t.name, name_of(reduction)),
           .inputs = {{{5, 4}, -4, 0}},
           .run = [=](const Variables& v) { return Variables{nll_loss(v[0], labels(v[0]), options(v[0]))}; },
           .reference = [=](const Arrays& a) { return loss(a[0]); },
           .terms = 5,
           .scale = 8});
    }
  }
}

/// Losses between two tensors of one shape.
void add_pair(std::vector<OpCase>& cases, const std::string& name,
              const std::function<Variable(const Variable&, const Variable&, Reduction)>& f,
              const std::function<double(double, double)>& reference, const OpInput& first, const OpInput& second) {
  for (Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none})
    cases.push_back({.name = name + "." + name_of(reduction),
                     .inputs = {first, second},
                     .run = [=](const Variables& v) { return Variables{f(v[0], v[1], reduction)}; },
                     .reference =
                         [=](const Arrays& a) {
                           std::vector<double> losses;
                           for (size_t i = 0; i < a[0].values.size(); ++i)
                             losses.push_back(reference(a[0].values[i], a[1].values[i]));
                           return reduced(reduction, losses, a[0].shape, static_cast<double>(losses.size()));
                         },
                     .terms = first.shape.numel(),
                     .scale = 8});
}

}  // namespace

void add_losses(std::vector<OpCase>& cases) {
  add_softmax(cases);
  add_classification(cases);
  add_pair(
      cases, "bce_with_logits", [](auto& x, auto& y, Reduction r) { return bce_with_logits(x, y, r); },
      [](double x, double y) {
        const double p = 1 / (1 + std::exp(-x));
        return -y * std::log(p) - (1 - y) * std::log(1 - p);
      },
      {{3, 4}, -4, 4, 0.05}, {{3, 4}, 0, 1});
  add_pair(
      cases, "mse_loss", [](auto& x, auto& y, Reduction r) { return mse_loss(x, y, r); },
      [](double x, double y) { return (x - y) * (x - y); }, {{3, 4}}, {{3, 4}});
  // Apart by at least 0.5: l1 has a kink where the two meet.
  add_pair(
      cases, "l1_loss", [](auto& x, auto& y, Reduction r) { return l1_loss(x, y, r); },
      [](double x, double y) { return std::fabs(x - y); }, {{3, 4}, -2, 2, 1}, {{3, 4}, -0.5, 0.5});
  cases.push_back({.name = "kl_divergence.mean",
                   .inputs = {{{3, 4}, -3, 0}, {{3, 4}, -3, 0}},
                   .run = [](const Variables& v) { return Variables{kl_divergence(v[0], v[1])}; },
                   .reference =
                       [](const Arrays& a) {
                         double sum = 0;  // over classes; averaged over the 3 examples
                         for (size_t i = 0; i < a[0].values.size(); ++i)
                           sum += std::exp(a[1].values[i]) * (a[1].values[i] - a[0].values[i]);
                         return Arrays{Array({}, sum / 3)};
                       },
                   .terms = 12,
                   .scale = 3});
}

}  // namespace espalier::op_cases
