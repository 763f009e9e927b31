// Recipes: what a run does, stage by stage, as a TOML file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/schedules/gradual.h"
#include "tools/train_settings.h"

namespace espalier::tools {

/// Which units a stage removes, and by what they are judged.
struct UnitSettings {
  std::string pattern = "element";       ///< a Pattern, or "channels": groups of coupled channels
  std::vector<std::string> inputs = {};  ///< with "channels": weights whose input features are pruned as well
  std::string criterion = "magnitude";   ///< of make_criterion; for "prune" also "movement"
  std::string scope = "global";          ///< the default of "channels" is "layer"
  std::vector<std::string> protect = {};
  bool normalize = false;
  int64_t min_units = 1, round_to = 1;
  int64_t batches = 8;  ///< of 128 images, for criteria that look at data
};

/// What a stage of type "prune" removes, and when.
struct PruneSettings {
  double sparsity = 0;      ///< of the prunable weights, at the end
  std::string budget = {};  ///< instead of it "parameters", "macs", "bytes" or "milliseconds"
  double amount = 0;        ///< of the budget; below 1: a share of what the network has (not for milliseconds)
  std::string rank_by = "score-per-cost";  ///< by what a budget puts units in order; or "score"
  UnitSettings units = {};
  std::string curve = "cubic";
  double begin = 0, end = 0.7;  ///< in which share of the stage's training the sparsity rises
  int64_t every = 0;            ///< steps between prunings; 0: about a hundred in all
  bool regrow = false;
  bool update = false;  ///< woodfisher, at once: the weights that remain make up for those that go
  std::map<std::string, double> sparsity_of = {};
};

/// What a stage of type "regrow" brings back: units with the largest dense gradients.
struct RegrowSettings {
  double share = 0.1;  ///< of the removed units
  std::string pattern = "element";
  std::vector<std::string> protect = {};  ///< layers that get nothing back
  int64_t batches = 8;                    ///< of 128 images
};

/// What a stage of type "lottery" does: train, prune, go back to early weights, train again what is left.
struct LotterySettings {
  int64_t rounds = 10;
  double rate = 0.2, output_rate = 0.5;  ///< of the remaining weights; the last layer loses output_rate * rate
  std::map<std::string, double> rate_of = {};
  int64_t rewind_to = 0;  ///< step of the first training; 0: the initial weights
  std::string pattern = "element", criterion = "magnitude", scope = "layer";
};

/// What a stage of type "adaptive" does: prune and retrain as long as the validation loss allows.
struct AdaptiveSettings {
  UnitSettings units = {};
  double step = 0.5, smallest_step = 0.05;  ///< share of the remaining weights that a round removes
  double tolerance = 0.02;                  ///< how much the validation loss may rise
  double retrain = 0.3;                     ///< the last share of the training that follows each round
  double largest_sparsity = 0.999;
  int64_t rounds = 50;
};

/// What a stage of type "learned-masks" does: a score for every unit is trained with the weights.
struct LearnedMaskSettings {
  std::string selection = "top-k";  ///< or "threshold"
  std::string initial = "zero";     ///< scores at the start; or "magnitude"
  double sparsity = 0.9;            ///< top-k
  double threshold = 0, penalty = 0;
  std::string curve = "cubic";
  double begin = 0, end = 0.5, harden = 0.8;
  int64_t every = 10;
  std::string pattern = "element", scope = "global";
  std::vector<std::string> protect = {};
  int64_t min_units = 1;
};

/// What a stage of type "l0" does: every unit has a random gate, and open gates cost something.
struct GateSettings {
  double lambda = 0.1, open = 0.9, harden = 0.8;
  std::string pattern = "element";
  std::vector<std::string> protect = {};
  int64_t min_units = 1;
};

/// What a stage of type "variational" does: weights learn how much noise they bear, and those that bear any amount go.
struct VariationalSettings {
  double kl_weight = 1, warmup = 0.2;  ///< of the penalty; warm-up as a share of the training
  double initial_log_sigma2 = -8, threshold = 3;
};

/// What a stage of type "sparse-training" does: sparse from the first step, with connections that move.
struct SparseTrainingSettings {
  double sparsity = 0.9;
  std::string growth = "gradient", scope = "erk";
  double fraction = 0.3, end = 0.75;
  int64_t every = 100;
  std::string pattern = "element";
  std::vector<std::string> protect = {};
  int64_t min_units = 1;
};

/// What a stage of type "surgery" does: weights are cut and spliced back.
struct SurgerySettings {
  double c = 1, harden = 0.7;
  std::map<std::string, double> c_of = {};
  std::string pattern = "element";
  std::vector<std::string> protect = {};
  int64_t min_units = 1;
};

/// A [[stage.term]]: what a student learns from a teacher besides its answers.
struct TermSettings {
  std::string type;              ///< one of term_types()
  std::string student, teacher;  ///< layers; "" the networks' outputs (relational-... only)
  double weight = 1;
};

/// Learning from another network while a stage trains.
struct DistillSettings {
  std::string teacher;  ///< "start" (the network before this stage), the name of an earlier stage, a model file or run
  double temperature = 4, alpha = 0.7;
  std::vector<TermSettings> terms = {};
};

struct Stage {
  std::string type;   ///< one of stage_types()
  std::string name;   ///< "1-train" unless given
  std::string model;  ///< teacher: the network that is trained beside; distill: the one that takes over; of the zoo
  TrainSettings train{};
  bool trains = false;    ///< has epochs
  bool keep_best = true;  ///< the best epoch by validation after the schedule's end, if there is validation data
  bool include_validation = false;  ///< train: on the validation images as well, which from then on choose nothing
  std::string reference;            ///< compensate, reconstruct: the stage whose outputs are to be had again
  double slimming = 0;              ///< train: strength of the penalty on BatchNorm scales
  int64_t drop = 0;                 ///< blocks: how many residual blocks go
  std::optional<PruneSettings> prune = {};
  std::optional<RegrowSettings> regrow = {};
  std::optional<VariationalSettings> variational = {};
  std::optional<SparseTrainingSettings> sparse_training = {};
  std::optional<SurgerySettings> surgery = {};
  std::optional<LotterySettings> lottery = {};
  std::optional<AdaptiveSettings> adaptive = {};
  std::optional<LearnedMaskSettings> learned_masks = {};
  std::optional<GateSettings> gates = {};
  std::optional<DistillSettings> distill = {};
};

/// "train", "teacher", "prune", "lottery", "adaptive", "learned-masks", "l0", "variational", "sparse-training",
/// "surgery", "distill", "blocks", "regrow", "recalibrate", "compensate", "reconstruct", "compact".
const std::vector<std::string>& stage_types();
/// "hint", "attention", "relational-distance", "relational-angle".
const std::vector<std::string>& term_types();
/// Whether stages of that type train, and so take the keys of a training.
bool is_training(const std::string& stage_type);

struct Recipe {
  std::string source;  ///< the file, for messages
  std::string title;
  std::string model, data, data_dir;
  std::string start;        ///< a model file or run to start from; "": a fresh network of the zoo
  double validation = 0.1;  ///< share of the training images; with `start` what that network was not trained on
  /// Which images are set aside: the seed of the split; nothing: that of the run.
  std::optional<uint64_t> validation_seed = {};
  uint64_t seed = 0;
  int64_t seeds = 1;
  std::vector<Stage> stages;
};

/// Throws FileError or ArgumentError with file and line, what was expected and the known keys.
/// `data`: a data set in place of the recipe's; "": its own.
Recipe load_recipe(const std::string& path, const std::string& data = "");
/// The same from text; `source` stands in messages.
Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data = "");
/// The recipe with everything that it left to defaults: what a run saves.
std::string to_toml(const Recipe& recipe);

/// What of it decides the result, as JSON.
nlohmann::json identity_of(Recipe recipe);

/// What the recipes' command line counterparts say: one stage as text for people.
std::string describe(const Stage& stage);

/// Whether no image of the validation set was among those that the network `start` was trained on, as far as its file
/// tells; true without a `start`.
bool validates_on_unseen_images(const Recipe& recipe);

}  // namespace espalier::tools
