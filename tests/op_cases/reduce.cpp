#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

struct Reduction {
  std::string variant;
  Shape shape;
  Axes axes;
  bool keep = false;
};

const std::vector<Reduction> kReductions = {
    {"all", {3, 4, 5}, {}},    {"first", {3, 4, 5}, {0}},    {"middle", {3, 4, 5}, {1}, true},
    {"last", {3, 4, 5}, {-1}}, {"outer", {3, 4, 5}, {0, 2}}, {"outer_kept", {3, 4, 5}, {2, 0}, true},
    {"scalar", {}, {}},        {"size_one", {3, 1, 2}, {1}}, {"vector", {203}, {0}},
    {"rows", {3, 131}, {1}},   {"columns", {67, 5}, {0}},
};

bool reduced(const Reduction& r, int axis) {
  return r.axes.empty() ||
         std::any_of(r.axes.begin(), r.axes.end(), [&](int a) { return (a < 0 ? a + r.shape.rank() : a) == axis; });
}

/// Collects, for each output, the values that are reduced to it, and applies f.
Array apply(const Reduction& r, const Array& x, const std::function<double(const std::vector<double>&)>& f) {
  Shape kept, dropped;
  for (int i = 0; i < r.shape.rank(); ++i) {
    kept.push_back(reduced(r, i) ? 1 : r.shape[i]);
    if (!reduced(r, i)) dropped.push_back(r.shape[i]);
  }
  std::vector<std::vector<double>> groups(static_cast<size_t>(kept.numel()));
  for_each(r.shape, [&](const Index& index) {
    size_t at = 0;
    for (int i = 0; i < r.shape.rank(); ++i)
      at = at * static_cast<size_t>(kept[i]) + (reduced(r, i) ? 0 : static_cast<size_t>(index[i]));
    groups[at].push_back(x(index));
  });
  Array out(r.keep ? kept : dropped);
  for (size_t i = 0; i < groups.size(); ++i) out.values[i] = f(groups[i]);
  return out;
}

double total(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return sum;
}

double squared_deviations(const std::vector<double>& values) {
  const double mean = total(values) / static_cast<double>(values.size());
  double sum = 0;
  for (double v : values) sum += (v - mean) * (v - mean);
  return sum;
}

void add(std::vector<OpCase>& cases, const std::string& name, const Reduction& r,
         const std::function<Variable(const Variable&)>& f,
         const std::function<double(const std::vector<double>&)>& reference, bool distinct = false) {
  cases.push_back({.name = name + "." + r.variant,
                   .inputs = {{.shape = r.shape, .distinct = distinct}},
                   .run = [f](const Variables& v) { return Variables{f(v[0])}; },
                   .reference = [=](const Arrays& a) { return Arrays{apply(r, a[0], reference)}; },
                   .terms = r.shape.numel(),
                   .scale = 2});
}

void add_sum_to(std::vector<OpCase>& cases) {
  const auto add_case = [&](const std::string& variant, const Shape& from, const Shape& to) {
    cases.push_back({.name = "sum_to." + variant,
                     .inputs = {{from}},
                     .run = [=](const Variables& v) { return Variables{sum_to(v[0], to)}; },
                     .reference =
                         [=](const Arrays& a) {
                           Array out(to);
                           for_each(from, [&](const Index& index) {
                             Index own(index.end() - to.rank(), index.end());
                             for (int i = 0; i < to.rank(); ++i)
                               if (to[i] == 1) own[static_cast<size_t>(i)] = 0;
                             out(own) += a[0](index);
                           });
                           return Arrays{out};
                         },
                     .terms = from.numel(),
                     .scale = 2});
  };
  add_case("same", {3, 4}, {3, 4});
  add_case("row", {3, 4}, {4});
  add_case("column", {3, 4}, {3, 1});
  add_case("scalar", {3, 4}, {});
  add_case("ranks", {2, 3, 4}, {3, 1});
}

}  // namespace

void add_reductions(std::vector<OpCase>& cases) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Reduction& r : kReductions) {
    add(
        cases, "sum", r, [r](auto& x) { return sum(x, r.axes, r.keep); }, total);
    add(
        cases, "mean", r, [r](auto& x) { return mean(x, r.axes, r.keep); },
        [](const std::vector<double>& v) { return total(v) / static_cast<double>(v.size()); });
    add(
        cases, "max", r, [r](auto& x) { return max(x, r.axes, r.keep); },
        [=](const std::vector<double>& v) {
          double best = -infinity;
          for (double value : v) best = std::max(best, value);
          return best;
        },
        true);
    add(
        cases, "min", r, [r](auto& x) { return min(x, r.axes, r.keep); },
        [=](const std::vector<double>& v) {
          double best = infinity;
          for (double value : v) best = std::min(best, value);
          return best;
        },
        true);
    add(
        cases, "variance_biased", r, [r](auto& x) { return variance(x, r.axes, r.keep, 0); },
        [](const std::vector<double>& v) { return squared_deviations(v) / static_cast<double>(v.size()); });
    if (r.variant == "scalar" || r.variant == "size_one") continue;  // one element has no unbiased variance
    add(
        cases, "variance", r, [r](auto& x) { return variance(x, r.axes, r.keep); },
        [](const std::vector<double>& v) { return squared_deviations(v) / static_cast<double>(v.size() - 1); });
    if (r.axes.size() != 1) continue;
    add(
        cases, "logsumexp", r, [r](auto& x) { return logsumexp(x, r.axes[0], r.keep); },
        [](const std::vector<double>& v) {
          double sum = 0;
          for (double value : v) sum += std::exp(value);
          return std::log(sum);
        });
  }
  add(
      cases, "sum", {"empty", {0, 3}, {0}}, [](auto& x) { return sum(x, {0}); }, total);
  add(
      cases, "sum", {"none_left", {0, 3}, {1}}, [](auto& x) { return sum(x, {1}); }, total);
  add_sum_to(cases);
}

}  // namespace espalier::op_cases
