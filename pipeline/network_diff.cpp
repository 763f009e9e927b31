#include "pipeline/network_diff.h"

#include <filesystem>

#include "core/text.h"
#include "datasets/corruptions.h"
#include "pipeline/recipe.h"
#include "pipeline/run_places.h"

namespace espalier {

namespace {

namespace fs = std::filesystem;

/// Of `data`, or what the first network that knows it was trained on.
Dataset test_set(const DiffOptions& options, const ModelFile& before, const ModelFile& after) {
  if (before.data && after.data)
    check(before.data->classes == after.data->classes, "diff",
          "{} and {} have other classes ({} of {}, {} of {}): their answers can't be compared", before.path, after.path,
          before.data->classes.size(), printable(before.data->name), after.data->classes.size(),
          printable(after.data->name));
  std::string name = options.data;
  for (const ModelFile* file : {&after, &before})
    if (name.empty() && file->data) name = file->data->name;
  check(!name.empty(), "diff", "{} doesn't say what it was trained on; add --data NAME", after.path);
  Dataset test = load_dataset(name, {.data_dir = options.data_dir}).test;
  check(test.is_classification(), "diff",
        "{} asks for no class, so there are no answers to compare; espalier compare shows both networks' metrics",
        name);
  return test;
}

void measure_side(DiffSide& side, const Dataset& test, const EvaluateOptions& how) {
  side.answers = answers(*side.file.module, seen_by("diff", side.file, test), how);
  side.calibration_error = calibration_error(side.answers, NetworkDiff::kBins);
  for (const Parameter& parameter : side.file.module->parameters()) {
    if (parameter.shape().rank() < 2) continue;
    side.weights += parameter.numel();
    side.left += parameter.mask().defined() ? parameter.mask().count_elements() : parameter.numel();
  }
  side.bytes = static_cast<int64_t>(fs::file_size(side.file.path));
}

/// Both networks see the same corrupted images.
CorruptedDiff diff_corrupted(const NetworkDiff& diff, const DiffOptions& options) {
  CorruptedDiff result;
  if (options.corrupted == 0) return result;
  Dataset images = diff.test;
  if (options.corrupted < images.size())
    images = split_validation(images, static_cast<double>(options.corrupted), options.seed).validation;
  result.images = images.size();
  const Tensor clean = images.images;
  const auto add = [&](const std::string& name) {
    const Answers a = answers(*diff.before.file.module, seen_by("diff", diff.before.file, images), options.evaluate);
    const Answers b = answers(*diff.after.file.module, seen_by("diff", diff.after.file, images), options.evaluate);
    result.corruptions.push_back({name, a.accuracy(), b.accuracy(), changes(a, b, images.num_classes()).p});
  };
  add("none");
  const auto count = static_cast<double>(corruptions().size());
  for (const CorruptionInfo& corruption : corruptions()) {
    images.images = corrupt(clean, corruption.name, options.seed);
    add(corruption.name);
    result.mean_before += result.corruptions.back().before / count;
    result.mean_after += result.corruptions.back().after / count;
  }
  return result;
}

}  // namespace

NetworkDiff diff_networks(const std::string& before, const std::string& after, const DiffOptions& options) {
  check(options.corrupted >= 0, "diff", "expected corrupted of at least 0, got {}", options.corrupted);
  NetworkDiff diff;
  diff.before.file = open_model(find_model(before));
  diff.after.file = open_model(find_model(after));
  diff.test = test_set(options, diff.before.file, diff.after.file);
  for (DiffSide* side : {&diff.before, &diff.after}) measure_side(*side, diff.test, options.evaluate);
  diff.changes = changes(diff.before.answers, diff.after.answers, diff.test.num_classes());
  diff.corrupted = diff_corrupted(diff, options);
  return diff;
}

std::vector<std::string> removal_records_of(const std::string& model) {
  const fs::path folder = fs::path(model).parent_path();
  std::error_code error;
  if (fs::exists(folder / kRemovalsFile, error)) return {(folder / kRemovalsFile).string()};
  fs::path recipe = folder / kRecipeIdentity;
  // The recipe of several seeds is in the folder around theirs.
  const fs::path whole = fs::absolute(model, error).lexically_normal().parent_path();
  if (!fs::exists(recipe, error) && whole.filename().string().starts_with("seed-"))
    recipe = whole.parent_path() / kRecipeIdentity;
  std::vector<std::string> paths;
  if (!fs::exists(recipe, error)) return paths;
  for (const RecipeOutline::Entry& stage : outline_of(recipe.string()).stages)
    if (const fs::path file = folder / stage.name / kRemovalsFile; fs::exists(file, error))
      paths.push_back(file.string());
  return paths;
}

}  // namespace espalier
