#include "training/answers.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/ops.h"

namespace espalier {

int64_t Answers::correct() const {
  int64_t count = 0;
  for (int64_t i = 0; i < size(); ++i) count += is_right(i) ? 1 : 0;
  return count;
}

double Answers::accuracy() const {
  return size() == 0 ? 0 : static_cast<double>(correct()) / static_cast<double>(size());
}

Answers answers(Module& module, const Dataset& dataset, const EvaluateOptions& options) {
  check(dataset.is_classification(), "answers", "expected data that asks for a class of each example, '{}' doesn't",
        dataset.name);
  Answers result;
  EvaluateOptions watched = options;
  watched.loss = [&](const Variable& outputs, const Batch& batch) {
    const Sorted best = topk(softmax(outputs).data(), 1);  // (N,1)
    const std::vector<int64_t> classes = best.index.to_vector<int64_t>();
    const std::vector<double> confidence = best.values.to_vector<double>();
    const std::vector<int64_t> labels = batch.labels.to_vector<int64_t>();
    for (size_t i = 0; i < confidence.size(); ++i) {
      if (!std::isfinite(confidence[i])) {
        fail<NumericError>("answers", "expected finite outputs, got some that are not for example {} of '{}'",
                           result.labels.size() + i, dataset.name);
      }
    }
    result.classes.insert(result.classes.end(), classes.begin(), classes.end());
    result.confidence.insert(result.confidence.end(), confidence.begin(), confidence.end());
    result.labels.insert(result.labels.end(), labels.begin(), labels.end());
    return cross_entropy(outputs, batch.labels);
  };
  evaluate(module, dataset, watched);
  return result;
}

double calibration_error(const Answers& answers, int64_t bins) {
  check(bins > 0, "calibration_error", "expected at least 1 bin, got {}", bins);
  check(answers.size() > 0, "calibration_error", "expected at least one example, got none");
  std::vector<double> gap(static_cast<size_t>(bins));  // of each bin, right answers - sum of confidences
  for (int64_t i = 0; i < answers.size(); ++i) {
    const double confidence = answers.confidence[static_cast<size_t>(i)];
    const auto bin = static_cast<int64_t>(std::ceil(confidence * static_cast<double>(bins))) - 1;
    gap[static_cast<size_t>(std::clamp<int64_t>(bin, 0, bins - 1))] += (answers.is_right(i) ? 1 : 0) - confidence;
  }
  double sum = 0;
  for (double g : gap) sum += std::abs(g);
  return sum / static_cast<double>(answers.size());
}

double mcnemar_p(int64_t only_first, int64_t only_second) {
  check(only_first >= 0 && only_second >= 0, "mcnemar", "expected counts from 0, got {} and {}", only_first,
        only_second);
  // Twice the lower tail of Binomial(n, 1/2), by logarithms: 2^-n is 0 in double from 1075 on.
  const auto n = static_cast<double>(only_first + only_second);
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_first, only_second); ++k) {
    const auto i = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

int64_t AnswerChanges::worst_class() const {
  int64_t worst = -1;
  double most = 0;
  for (size_t c = 0; c < classes.size(); ++c)
    if (const double lost = classes[c].before - classes[c].after; lost > most) {
      most = lost;
      worst = static_cast<int64_t>(c);
    }
  return worst;
}

AnswerChanges changes(const Answers& before, const Answers& after, int64_t num_classes) {
  check(before.labels == after.labels, "changes",
        "expected answers to the same examples, got {} and {} with other labels", before.size(), after.size());
  AnswerChanges result;
  result.classes.resize(static_cast<size_t>(num_classes));
  for (int64_t i = 0; i < before.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t label = before.labels[at];
    check(label >= 0 && label < num_classes, "changes", "expected labels in [0,{}), got {}", num_classes, label);
    const bool was = before.is_right(i), is = after.is_right(i);
    ClassChange& of_class = result.classes[static_cast<size_t>(label)];
    ++of_class.examples;
    of_class.before += was ? 1 : 0;
    of_class.after += is ? 1 : 0;
    if (before.classes[at] != after.classes[at])
      (was ? result.broken : is ? result.repaired : result.moved).push_back(i);
  }
  for (ClassChange& c : result.classes) {
    const auto examples = static_cast<double>(std::max<int64_t>(c.examples, 1));
    c.before /= examples;
    c.after /= examples;
  }
  const auto more_confident = [&](int64_t a, int64_t b) {
    return after.confidence[static_cast<size_t>(a)] > after.confidence[static_cast<size_t>(b)];
  };
  std::stable_sort(result.broken.begin(), result.broken.end(), more_confident);
  std::stable_sort(result.repaired.begin(), result.repaired.end(), more_confident);
  result.p = mcnemar_p(static_cast<int64_t>(result.broken.size()), static_cast<int64_t>(result.repaired.size()));
  return result;
}

}  // namespace espalier
