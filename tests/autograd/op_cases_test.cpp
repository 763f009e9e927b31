// Runs the table of operations: values, first and second derivatives, poisoned memory, strided inputs. They run on the
// device that ESPALIER_TEST_DEVICE names; another device's results are compared with the CPU's.
#include "tests/op_cases.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include <gtest/gtest.h>

namespace espalier::op_cases {
namespace {

Device device() {
  static const char* const name = std::getenv("ESPALIER_TEST_DEVICE");
  static const Device device = Device::parse(name ? name : "cpu");
  return device;
}

class OpCases : public ::testing::TestWithParam<size_t> {
 protected:
  const OpCase& op_case() const { return all()[GetParam()]; }

  /// How far gradients may be off: each sums over every output at most, on top of what the forward pass does.
  double gradient_tolerance(DType dtype, const Variables& outputs) const {
    int64_t terms = op_case().terms;
    for (const Variable& output : outputs) terms += output.numel();
    return tolerance(dtype, terms, op_case().scale);
  }
};

INSTANTIATE_TEST_SUITE_P(Table, OpCases, ::testing::Range(size_t{0}, all().size()), [](const auto& test) {
  std::string name = all()[test.param].name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

void expect_near(const Tensor& got, const Array& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.shape(), expected.shape) << what << ": " << got.shape().to_string() << " for "
                                         << expected.shape.to_string();
  const std::vector<double> values = got.to_vector<double>();
  for (size_t i = 0; i < values.size(); ++i) {
    const double allowed = tolerance * std::max(1.0, std::fabs(expected.values[i]));
    // Not "error > bound": a NaN must fail.
    ASSERT_TRUE(std::fabs(values[i] - expected.values[i]) <= allowed)
        << what << ", element " << i << ": " << values[i] << ", expected " << expected.values[i] << ", allowed error "
        << allowed;
  }
}

void expect_near(const Variables& got, const Arrays& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(got[i].defined()) << what << " " << i << " is missing";
    ASSERT_NO_FATAL_FAILURE(expect_near(got[i].data(), expected[i], tolerance, fmt::format("{} {}", what, i)));
  }
}

/// Gradients of the inputs, zero where there are none.
Variables gradients_of(const Variables& outputs, const Variables& inputs, const Variables& start) {
  Variables gradients = grad(outputs, inputs, {.allow_unused = true, .grad_outputs = start});
  for (size_t i = 0; i < gradients.size(); ++i)
    if (!gradients[i].defined()) gradients[i] = Tensor::zeros_like(inputs[i].data());
  return gradients;
}

TEST_P(OpCases, ForwardEqualsReference) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variables inputs = make_inputs(op_case(), dtype, device());
    const Variables outputs = op_case().run(inputs);
    for (const Variable& output : outputs) {
      EXPECT_EQ(output.dtype(), dtype);
      EXPECT_EQ(output.device(), device());
    }
    expect_near(outputs, op_case().reference(to_arrays(inputs)), tolerance(dtype, op_case().terms, op_case().scale),
                fmt::format("{} output", name_of(dtype)));
  }
}

TEST_P(OpCases, FirstDerivative) {
  if (op_case().derivatives < 1) GTEST_SKIP() << "too many elements for difference quotients";
  if (!device().is_cpu()) GTEST_SKIP() << "difference quotients are taken on the CPU";
  EXPECT_TRUE(gradcheck(op_case().run, make_inputs(op_case(), DType::f64), op_case().gradcheck));
}

TEST_P(OpCases, SecondDerivative) {
  if (op_case().derivatives < 2) GTEST_SKIP() << "too many elements for difference quotients";
  if (!device().is_cpu()) GTEST_SKIP() << "difference quotients are taken on the CPU";
  EXPECT_TRUE(gradgradcheck(op_case().run, make_inputs(op_case(), DType::f64), op_case().gradcheck));
}

TEST_P(OpCases, FloatGradientsEqualDouble) {
  const Variables inputs = make_inputs(op_case(), DType::f32, device());
  const Variables reference = make_inputs(op_case(), DType::f64);
  const Variables outputs = op_case().run(inputs), reference_outputs = op_case().run(reference);
  const Variables gradients = gradients_of(outputs, inputs, make_output_gradients(outputs));
  const Variables expected = gradients_of(reference_outputs, reference, make_output_gradients(reference_outputs));
  expect_near(gradients, to_arrays(expected), gradient_tolerance(DType::f32, outputs), "gradient of input");
}

/// Leaves every size of free block of the allocator, up to 32 KB, full of one value: what an operation allocates next
/// holds it.
void fill_free_memory(double value) {
  release_cached_memory(device());
  std::vector<Tensor> blocks;
  for (int64_t size = 64; size <= 1 << 15;
       size += std::max<int64_t>(64, (int64_t{1} << (63 - __builtin_clzll(size))) / 8))
    for (int copies = 0; copies < (size <= 4096 ? 16 : 6); ++copies)
      blocks.push_back(Tensor::full({size / 4}, value, DType::f32, device()));
}

/// Outputs, gradients and gradients of gradients.
std::vector<Tensor> everything(const OpCase& op_case, const Variables& inputs, const Variables& start) {
  const Variables outputs = op_case.run(inputs);
  std::vector<Tensor> results;
  for (const Variable& output : outputs) results.push_back(output.data());
  const Variables gradients =
      grad(outputs, inputs, {.create_graph = true, .allow_unused = true, .grad_outputs = start});
  Variable total;
  for (const Variable& gradient : gradients) {
    if (!gradient.defined()) continue;
    results.push_back(gradient.data());
    const Variable term = sum(square(gradient));
    total = total.defined() ? total + term : term;
  }
  if (!total.defined() || !total.requires_grad()) return results;
  for (const Variable& second : grad({total}, inputs, {.allow_unused = true}))
    if (second.defined()) results.push_back(second.data());
  return results;
}

TEST_P(OpCases, SecondGradientsEqualTheCpus) {
  if (device().is_cpu()) GTEST_SKIP() << "for other devices";
  for (DType dtype : {DType::f32, DType::f64}) {
    const auto run = [&](Device where) {
      const Variables inputs = make_inputs(op_case(), dtype, where);
      return everything(op_case(), inputs, make_output_gradients(op_case().run(inputs)));
    };
    const std::vector<Tensor> results = run(device()), expected = run(Device::cpu());
    ASSERT_EQ(results.size(), expected.size());
    // The second gradients are those of a sum over all gradients.
    int64_t terms = 0;
    for (const Tensor& x : expected) terms += x.numel();
    for (size_t i = 0; i < results.size(); ++i) {
      const double size = expected[i].numel() == 0 ? 0 : max(abs(expected[i])).item();
      expect_near(results[i], to_arrays({Variable(expected[i])})[0],
                  tolerance(dtype, op_case().terms + terms, op_case().scale) * std::max(1.0, size),
                  fmt::format("{} result {}", name_of(dtype), i));
    }
  }
}

TEST_P(OpCases, PoisonedMemoryChangesNothing) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variables inputs = make_inputs(op_case(), dtype, device());
    const Variables start = make_output_gradients(op_case().run(inputs));
    fill_free_memory(0);
    const std::vector<Tensor> clean = everything(op_case(), inputs, start);
    fill_free_memory(std::numeric_limits<double>::quiet_NaN());
    const std::vector<Tensor> poisoned = everything(op_case(), inputs, start);
    ASSERT_EQ(clean.size(), poisoned.size());
    for (size_t i = 0; i < clean.size(); ++i)
      EXPECT_TRUE(identical(clean[i], poisoned[i]))
          << name_of(dtype) << " result " << i << ": " << poisoned[i].to_string() << "\nwithout poison "
          << clean[i].to_string();
  }
}

/// The same values with the axes in the opposite order in memory.
Tensor transposed_copy(const Tensor& x) {
  std::vector<int> reversed;
  for (int i = x.rank() - 1; i >= 0; --i) reversed.push_back(i);
  return x.permute(reversed).clone().permute(reversed);
}

/// The same values as every second element of a larger tensor, with an offset; the others are NaN.
Tensor sliced_copy(const Tensor& x) {
  Shape larger = x.shape();
  for (int i = 0; i < x.rank(); ++i) larger[i] = 2 * larger[i] + 1;
  Tensor view = Tensor::full(larger, std::numeric_limits<double>::quiet_NaN(), x.dtype(), x.device());
  for (int i = 0; i < x.rank(); ++i) view = view.slice(i, 1, larger[i], 2);
  view.copy_(x);
  return view;
}

/// x with its first element along each axis everywhere: stride 0.
Tensor expanded(const Tensor& x) {
  if (x.numel() == 0) return x;
  Tensor first = x;
  for (int i = 0; i < x.rank(); ++i) first = first.slice(i, 0, 1);
  return first.expand(x.shape());
}

Variables map(const Variables& inputs, const std::function<Tensor(const Tensor&)>& f) {
  Variables result;
  for (const Variable& input : inputs) result.emplace_back(f(input.data()), input.requires_grad());
  return result;
}

TEST_P(OpCases, StridedInputsGiveTheSame) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variables inputs = make_inputs(op_case(), dtype, device());
    const Variables outputs = op_case().run(inputs);
    const Variables start = make_output_gradients(outputs);
    const Arrays expected = to_arrays(outputs), expected_gradients = to_arrays(gradients_of(outputs, inputs, start));
    for (const auto& [name, view] : {std::pair{"transposed", &transposed_copy}, std::pair{"sliced", &sliced_copy}}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), name));
      const Variables strided = map(inputs, *view);
      const Variables results = op_case().run(strided);
      expect_near(results, expected, tolerance(dtype, op_case().terms, op_case().scale), "output");
      expect_near(gradients_of(results, strided, map(start, *view)), expected_gradients,
                  gradient_tolerance(dtype, outputs), "gradient of input");
    }
  }
}

TEST_P(OpCases, ExpandedInputsGiveTheSame) {
  for (DType dtype : {DType::f32, DType::f64}) {
    SCOPED_TRACE(name_of(dtype));
    const Variables inputs = map(make_inputs(op_case(), dtype, device()), expanded);
    const Variables copies = map(inputs, [](const Tensor& x) { return x.clone(); });
    const Variables outputs = op_case().run(inputs), expected = op_case().run(copies);
    expect_near(outputs, to_arrays(expected), tolerance(dtype, op_case().terms, op_case().scale), "output");
    const Variables start = map(make_output_gradients(outputs), expanded);
    const Variables gradients = gradients_of(outputs, inputs, start);
    const Variables expected_gradients =
        gradients_of(expected, copies, map(start, [](const Tensor& x) { return x.clone(); }));
    expect_near(gradients, to_arrays(expected_gradients), gradient_tolerance(dtype, outputs), "gradient of input");
  }
}

}  // namespace
}  // namespace espalier::op_cases
