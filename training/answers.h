// What a network answers to every example of a data set, and how the answers of two networks differ.
#pragma once

#include <cstdint>
#include <vector>

#include "datasets/dataset.h"
#include "layers/module.h"
#include "training/evaluate.h"

namespace espalier {

/// The answers to N examples, in their order.
struct Answers {
  std::vector<int64_t> labels;     ///< the true classes
  std::vector<int64_t> classes;    ///< the classes of the highest output, the first one on ties
  std::vector<double> confidence;  ///< the softmax of the chosen class, in (0,1]

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  bool is_right(int64_t i) const { return classes[static_cast<size_t>(i)] == labels[static_cast<size_t>(i)]; }
  int64_t correct() const;
  double accuracy() const;
};

/// Runs the network over the data in evaluation mode, without gradients; `options.loss` has no part in it. Throws if
/// the outputs are not (N, number of classes), and NumericError if one is not finite.
Answers answers(Module& module, const Dataset& dataset, const EvaluateOptions& options = {});

/// The expected calibration error (Naeini et al. 2015; Guo et al. 2017): examples go into `bins` bins by confidence,
/// bin b holding those in (b/bins, (b+1)/bins]; the result is the mean over all examples of |accuracy - mean
/// confidence| of their bin. A network that is right in 80 % of the cases in which it says 80 % has 0.
double calibration_error(const Answers& answers, int64_t bins = 15);

/// McNemar's test, exact and two-sided, of whether two classifiers are equally good: of the examples that only one of
/// them has right, `only_first` and `only_second`, each is a fair coin if they are. Returns the probability of a split
/// at least as uneven; 1 when both counts are 0.
double mcnemar_p(int64_t only_first, int64_t only_second);

/// How one class fared.
struct ClassChange {
  int64_t examples = 0;
  double before = 0, after = 0;  ///< the share of its examples that was right
};

/// The examples that two networks answer differently.
struct AnswerChanges {
  std::vector<int64_t> broken;    ///< right before, wrong after; the most confident mistake first
  std::vector<int64_t> repaired;  ///< wrong before, right after; the most confident answer first
  std::vector<int64_t> moved;     ///< wrong before and after, with another answer; in their order
  double p = 1;                   ///< McNemar's, of `broken` against `repaired`
  std::vector<ClassChange> classes;

  int64_t changed() const { return static_cast<int64_t>(broken.size() + repaired.size() + moved.size()); }
  /// The class that lost the largest share of its examples, the first one on ties; -1 when no class lost any.
  int64_t worst_class() const;
};

/// Compares the answers of two networks to the same examples of `num_classes` classes. Throws when the labels differ.
AnswerChanges changes(const Answers& before, const Answers& after, int64_t num_classes);

}  // namespace espalier
