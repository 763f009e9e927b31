#include <cmath>

#include "autograd/ops.h"

namespace espalier {
namespace {

/// <outputs, weights>: one number whose derivative mixes all outputs with fixed random weights.
Variable mixed(const Variables& outputs) {
  Generator generator(20240229);
  Variable total;
  for (const Variable& output : outputs) {
    if (!output.defined() || !is_floating(output.dtype())) continue;
    const Variable weights = rand(output.shape(), generator, output.dtype()) + 0.5;
    const Variable term = sum(output * weights);
    total = total.defined() ? total + term : term;
  }
  check(total.defined(), "gradcheck", "the function returned no floating-point output");
  return total;
}

/// Fresh leaves with the same values.
Variables leaves(const Variables& inputs) {
  Variables result;
  for (const Variable& input : inputs) {
    Variable leaf = input.defined() ? Variable(input.data().clone()) : Variable();
    if (input.requires_grad()) {
      check(input.dtype() == DType::f64, "gradcheck", "expected f64 inputs, got {}; a float difference proves little",
            describe(input.data()));
      leaf.set_requires_grad(true);
    }
    result.push_back(leaf);
  }
  return result;
}

}  // namespace

bool gradcheck(const std::function<Variables(const Variables&)>& function, const Variables& inputs,
               const GradcheckOptions& options) {
  const Variables points = leaves(inputs);
  Variables checked;
  for (const Variable& point : points)
    if (point.requires_grad()) checked.push_back(point);
  check(!checked.empty(), "gradcheck", "expected at least one input that requires a gradient");
  const Variables analytic = grad({mixed(function(points))}, checked, {.allow_unused = true});

  // Not under NoGrad: the function may itself take gradients.
  const auto value = [&] { return mixed(function(points)).item(); };
  for (size_t i = 0; i < checked.size(); ++i) {
    Tensor point = checked[i].data();
    double* x = point.data<double>();
    const std::vector<double> gradient = analytic[i].defined()
                                             ? analytic[i].data().to_vector<double>()
                                             : std::vector<double>(static_cast<size_t>(point.numel()), 0.0);
    for (int64_t j = 0; j < point.numel(); ++j) {
      const double before = x[j], step = options.step * std::max(1.0, std::fabs(before));
      x[j] = before + step;
      const double high = value();
      x[j] = before - step;
      const double low = value();
      x[j] = before;
      const double numeric = (high - low) / (2 * step), found = gradient[static_cast<size_t>(j)];
      const double error = std::fabs(found - numeric);
      if (!(error <= options.absolute + options.relative * std::max(std::fabs(numeric), std::fabs(found))))
        fail<NumericError>("gradcheck", "input {}, element {}: analytic {:.10g}, numeric {:.10g}", i, j, found,
                           numeric);
    }
  }
  return true;
}

bool gradgradcheck(const std::function<Variables(const Variables&)>& function, const Variables& inputs,
                   const GradcheckOptions& options) {
  const auto first_derivatives = [&](const Variables& points) {
    Variables wanted;
    for (const Variable& point : points)
      if (point.requires_grad()) wanted.push_back(point);
    Variables gradients = grad({mixed(function(points))}, wanted, {.create_graph = true, .allow_unused = true});
    std::erase_if(gradients, [](const Variable& g) { return !g.defined(); });
    // A function that is linear has constant gradients, which depend on nothing; keep them in the graph.
    for (Variable& gradient : gradients) gradient = gradient + sum(wanted[0]) * 0.0;
    return gradients;
  };
  return gradcheck(first_derivatives, inputs, options);
}

}  // namespace espalier
