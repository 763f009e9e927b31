// What changed between two networks, as `espalier diff` shows it: answers, calibration, corrupted images, removed
// units.
#pragma once

#include <string>
#include <vector>

#include "pipeline/model_file.h"
#include "training/answers.h"

namespace espalier {

/// One network and its answers to the images of a test set.
struct DiffSide {
  ModelFile file;
  Answers answers;
  double calibration_error = 0;   ///< in 15 bins, as in Guo et al. 2017
  int64_t weights = 0, left = 0;  ///< of parameters of two axes or more: all, and those that are not masked
  int64_t bytes = 0;              ///< of its file
};

/// How both fare on images with one corruption; "none": without.
struct CorruptionDiff {
  std::string name;
  double before = 0, after = 0;  ///< accuracies
  double p = 1;                  ///< McNemar's
};
struct CorruptedDiff {
  int64_t images = 0;
  std::vector<CorruptionDiff> corruptions;
  double mean_before = 0, mean_after = 0;  ///< over the corruptions, without "none"
};

struct DiffOptions {
  std::string data = {}, data_dir = {};  ///< "": what the networks were trained on
  EvaluateOptions evaluate = {};
  int64_t corrupted = 0;  ///< images to corrupt in every way, an equal share of each class
  uint64_t seed = 0;      ///< of the corruptions
};

struct NetworkDiff {
  static constexpr int64_t kBins = 15;
  Dataset test;
  DiffSide before, after;
  AnswerChanges changes;
  CorruptedDiff corrupted;
};
/// Of the networks of model files or runs. Throws when they tell other classes apart, or take other images.
NetworkDiff diff_networks(const std::string& before, const std::string& after, const DiffOptions& options = {});

/// The records (pruning/removals.h) of the stages that pruned a network, in the recipe's order: beside its file, or in
/// the folders of its run's stages. Other folders may be of an older run.
std::vector<std::string> removal_records_of(const std::string& model);

}  // namespace espalier
