// SeedRun: one seed of a recipe on its way through the stages, as they see it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "pipeline/model_report.h"
#include "pipeline/recipe.h"
#include "pruning/structure/compact.h"
#include "training/answers.h"

namespace espalier {

/// How a run goes about it; nothing of this changes its result, but for the device's rounding.
struct RunOptions {
  std::string command = "run";  ///< who runs it: "run", "prune", "distill"
  std::string out;              ///< the run's folder
  bool make_new = false;        ///< take the first of OUT, OUT-2, OUT-3, ... that is free
  bool resume = false, overwrite = false;
  Device device = Device::cpu();
  std::function<void(const std::string&)> say = {};  ///< gets lines for people
  /// Gets warnings, which matter to whoever wants no other lines; default: say.
  std::function<void(const std::string&)> warn = {};
  std::function<void(TrainerOptions&)> show_progress = {};
};

/// A line for people.
template <class... Args>
void say(const RunOptions& options, fmt::format_string<Args...> text, Args&&... args) {
  if (options.say) options.say(fmt::format(text, std::forward<Args>(args)...));
}
/// A warning.
template <class... Args>
void warn(const RunOptions& options, fmt::format_string<Args...> text, Args&&... args) {
  const auto& gets = options.warn ? options.warn : options.say;
  if (gets) gets(fmt::format(text, std::forward<Args>(args)...));
}

/// What one seed gave. The test set is looked at twice: after the first training stage and at the end.
struct SeedResult {
  uint64_t seed = 0;
  std::string folder;
  std::optional<ModelReport> before;  ///< of the network that a run starts from, or that its first training stage left
  ModelReport after;
  std::string before_file = {};               ///< where `before` is
  std::optional<AnswerChanges> changes = {};  ///< of the answers to the test set, where there is a `before`
  std::vector<std::string> class_names = {};
  std::optional<MetricValue> validation = {};  ///< the final network's primary metric; choices are made by it
  double seconds = 0;
};
nlohmann::json to_json(const SeedResult& result);

class SeedRun {
 public:
  /// FOLDER/STAGE/ for each stage, FOLDER/model.safetensors at the end.
  SeedRun(const Recipe& recipe, uint64_t seed, const Splits& data, std::string folder, const RunOptions& options);

  /// Goes through the stages with a network that nobody trains, and writes nothing. Ends with the first stage whose
  /// masks only its training knows. Throws what the stages would throw after hours.
  void rehearse();
  /// Nothing when it was interrupted. With `resume` finished stages are read back and a half-finished one goes on, to
  /// the same bits.
  std::optional<SeedResult> run();

  // --- what stages work on
  const ModulePtr& network() const { return network_; }
  /// Another network takes over, on the run's device.
  void set_network(ModulePtr network);
  /// Which indices of the original the network's last compaction left.
  IndexMap& index_map() { return index_map_; }
  /// How the network was trained last, as JSON that its file keeps; "": unknown.
  std::string& settings() { return settings_; }
  const Dataset& train() const { return train_; }
  const Dataset& validation() const { return validation_; }
  /// Training and validation images together from now on: nothing is left to choose by.
  void include_validation();
  /// What goes into the network once (Dataset::example), on the run's device.
  const Bundle& example() const { return example_; }

  const Recipe& recipe() const { return recipe_; }
  const RunOptions& options() const { return options_; }
  uint64_t seed() const { return seed_; }

  // --- networks and files
  /// A fresh one of the zoo for the run's images.
  ModulePtr zoo_network(const std::string& name) const;
  /// The network as it is ("start"), as an earlier stage left it, or of a file or run; in evaluation mode.
  ModulePtr find_network(const std::string& name) const;
  std::string folder_of(const Stage& stage) const { return folder_ + "/" + stage.name; }
  std::string network_file_of(const Stage& stage) const;
  /// The network with what is known of its data, training and compaction.
  void save_network(const std::string& path) const;

  // --- what people are told
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    espalier::say(options_, text, std::forward<Args>(args)...);
  }
  /// To those who want no other lines, too.
  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) const {
    espalier::warn(options_, text, std::forward<Args>(args)...);
  }
  void say_sparsity(const SparsityCount& count) const;
  void say_what_is_left(const std::vector<Site>& sites, int64_t min_units) const;
  void warn_of_collapses(const std::vector<Site>& sites, int64_t min_units) const;

 private:
  void begin();
  ModelReport report(const std::string& file) const;
  bool read_back(Stage& stage);
  void save(const Stage& stage) const;

  Recipe recipe_;
  uint64_t seed_;
  std::string folder_;
  RunOptions options_;
  Dataset all_, train_, validation_, test_;  ///< all_: training and validation images
  Bundle example_;
  ModulePtr network_;
  std::map<std::string, ModulePtr> rehearsed_;  ///< what stages left, while nothing is trained
  IndexMap index_map_;
  std::string settings_;  ///< of the network's last training, as JSON; "": unknown
};

}  // namespace espalier
