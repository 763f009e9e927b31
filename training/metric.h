// Metrics by name: how good a network's answers are, in one number with a direction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/registry.h"
#include "datasets/data_loader.h"
#include "layers/bundle.h"

namespace espalier {

/// Takes in the answers to a data set's examples, batch after batch.
class Metric {
 public:
  virtual ~Metric() = default;
  /// By which metric_registry() knows it.
  virtual std::string name() const = 0;
  virtual bool higher_is_better() const = 0;
  /// A share in [0,1], which people read as a percentage.
  virtual bool is_share() const { return false; }
  /// What one head made of a batch, and its targets (loss.h), on any device.
  virtual void add(const Tensor& outputs, const Tensor& targets) = 0;
  virtual double value() const = 0;
};
using MetricPtr = std::shared_ptr<Metric>;

/// The metrics by name: add() your own before you name it.
///
/// "accuracy": the share of right classes, of steps without those of class -1. "mse", "mae": means over all values of
/// squares and absolute values of what the outputs differ by. "r2": 1 - the sum of those squares / the sum of squares
/// of what the targets differ by from their own means, each output's own; all outputs count together.
Registry<MetricPtr()>& metric_registry();

struct MetricValue {
  std::string name;  ///< "accuracy"; of heads after the first "age.mae"
  double value = 0;
  bool higher_is_better = true, is_share = false;

  /// By which the best epoch has the highest: the value, or its negative.
  double score() const { return higher_is_better ? value : -value; }
  /// "97.50 %", "0.0123".
  std::string text() const;
};

/// The metrics that a data set asks for: for classes accuracy, for values mse, mae and r2. The primary one, by which
/// epochs are chosen, is the first, or the one that the data set names.
class Metrics {
 public:
  /// Throws on a metric that nobody knows, naming the nearest.
  explicit Metrics(const Dataset& dataset);
  void add(const Bundle& outputs, const Batch& batch);
  /// The primary one first.
  std::vector<MetricValue> values() const;

 private:
  struct Entry {
    std::string name;
    size_t head;
    MetricPtr metric;
  };
  std::vector<Entry> entries_;
};

}  // namespace espalier
