// What the tests of training/ share: a small network with everything that has state, data, and a folder.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "tests/expect_error.h"
#include "training/trainer.h"

namespace espalier::testing_support {

/// Batch normalisation has buffers, dropout draws random numbers: a resume has to carry both.
inline ModulePtr small_network(uint64_t seed) {
  set_seed(seed);
  return share(Sequential(Flatten(), Linear(64, 24), BatchNorm1d(24), ReLU(), Dropout({.p = 0.2}), Linear(24, 10)));
}

inline Dataset digits(int64_t count) {
  static const Splits splits = load_dataset("digits");
  return splits.train.first(count);
}
inline Dataset digits_test() {
  static const Splits splits = load_dataset("digits");
  return splits.test;
}

/// Ends a training after that step, to be resumed.
struct StopAt : Callback {
  explicit StopAt(int64_t at) : step(at) {}
  void on_step_end(Trainer& trainer, const StepRecord& record) override {
    if (record.step == step) trainer.request_stop();
  }
  int64_t step;
};

/// A fresh folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "espalier-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// Every tensor has the same bits.
inline void expect_identical(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(identical(a[i].second, b[i].second)) << a[i].first;
  }
}

inline NamedTensors copy_of(const NamedTensors& tensors) {
  NamedTensors copy;
  for (const auto& [name, tensor] : tensors) copy.emplace_back(name, tensor.clone());
  return copy;
}

}  // namespace espalier::testing_support
