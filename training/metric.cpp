#include "training/metric.h"

#include <algorithm>
#include <cmath>

#include "core/ops.h"

namespace espalier {

namespace {

class AccuracyMetric : public Metric {
 public:
  std::string name() const override { return "accuracy"; }
  bool higher_is_better() const override { return true; }
  bool is_share() const override { return true; }
  void add(const Tensor& outputs, const Tensor& targets) override {
    check(targets.dtype() == DType::i64 && targets.numel() > 0 && outputs.numel() % targets.numel() == 0, name(),
          "expected classes (i64) and a score for each of them, got targets {} and outputs {}", describe(targets),
          outputs.shape());
    const Tensor there = targets.to(outputs.device()).reshape({targets.numel()});
    const Tensor scores = outputs.reshape({targets.numel(), outputs.numel() / targets.numel()});
    right_ += static_cast<int64_t>(sum(argmax(scores, 1) == there).item());
    all_ += static_cast<int64_t>(sum(there >= 0.0).item());
  }
  double value() const override { return all_ == 0 ? 0 : static_cast<double>(right_) / static_cast<double>(all_); }

 private:
  int64_t right_ = 0, all_ = 0;
};

/// Outputs and targets as (N, values) in f64.
struct Values {
  std::vector<double> outputs, targets;
  size_t width;
};
Values values_of(const std::string& metric, const Tensor& outputs, const Tensor& targets) {
  check(is_floating(targets.dtype()) && outputs.numel() == targets.numel() && targets.size(0) > 0, metric,
        "expected as many outputs as values (f32), got outputs {} and targets {}", outputs.shape(), describe(targets));
  return {outputs.to_vector<double>(), targets.to_vector<double>(),
          static_cast<size_t>(targets.numel() / targets.size(0))};
}

/// The mean over all values of a function of the difference.
template <double (*f)(double)>
class ErrorMetric : public Metric {
 public:
  explicit ErrorMetric(const char* name) : name_(name) {}
  std::string name() const override { return name_; }
  bool higher_is_better() const override { return false; }
  void add(const Tensor& outputs, const Tensor& targets) override {
    const Values values = values_of(name_, outputs, targets);
    for (size_t i = 0; i < values.targets.size(); ++i) sum_ += f(values.outputs[i] - values.targets[i]);
    count_ += static_cast<double>(values.targets.size());
  }
  double value() const override { return count_ == 0 ? 0 : sum_ / count_; }

 private:
  const char* name_;
  double sum_ = 0, count_ = 0;
};
double squared(double x) { return x * x; }
double absolute(double x) { return std::abs(x); }

class R2Metric : public Metric {
 public:
  std::string name() const override { return "r2"; }
  bool higher_is_better() const override { return true; }
  void add(const Tensor& outputs, const Tensor& targets) override {
    const Values values = values_of("r2", outputs, targets);
    if (shift_.empty()) {  // near the targets, so that their squares are small
      shift_.assign(values.targets.begin(), values.targets.begin() + static_cast<std::ptrdiff_t>(values.width));
      sums_.assign(values.width, 0);
      squares_.assign(values.width, 0);
    }
    for (size_t i = 0; i < values.targets.size(); ++i) {
      const size_t column = i % values.width;
      const double y = values.targets[i] - shift_[column];
      sums_[column] += y;
      squares_[column] += y * y;
      residual_ += squared(values.outputs[i] - values.targets[i]);
    }
    rows_ += static_cast<double>(values.targets.size() / values.width);
  }
  double value() const override {
    double total = 0;
    for (size_t c = 0; c < sums_.size(); ++c) total += squares_[c] - sums_[c] * sums_[c] / rows_;
    return total > 0 ? 1 - residual_ / total : 0;
  }

 private:
  std::vector<double> shift_, sums_, squares_;
  double residual_ = 0, rows_ = 0;
};

}  // namespace

Registry<MetricPtr()>& metric_registry() {
  static Registry<MetricPtr()> metrics("metric",
                                       {{"accuracy", [] { return std::make_shared<AccuracyMetric>(); }},
                                        {"mse", [] { return std::make_shared<ErrorMetric<squared>>("mse"); }},
                                        {"mae", [] { return std::make_shared<ErrorMetric<absolute>>("mae"); }},
                                        {"r2", [] { return std::make_shared<R2Metric>(); }}});
  return metrics;
}

std::string MetricValue::text() const {
  return is_share ? fmt::format("{:.2f} %", 100 * value) : fmt::format("{:.4g}", value);
}

Metrics::Metrics(const Dataset& dataset) {
  const std::vector<Target> targets = dataset.all_targets();
  const auto add_metric = [&](size_t head, const std::string& name) {
    entries_.push_back(
        {head == 0 ? name : targets[head].name + "." + name, head, metric_registry().find("metric", name)()});
  };
  for (size_t head = 0; head < targets.size(); ++head)
    for (const char* name : targets[head].is_classes() ? std::vector<const char*>{"accuracy"}
                                                       : std::vector<const char*>{"mse", "mae", "r2"})
      add_metric(head, name);
  if (dataset.metric.empty()) return;
  const auto is_primary = [&](const Entry& entry) { return entry.name == dataset.metric; };
  if (std::none_of(entries_.begin(), entries_.end(), is_primary)) {
    size_t head = 0;
    std::string name = dataset.metric;
    for (size_t i = 1; i < targets.size(); ++i)
      if (dataset.metric.starts_with(targets[i].name + ".")) head = i, name = name.substr(targets[i].name.size() + 1);
    add_metric(head, name);
  }
  const auto primary = std::find_if(entries_.begin(), entries_.end(), is_primary);
  std::rotate(entries_.begin(), primary, primary + 1);
}

void Metrics::add(const Bundle& outputs, const Batch& batch) {
  for (const Entry& entry : entries_) {
    const Tensor& targets = entry.head == 0 ? batch.labels : batch.targets.at(entry.head - 1).second;
    entry.metric->add(outputs[entry.head].data(), targets);
  }
}

std::vector<MetricValue> Metrics::values() const {
  std::vector<MetricValue> values;
  for (const Entry& entry : entries_)
    values.push_back({entry.name, entry.metric->value(), entry.metric->higher_is_better(), entry.metric->is_share()});
  return values;
}

}  // namespace espalier
