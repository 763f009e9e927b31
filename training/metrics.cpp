#include "training/metrics.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {
constexpr int64_t kMaxClassesInTable = 20;
constexpr size_t kConfusionsListed = 10;

double ratio(int64_t a, int64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

/// Columns in terminal cells: bytes that start a character.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}
std::string left(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, width_of(text)), ' ');
}
}  // namespace

ConfusionMatrix::ConfusionMatrix(int64_t classes, std::vector<std::string> class_names, int64_t top_k)
    : classes_(classes), k_(top_k), names_(std::move(class_names)) {
  check(classes > 0, "ConfusionMatrix", "expected at least one class, got {}", classes);
  check(top_k > 0, "ConfusionMatrix", "expected top_k > 0, got {}", top_k);
  if (names_.empty())
    for (int64_t c = 0; c < classes; ++c) names_.push_back(std::to_string(c));
  check(static_cast<int64_t>(names_.size()) == classes, "ConfusionMatrix", "expected {} class names, got {}", classes,
        names_.size());
  counts_.assign(static_cast<size_t>(classes * classes), 0);
}

void ConfusionMatrix::add(const Tensor& scores, const Tensor& labels) {
  check(scores.rank() == 2 && scores.size(1) == classes_ && is_floating(scores.dtype()), "ConfusionMatrix::add",
        "expected floating-point scores (N,{}), got {}", classes_, describe(scores));
  check(labels.rank() == 1 && labels.dtype() == DType::i64 && labels.size(0) == scores.size(0), "ConfusionMatrix::add",
        "expected i64 labels ({}), got {}", scores.size(0), describe(labels));
  const std::vector<double> values = scores.to_vector<double>();
  const std::vector<int64_t> truth = labels.to_vector<int64_t>();
  for (size_t i = 0; i < truth.size(); ++i) {
    const double* row = values.data() + i * static_cast<size_t>(classes_);
    const int64_t label = truth[i];
    check(label >= 0 && label < classes_, "ConfusionMatrix::add", "label {} of example {} is outside [0,{})", label, i,
          classes_);
    // a before b: the higher score, NaN above all, the lower index on ties.
    const auto before = [&](int64_t a, int64_t b) {
      if (std::isnan(row[a]) != std::isnan(row[b])) return std::isnan(row[a]);
      return row[a] > row[b] || (!(row[b] > row[a]) && a < b);
    };
    int64_t best = 0, rank = 0;
    for (int64_t c = 1; c < classes_; ++c)
      if (before(c, best)) best = c;
    for (int64_t c = 0; c < classes_; ++c) rank += before(c, label);
    ++counts_[static_cast<size_t>(label * classes_ + best)];
    ++examples_;
    top_k_hits_ += rank < k_;
  }
}

void ConfusionMatrix::add(int64_t label, int64_t prediction) {
  check(label >= 0 && label < classes_ && prediction >= 0 && prediction < classes_, "ConfusionMatrix::add",
        "expected label and prediction in [0,{}), got {} and {}", classes_, label, prediction);
  ++counts_[static_cast<size_t>(label * classes_ + prediction)];
  ++examples_;
  top_k_hits_ += label == prediction;
}

int64_t ConfusionMatrix::count(int64_t label, int64_t prediction) const {
  return counts_[static_cast<size_t>(label * classes_ + prediction)];
}

int64_t ConfusionMatrix::support(int64_t label) const {
  int64_t total = 0;
  for (int64_t p = 0; p < classes_; ++p) total += count(label, p);
  return total;
}

int64_t ConfusionMatrix::predicted(int64_t c) const {
  int64_t total = 0;
  for (int64_t label = 0; label < classes_; ++label) total += count(label, c);
  return total;
}

int64_t ConfusionMatrix::correct() const {
  int64_t total = 0;
  for (int64_t c = 0; c < classes_; ++c) total += count(c, c);
  return total;
}

double ConfusionMatrix::accuracy() const { return ratio(correct(), examples_); }
double ConfusionMatrix::top_k_accuracy() const { return ratio(top_k_hits_, examples_); }
double ConfusionMatrix::precision(int64_t c) const { return ratio(count(c, c), predicted(c)); }
double ConfusionMatrix::recall(int64_t c) const { return ratio(count(c, c), support(c)); }
double ConfusionMatrix::f1(int64_t c) const { return ratio(2 * count(c, c), predicted(c) + support(c)); }

template <class F>
double ConfusionMatrix::macro(F&& of_class) const {
  Average mean;
  for (int64_t c = 0; c < classes_; ++c)
    if (support(c) + predicted(c) > 0) mean.add(of_class(c), 1);
  return mean.value();
}

double ConfusionMatrix::macro_precision() const {
  return macro([&](int64_t c) { return precision(c); });
}
double ConfusionMatrix::macro_recall() const {
  return macro([&](int64_t c) { return recall(c); });
}
double ConfusionMatrix::macro_f1() const {
  return macro([&](int64_t c) { return f1(c); });
}

std::string ConfusionMatrix::to_table() const {
  size_t width = 9;  // "macro avg"
  for (const std::string& name : names_) width = std::max(width, width_of(name));
  std::string text = fmt::format("{}  precision  recall      F1  examples\n", left("class", width));
  const auto row = [&](const std::string& name, double p, double r, double f, int64_t n) {
    text += fmt::format("{}  {:9.4f}  {:6.4f}  {:6.4f}  {:8}\n", left(name, width), p, r, f, n);
  };
  for (int64_t c = 0; c < classes_; ++c)
    row(names_[static_cast<size_t>(c)], precision(c), recall(c), f1(c), support(c));
  row("macro avg", macro_precision(), macro_recall(), macro_f1(), examples_);

  if (classes_ > kMaxClassesInTable) {
    struct Confusion {
      int64_t label, prediction, count;
    };
    std::vector<Confusion> confusions;
    for (int64_t t = 0; t < classes_; ++t)
      for (int64_t p = 0; p < classes_; ++p)
        if (t != p && count(t, p) > 0) confusions.push_back({t, p, count(t, p)});
    std::stable_sort(confusions.begin(), confusions.end(), [](auto& a, auto& b) { return a.count > b.count; });
    confusions.resize(std::min(confusions.size(), kConfusionsListed));
    text += "\nmost frequent confusions (true class, taken for, examples)\n";
    for (const Confusion& c : confusions)
      text += fmt::format("{}  {}  {:5}\n", left(names_[static_cast<size_t>(c.label)], width),
                          left(names_[static_cast<size_t>(c.prediction)], width), c.count);
    return text;
  }

  const int64_t largest = *std::max_element(counts_.begin(), counts_.end());
  const int cell = static_cast<int>(std::max(std::to_string(largest).size(), std::to_string(classes_ - 1).size())) + 2;
  text += fmt::format("\n{}  predicted\n{}", left("true", width), std::string(width, ' '));
  for (int64_t p = 0; p < classes_; ++p) text += fmt::format("{:>{}}", p, cell);
  text += "\n";
  for (int64_t t = 0; t < classes_; ++t) {
    text += left(names_[static_cast<size_t>(t)], width);
    for (int64_t p = 0; p < classes_; ++p) text += fmt::format("{:>{}}", count(t, p), cell);
    text += "\n";
  }
  return text;
}

nlohmann::json ConfusionMatrix::to_json() const {
  nlohmann::json per_class = nlohmann::json::array(), matrix = nlohmann::json::array();
  for (int64_t c = 0; c < classes_; ++c) {
    per_class.push_back({{"name", names_[static_cast<size_t>(c)]},
                         {"precision", precision(c)},
                         {"recall", recall(c)},
                         {"f1", f1(c)},
                         {"examples", support(c)}});
    const auto row = counts_.begin() + c * classes_;
    matrix.push_back(std::vector<int64_t>(row, row + classes_));
  }
  return {{"accuracy", accuracy()},
          {fmt::format("top{}_accuracy", k_), top_k_accuracy()},
          {"macro_precision", macro_precision()},
          {"macro_recall", macro_recall()},
          {"macro_f1", macro_f1()},
          {"classes", per_class},
          {"matrix", matrix}};
}

}  // namespace espalier
