#include "tests/torch/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include <gtest/gtest.h>

#include "core/safetensors.h"

namespace espalier::torch_reference {
namespace {

struct File {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

const File& file() {
  static const File loaded = [] {
    SafetensorsFile content = load_safetensors(ESPALIER_TEST_DATA "/torch_reference.safetensors");
    return File{{content.tensors.begin(), content.tensors.end()}, std::move(content.metadata)};
  }();
  return loaded;
}

}  // namespace

std::vector<std::string> cases(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& [name, options] : file().metadata) {
    if (name.starts_with(prefix + ".")) names.push_back(name);
  }
  check(!names.empty(), "torch reference", "expected cases named {}.*, found none", prefix);
  return names;
}

Case::Case(std::string name, DType dtype)
    : name_(std::move(name)), dtype_(dtype), options_(nlohmann::json::parse(file().metadata.at(name_))) {}

bool Case::has(const std::string& field) const { return file().tensors.contains(name_ + "." + field); }

Tensor Case::tensor(const std::string& field) const {
  check(has(field), "torch reference", "{} has no field {}", name_, field);
  const Tensor& x = file().tensors.at(name_ + "." + field);
  return x.dtype() == DType::f64 ? x.to(dtype_).clone() : x.clone();
}

Variable Case::leaf(const std::string& field) const {
  return has(field) ? Variable(tensor(field), /*requires_grad=*/true) : Variable();
}

void Case::expect(const std::string& field, const Tensor& actual, int64_t terms) const {
  const Tensor expected = file().tensors.at(name_ + "." + field);
  ASSERT_TRUE(actual.defined()) << name_ << "." << field;
  ASSERT_EQ(actual.shape(), expected.shape()) << name_ << "." << field;
  const std::vector<double> want = expected.to_vector<double>(), got = actual.to_vector<double>();
  double largest = 1;
  for (const double value : want) largest = std::max(largest, std::abs(value));
  const double epsilon = dtype_ == DType::f64 ? std::numeric_limits<double>::epsilon()
                                              : static_cast<double>(std::numeric_limits<float>::epsilon());
  const double allowed = 8 * epsilon * std::sqrt(static_cast<double>(terms)) * largest;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], allowed) << name_ << "." << field << ", element " << i << ", options " << options_;
  }
}

void Case::expect_grad(const std::string& field, const Variable& leaf, int64_t terms) const {
  if (!has("d" + field)) return;
  ASSERT_TRUE(leaf.grad().defined()) << name_ << "." << field << " got no gradient";
  expect("d" + field, leaf.grad().data(), terms);
}

}  // namespace espalier::torch_reference
