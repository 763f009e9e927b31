// What metrics of classes are made of: counts that are exact whatever the batches were. Metrics by name: metric.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/tensor.h"

namespace espalier {

/// A mean over examples of values that come as means over batches.
class Average {
 public:
  void add(double mean, int64_t examples) {
    sum_ += mean * static_cast<double>(examples);
    examples_ += examples;
  }
  double value() const { return examples_ == 0 ? 0 : sum_ / static_cast<double>(examples_); }
  double sum() const { return sum_; }
  int64_t examples() const { return examples_; }
  void set(double sum, int64_t examples) { sum_ = sum, examples_ = examples; }

 private:
  double sum_ = 0;
  int64_t examples_ = 0;
};

/// Counts of (true class, predicted class), and of labels among the k highest scores.
///
/// precision = TP/(TP+FP), recall = TP/(TP+FN), F1 = 2TP/(2TP+FP+FN); 0/0 is 0. Macro values are plain means over the
/// classes that occur among labels or predictions, as scikit-learn's.
class ConfusionMatrix {
 public:
  /// Of no class: what isn't about classes has nothing to count.
  ConfusionMatrix() = default;
  /// Names default to "0", "1", ...; `top_k` is the k that top_k_accuracy() reports.
  explicit ConfusionMatrix(int64_t classes, std::vector<std::string> class_names = {}, int64_t top_k = 5);

  /// scores (N,C) floating, labels i64 (N). The prediction is the highest score, the first one on ties; NaN counts as
  /// the highest. Throws on a label outside [0,C).
  void add(const Tensor& scores, const Tensor& labels);
  /// One example, without scores: counts as a top-k hit only if it is right.
  void add(int64_t label, int64_t prediction);

  int64_t classes() const { return classes_; }
  const std::vector<std::string>& class_names() const { return names_; }
  int64_t top_k() const { return k_; }
  int64_t examples() const { return examples_; }
  int64_t correct() const;
  int64_t count(int64_t label, int64_t prediction) const;
  int64_t support(int64_t label) const;  ///< examples of a true class

  double accuracy() const;
  double top_k_accuracy() const;
  double precision(int64_t c) const;
  double recall(int64_t c) const;
  double f1(int64_t c) const;
  double macro_precision() const;
  double macro_recall() const;
  double macro_f1() const;

  /// Aligned text: precision, recall, F1 and support of each class; then the matrix, or, above 20 classes, the ten
  /// most frequent confusions.
  std::string to_table() const;
  /// {"accuracy", "top5_accuracy", "macro_precision", "macro_recall", "macro_f1", "classes": [...], "matrix": [[...]]}
  nlohmann::json to_json() const;

 private:
  int64_t predicted(int64_t c) const;
  template <class F>
  double macro(F&& of_class) const;

  int64_t classes_ = 0, k_ = 0;
  std::vector<std::string> names_;
  std::vector<int64_t> counts_;  // (C,C): [true class][prediction]
  int64_t examples_ = 0, top_k_hits_ = 0;
};

}  // namespace espalier
