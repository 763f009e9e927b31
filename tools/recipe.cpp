#include "tools/recipe.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "layers/models/zoo.h"
#include "pruning/budget.h"
#include "pruning/schedules/sparse_training.h"
#include "tools/model_file.h"
#include "tools/recipe_reader.h"
#include "tools/toml_text.h"
#include "training/run_folder.h"

namespace espalier::tools {

namespace {

void read_training(TableReader& reader, const Recipe& recipe, Stage& stage) {
  TrainFlags flags;
  flags.model = stage.model.empty() ? recipe.model : stage.model;
  if (stage.model.empty())  // another network has taken over
    for (const Stage& earlier : recipe.stages)
      if (earlier.type == "distill") flags.model = earlier.model;
  flags.data = recipe.data;
  flags.data_dir = recipe.data_dir;
  reader.read("epochs", flags.epochs);
  reader.read("batch_size", flags.batch_size);
  reader.read("optimizer", flags.optimizer);
  reader.read("lr", flags.lr);
  reader.read("momentum", flags.momentum);
  reader.read("nesterov", flags.nesterov);
  reader.read("weight_decay", flags.weight_decay);
  reader.read("schedule", flags.schedule);
  reader.read("warmup", flags.warmup);
  reader.read("label_smoothing", flags.label_smoothing);
  reader.read("clip", flags.clip);
  reader.read("augment", flags.augment);
  reader.read("checkpoint_every", flags.checkpoint_every);
  // Variational layers have no final masks before the stage ends.
  std::string keep = stage.type == "variational" ? "last" : "best";
  reader.read("keep", keep);
  if (keep != "best" && keep != "last")
    reader.fail_here(fmt::format("expected keep = \"best\" or \"last\", got \"{}\"", keep));
  if (stage.type == "train") reader.read("include_validation", stage.include_validation);
  for (const Stage& earlier : recipe.stages)
    if (earlier.include_validation && !stage.include_validation)
      reader.fail_here(
          fmt::format("stage '{}' trained on the validation images, by which nothing can be chosen any more; "
                      "expected include_validation in the last training stages only",
                      earlier.name));
  stage.keep_best = keep == "best" && recipe.validation > 0 && !stage.include_validation;
  stage.trains = !flags.epochs || *flags.epochs > 0;
  const bool watches = stage.prune && stage.prune->units.criterion == "movement";
  const bool own_way = stage.variational || stage.sparse_training || stage.surgery || stage.lottery || stage.adaptive ||
                       stage.learned_masks || stage.gates;
  if (!stage.trains && (own_way || watches || stage.slimming > 0))
    reader.fail_here(fmt::format("a {} stage works while it trains; expected epochs of at least 1, got 0", stage.type));
  if (stage.trains && stage.prune && stage.prune->update)
    reader.fail_here("the update follows a pruning at once; expected epochs = 0, then a stage that trains");
  if (!stage.trains) flags.epochs = 1;
  stage.train = resolve(flags, nlohmann::json());
  if (!stage.trains) stage.train.epochs = 0;
}

void read_distillation(TableReader& reader, Stage& stage) {
  DistillSettings distill;
  const std::optional<std::string> teacher = reader.get<std::string>("teacher");
  const std::optional<double> temperature = reader.get<double>("temperature"), alpha = reader.get<double>("alpha");
  if (!teacher && stage.type != "distill") {
    if (temperature || alpha) reader.fail_here("temperature and alpha belong to a teacher; add teacher = \"start\"");
    return;
  }
  distill.teacher = teacher.value_or("start");
  distill.temperature = temperature.value_or(distill.temperature);
  distill.alpha = alpha.value_or(distill.alpha);
  if (!(distill.temperature > 0)) reader.fail_here(fmt::format("expected a temperature > 0, got {}", *temperature));
  reader.expect_share("alpha", distill.alpha);
  stage.distill = distill;
}

void read_terms(TableReader& reader, const Recipe& recipe, Stage& stage) {
  for (const toml::table* table : reader.tables("term")) {
    TableReader term_reader(*table, recipe.source, "a term");
    TermSettings term;
    term_reader.read("type", term.type);
    if (std::find(term_types().begin(), term_types().end(), term.type) == term_types().end())
      term_reader.fail_here(fmt::format("expected a term with type = {}, got \"{}\"{}", fmt::join(term_types(), ", "),
                                        term.type, did_you_mean(term.type, term_types())));
    term_reader.read("student", term.student);
    term_reader.read("teacher", term.teacher);
    term_reader.read("weight", term.weight);
    term_reader.finish();
    const bool relational = term.type.starts_with("relational");
    if (term.student.empty() != term.teacher.empty() || (term.student.empty() && !relational))
      term_reader.fail_here(fmt::format(
          "a term of type {} compares two layers: expected student = \"fc1\", teacher = \"fc1\"{}, got \"{}\", \"{}\"",
          term.type, relational ? ", or neither for the outputs" : "", term.student, term.teacher));
    if (!(term.weight >= 0)) term_reader.fail_here(fmt::format("expected a weight of at least 0, got {}", term.weight));
    if (!stage.distill) term_reader.fail_here("terms belong to a teacher; add teacher = \"start\" to the stage");
    if (term.type == "hint" && (stage.lottery || stage.adaptive))
      term_reader.fail_here(
          fmt::format("a hint trains a projection along, and a {} stage trains many times; use attention or relational "
                      "terms",
                      stage.type));
    stage.distill->terms.push_back(term);
  }
}

void check_pattern(TableReader& reader, const std::string& pattern, const std::vector<std::string>& inputs = {}) {
  if (pattern == "channels") return;
  try {
    Pattern::parse(pattern);
  } catch (const ArgumentError& error) {
    reader.fail_here(fmt::format("pattern: {}; or 'channels', coupled channels of all layers{}", error.what(),
                                 did_you_mean(pattern, {"channels", "element", "kernel", "recurrent"})));
  }
  if (!inputs.empty()) reader.fail_here("inputs belong to pattern = \"channels\"");
}

/// What a pattern removes whatever the sparsity: "2 of 4" half.
double least_sparsity(const std::string& name) {
  if (name == "channels") return 0;
  const Pattern pattern = Pattern::parse(name);
  if (pattern.kind() != Pattern::Kind::n_of_m) return 0;
  return 1 - static_cast<double>(pattern.first()) / static_cast<double>(pattern.second());
}

/// For what judges units apart from the rest of a layer.
void check_units_are_free(TableReader& reader, const std::string& pattern) {
  if (least_sparsity(pattern) > 0)
    reader.fail_here(fmt::format("units come and go one by one, so that the pattern \"{}\" can't be kept", pattern));
}

void read_units(TableReader& reader, UnitSettings& units) {
  reader.read("pattern", units.pattern);
  reader.read("inputs", units.inputs);
  reader.read("criterion", units.criterion);
  // Scores of channels of different layers don't compare: globally, whole layers go (docs/results.md, Budgets).
  if (units.pattern == "channels") units.scope = name_of(Scope::layer);
  reader.read("scope", units.scope);
  reader.read("protect", units.protect);
  reader.read("normalize", units.normalize);
  reader.read("min_units", units.min_units);
  reader.read("round_to", units.round_to);
  reader.read("batches", units.batches);
  if (units.round_to < 1 || units.batches < 1)
    reader.fail_here(
        fmt::format("expected round_to and batches of at least 1, got {} and {}", units.round_to, units.batches));
  check_pattern(reader, units.pattern, units.inputs);
  if (units.criterion != "movement") make_criterion(units.criterion);
  parse_scope(units.scope);
}

void read_pruning(TableReader& reader, Stage& stage) {
  PruneSettings prune;
  const std::optional<double> sparsity = reader.get<double>("sparsity"), ratio = reader.get<double>("ratio");
  int given = (sparsity ? 1 : 0) + (ratio ? 1 : 0);
  for (const BudgetKind kind :
       {BudgetKind::parameters, BudgetKind::macs, BudgetKind::bytes, BudgetKind::milliseconds}) {
    const std::optional<double> amount = reader.get<double>(name_of(kind));
    if (!amount) continue;
    ++given;
    prune.budget = name_of(kind);
    prune.amount = *amount;
    if (!(*amount > 0)) reader.fail_here(fmt::format("expected {} above 0, got {}", prune.budget, *amount));
  }
  if (given != 1)
    reader.fail_here(
        "expected either sparsity (0.9: 90 % of the weights go), ratio (10: a tenth stays), or a budget: parameters, "
        "macs, bytes (0.5: half of what there is) or milliseconds");
  if (const std::optional<std::string> rank_by = reader.get<std::string>("rank_by")) {
    if (prune.budget.empty()) reader.fail_here("rank_by belongs to a budget: parameters, macs, bytes or milliseconds");
    parse_ranking(prune.rank_by = *rank_by);
  }
  if (sparsity) prune.sparsity = *sparsity;
  if (ratio) prune.sparsity = 1 - 1 / *ratio;
  if (!(prune.sparsity >= 0 && prune.sparsity < 1))
    reader.fail_here(
        fmt::format("expected a sparsity in [0,1) or a ratio of at least 1, got {}", sparsity ? *sparsity : *ratio));
  read_units(reader, prune.units);
  if (const double least = least_sparsity(prune.units.pattern); prune.budget.empty() && prune.sparsity < least)
    reader.fail_here(
        fmt::format("pattern \"{}\": expected a sparsity of at least {:.4g}, which it removes at once, got {}",
                    prune.units.pattern, least, prune.sparsity));
  reader.read("curve", prune.curve);
  reader.read("begin", prune.begin);
  reader.read("end", prune.end);
  reader.read("every", prune.every);
  reader.read("regrow", prune.regrow);
  reader.read("update", prune.update);
  if (prune.update && prune.units.criterion != "woodfisher")
    reader.fail_here(
        fmt::format("the update belongs to criterion = \"woodfisher\", got \"{}\"", prune.units.criterion));
  reader.read("sparsity_of", prune.sparsity_of);
  for (const auto& [name, value] : prune.sparsity_of)
    if (!(value >= 0 && value < 1))
      reader.fail_here(fmt::format("sparsity_of: expected a sparsity in [0,1) for '{}', got {}", name, value));
  parse_sparsity_curve(prune.curve);
  GradualPruning::check_options(
      {.sparsity = prune.sparsity, .begin = prune.begin, .end = prune.end, .every = prune.every});
  if (prune.units.criterion == "movement") {
    if (!prune.budget.empty())
      reader.fail_here("movement knows nothing before the training; expected a sparsity or ratio, got a budget");
    if ((prune.curve == "one-shot" ? prune.begin : prune.end) == 0)
      reader.fail_here("movement knows nothing before the training; expected an end above 0 (one-shot: a begin)");
  }
  stage.prune = prune;
}

void read_regrowth(TableReader& reader, Stage& stage) {
  RegrowSettings s;
  reader.read("share", s.share);
  reader.read("pattern", s.pattern);
  reader.read("protect", s.protect);
  reader.read("batches", s.batches);
  reader.expect_share("share", s.share);
  if (s.batches < 1) reader.fail_here(fmt::format("expected batches of at least 1, got {}", s.batches));
  check_pattern(reader, s.pattern);
  check_units_are_free(reader, s.pattern);
  stage.regrow = s;
}

LotterySettings read_lottery(TableReader& reader) {
  LotterySettings s;
  reader.read("rounds", s.rounds);
  reader.read("rate", s.rate);
  reader.read("output_rate", s.output_rate);
  reader.read("rate_of", s.rate_of);
  reader.read("rewind_to", s.rewind_to);
  reader.read("pattern", s.pattern);
  reader.read("criterion", s.criterion);
  reader.read("scope", s.scope);
  if (s.rounds < 1) reader.fail_here("expected rounds >= 1, got 0");
  if (!(s.rate > 0 && s.rate < 1))
    reader.fail_here(
        fmt::format("expected a rate in (0,1), the share of the remaining weights that goes, got {}", s.rate));
  const double last = s.rate * s.output_rate;
  if (!(last >= 0 && last < 1)) reader.fail_here(fmt::format("expected rate * output_rate in [0,1), got {}", last));
  for (const auto& [name, rate] : s.rate_of)
    if (!(rate >= 0 && rate < 1))
      reader.fail_here(fmt::format("rate_of: expected a rate in [0,1) for '{}', got {}", name, rate));
  check_pattern(reader, s.pattern);
  make_criterion(s.criterion);
  if (parse_scope(s.scope) == Scope::erk)
    reader.fail_here(
        "rounds remove shares by layer or globally; expected scope = \"layer\" or \"global\", got \"erk\"");
  if (!s.rate_of.empty() && parse_scope(s.scope) != Scope::layer)
    reader.fail_here(
        fmt::format("rate_of gives layers rates of their own; expected scope = \"layer\", got \"{}\"", s.scope));
  return s;
}

AdaptiveSettings read_adaptive(TableReader& reader, const Recipe& recipe) {
  AdaptiveSettings s;
  read_units(reader, s.units);
  make_criterion(s.units.criterion);  // not movement
  reader.read("step", s.step);
  reader.read("smallest_step", s.smallest_step);
  reader.read("tolerance", s.tolerance);
  reader.read("retrain", s.retrain);
  reader.read("largest_sparsity", s.largest_sparsity);
  reader.read("rounds", s.rounds);
  if (!(s.smallest_step > 0 && s.smallest_step <= s.step && s.step < 1))
    reader.fail_here(fmt::format("expected 0 < smallest_step <= step < 1, got {} and {}", s.smallest_step, s.step));
  if (!(s.tolerance >= 0)) reader.fail_here(fmt::format("expected a tolerance of at least 0, got {}", s.tolerance));
  if (!(s.retrain > 0 && s.retrain <= 1))
    reader.fail_here(fmt::format("expected retrain in (0,1], a share of the training, got {}", s.retrain));
  if (!(s.largest_sparsity > 0 && s.largest_sparsity < 1))
    reader.fail_here(fmt::format("expected largest_sparsity in (0,1), got {}", s.largest_sparsity));
  if (recipe.validation == 0)
    reader.fail_here("the validation loss decides in an adaptive stage; expected validation above 0 in the recipe");
  return s;
}

LearnedMaskSettings read_learned_masks(TableReader& reader) {
  LearnedMaskSettings s;
  reader.read("selection", s.selection);
  reader.read("initial", s.initial);
  reader.read("sparsity", s.sparsity);
  reader.read("threshold", s.threshold);
  reader.read("penalty", s.penalty);
  reader.read("curve", s.curve);
  reader.read("begin", s.begin);
  reader.read("end", s.end);
  reader.read("harden", s.harden);
  reader.read("every", s.every);
  reader.read("pattern", s.pattern);
  reader.read("scope", s.scope);
  reader.read("protect", s.protect);
  reader.read("min_units", s.min_units);
  if (s.selection != "top-k" && s.selection != "threshold")
    reader.fail_here(fmt::format("expected selection = \"top-k\" or \"threshold\", got \"{}\"", s.selection));
  if (s.initial != "zero" && s.initial != "magnitude")
    reader.fail_here(fmt::format("expected initial = \"zero\" or \"magnitude\", got \"{}\"", s.initial));
  if (!(s.sparsity >= 0 && s.sparsity < 1))
    reader.fail_here(fmt::format("expected a sparsity in [0,1), got {}", s.sparsity));
  if (!(s.penalty >= 0)) reader.fail_here(fmt::format("expected a penalty of at least 0, got {}", s.penalty));
  if (!(0 <= s.begin && s.begin <= s.end && s.end <= s.harden && s.harden <= 1))
    reader.fail_here(
        fmt::format("expected 0 <= begin <= end <= harden <= 1, got {}, {} and {}", s.begin, s.end, s.harden));
  if (s.every < 1) reader.fail_here("expected every >= 1 steps, got 0");
  parse_sparsity_curve(s.curve);
  parse_scope(s.scope);
  check_pattern(reader, s.pattern);
  if (s.selection == "threshold" && least_sparsity(s.pattern) > 0)
    reader.fail_here(fmt::format(
        "a threshold judges units one by one, so that the pattern \"{}\" can't be kept; expected selection = \"top-k\"",
        s.pattern));
  return s;
}

/// What stages take that judge their units one by one.
template <class Settings>
void read_moving_units(TableReader& reader, Settings& s) {
  reader.read("pattern", s.pattern);
  reader.read("protect", s.protect);
  reader.read("min_units", s.min_units);
  check_pattern(reader, s.pattern);
  check_units_are_free(reader, s.pattern);
}

/// Settings of the stages that bring their own way of pruning.
void read_method(TableReader& reader, const Recipe& recipe, Stage& stage) {
  if (stage.type == "variational") {
    VariationalSettings s;
    reader.read("kl_weight", s.kl_weight);
    reader.read("kl_warmup", s.warmup);
    reader.read("initial_log_sigma2", s.initial_log_sigma2);
    reader.read("threshold", s.threshold);
    if (!(s.kl_weight >= 0)) reader.fail_here(fmt::format("expected a kl_weight >= 0, got {}", s.kl_weight));
    reader.expect_share("kl_warmup", s.warmup);
    stage.variational = s;
  } else if (stage.type == "sparse-training") {
    SparseTrainingSettings s;
    reader.read("sparsity", s.sparsity);
    reader.read("growth", s.growth);
    reader.read("scope", s.scope);
    reader.read("fraction", s.fraction);
    reader.read("end", s.end);
    reader.read("every", s.every);
    read_moving_units(reader, s);
    if (!(s.sparsity >= 0 && s.sparsity < 1))
      reader.fail_here(fmt::format("expected a sparsity in [0,1), got {}", s.sparsity));
    reader.expect_share("fraction", s.fraction);
    reader.expect_share("end", s.end);
    if (s.every < 1) reader.fail_here("expected every >= 1 steps, got 0");
    parse_growth(s.growth);
    if (parse_scope(s.scope) == Scope::global)
      reader.fail_here("random masks have no scores to compare between layers; expected scope = \"erk\" or \"layer\"");
    stage.sparse_training = s;
  } else if (stage.type == "surgery") {
    SurgerySettings s;
    reader.read("c", s.c);
    reader.read("c_of", s.c_of);
    reader.read("harden", s.harden);
    read_moving_units(reader, s);
    if (!(s.harden > 0 && s.harden <= 1)) reader.fail_here(fmt::format("expected harden in (0,1], got {}", s.harden));
    stage.surgery = s;
  } else if (stage.type == "lottery") {
    stage.lottery = read_lottery(reader);
  } else if (stage.type == "adaptive") {
    stage.adaptive = read_adaptive(reader, recipe);
  } else if (stage.type == "learned-masks") {
    stage.learned_masks = read_learned_masks(reader);
  } else if (stage.type == "l0") {
    GateSettings s;
    reader.read("lambda", s.lambda);
    reader.read("open", s.open);
    reader.read("harden", s.harden);
    read_moving_units(reader, s);
    if (!(s.lambda >= 0)) reader.fail_here(fmt::format("expected lambda >= 0, got {}", s.lambda));
    if (!(s.open > 0 && s.open < 1)) reader.fail_here(fmt::format("expected open in (0,1), got {}", s.open));
    if (!(s.harden > 0 && s.harden <= 1)) reader.fail_here(fmt::format("expected harden in (0,1], got {}", s.harden));
    stage.gates = s;
  }
}

/// A network that a recipe starts from chooses no epoch on images that it was trained on: unless the recipe says
/// otherwise the images are set aside that its own training set aside.
void choose_validation(Recipe& recipe, const std::optional<double>& given) {
  if (given) recipe.validation = *given;
  if (recipe.start.empty() || !std::filesystem::exists(recipe.start))
    return;  // what is missing is told when it is to be read
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return;  // other images
  if (!given) recipe.validation = split ? split->share : 0;
  if (split && split->share == recipe.validation && split->share > 0 && !recipe.validation_seed)
    recipe.validation_seed = split->seed;
}

Stage read_stage(const toml::table& table, const Recipe& recipe) {
  Stage stage;
  TableReader reader(table, recipe.source, "a stage");
  const std::optional<std::string> type = reader.get<std::string>("type");
  if (!type || std::find(stage_types().begin(), stage_types().end(), *type) == stage_types().end())
    reader.fail_here(fmt::format("expected a stage with type = {}, got {}{}", fmt::join(stage_types(), ", "),
                                 type ? "\"" + *type + "\"" : "none", type ? did_you_mean(*type, stage_types()) : ""));
  stage.type = *type;
  stage.name = fmt::format("{}-{}", recipe.stages.size() + 1, stage.type);
  reader.read("name", stage.name);
  const bool plain_name = !stage.name.empty() && stage.name.find_first_of("/\\ \t\n.") == std::string::npos;
  if (!plain_name || stage.name == "start")
    reader.fail_here(fmt::format("expected a stage name that can be a folder's, got '{}'", stage.name));
  for (const Stage& earlier : recipe.stages)
    if (earlier.name == stage.name) reader.fail_here(fmt::format("two stages are named '{}'", stage.name));
  try {
    if (stage.type == "distill" || stage.type == "teacher") {
      const std::optional<std::string> model = reader.get<std::string>("model");
      if (!model) reader.fail_here(fmt::format("a {} stage needs a network, such as model = \"lenet300\"", stage.type));
      model_image(*model);  // throws on an unknown name
      stage.model = *model;
    }
    if (stage.type == "prune") read_pruning(reader, stage);
    if (stage.type == "regrow") read_regrowth(reader, stage);
    if (stage.type == "train") reader.read("slimming", stage.slimming);
    if (!(stage.slimming >= 0)) reader.fail_here(fmt::format("expected slimming >= 0, got {}", stage.slimming));
    if (stage.type == "blocks") {
      reader.read("drop", stage.drop);
      if (stage.drop < 1) reader.fail_here(fmt::format("expected drop = 1 residual block or more, got {}", stage.drop));
    }
    if (stage.type == "compensate" || stage.type == "reconstruct") {
      reader.read("reference", stage.reference);
      std::vector<std::string> names;
      for (const Stage& earlier : recipe.stages) names.push_back(earlier.name);
      if (std::find(names.begin(), names.end(), stage.reference) == names.end())
        reader.fail_here(fmt::format("a {} stage needs reference = an earlier stage, got \"{}\"; there are: {}",
                                     stage.type, stage.reference, fmt::join(names, ", ")));
    }
    read_method(reader, recipe, stage);
    if (is_training(stage.type)) {
      read_distillation(reader, stage);
      read_terms(reader, recipe, stage);
      read_training(reader, recipe, stage);
    }
  } catch (const ArgumentError& error) {
    // What a value's own parser says gets the place.
    const std::string message = error.what();
    if (message.starts_with("[recipe]")) throw;
    reader.fail_here(message);
  }
  reader.finish();
  return stage;
}

}  // namespace

bool validates_on_unseen_images(const Recipe& recipe) {
  if (recipe.start.empty()) return true;
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return true;
  return split && split->share == recipe.validation && split->seed == recipe.validation_seed;
}

const std::vector<std::string>& stage_types() {
  static const std::vector<std::string> kTypes = {
      "train",  "teacher",     "prune",           "lottery",     "adaptive", "learned-masks",
      "l0",     "variational", "sparse-training", "surgery",     "distill",  "blocks",
      "regrow", "recalibrate", "compensate",      "reconstruct", "compact"};
  return kTypes;
}

const std::vector<std::string>& term_types() {
  static const std::vector<std::string> kTypes = {"hint", "attention", "relational-distance", "relational-angle"};
  return kTypes;
}

bool is_training(const std::string& type) {
  return type != "blocks" && type != "regrow" && type != "compact" && type != "recalibrate" && type != "compensate" &&
         type != "reconstruct";
}

Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data) {
  check_toml_nesting(text, source);
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail<FileError>("recipe", "{}:{}: not TOML: {}", source, error.source().begin.line, error.description());
  }
  Recipe recipe;
  recipe.source = source;
  TableReader reader(table, source, "a recipe");
  reader.read("title", recipe.title);
  reader.read("model", recipe.model);
  reader.read("data", recipe.data);
  if (!data.empty()) recipe.data = data;
  reader.read("start", recipe.start);
  const std::optional<double> validation = reader.get<double>("validation");
  reader.read("validation_seed", recipe.validation_seed);
  reader.read("seed", recipe.seed);
  reader.read("seeds", recipe.seeds);
  reader.know("stage");
  reader.finish();
  if (recipe.model.empty() || recipe.data.empty())
    reader.fail_here("expected model and data, such as model = \"lenet5\" and data = \"mnist\"");
  try {
    recipe.data = dataset_info(recipe.data).name;
    if (recipe.start.empty()) model_image(recipe.model);
  } catch (const ArgumentError& unknown_name) {
    reader.fail_here(unknown_name.what());
  }
  choose_validation(recipe, validation);
  if (!(recipe.validation >= 0 && recipe.validation < 1))
    reader.fail_here(
        fmt::format("expected validation in [0,1), a share of the training images, got {}", recipe.validation));
  if (recipe.seeds < 1 || recipe.seeds > 1000)
    reader.fail_here(fmt::format("expected 1 to 1000 seeds, got {}", recipe.seeds));
  const toml::array* stages = table["stage"].as_array();
  if (stages == nullptr || stages->empty()) reader.fail_here("expected at least one [[stage]]");
  for (const toml::node& node : *stages) {
    if (!node.is_table()) reader.fail_here("expected every stage as [[stage]]");
    recipe.stages.push_back(read_stage(*node.as_table(), recipe));
  }
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::string& data) {
  const std::optional<std::string> text = read_text(path);
  if (!text) fail<FileError>("recipe", "{}: cannot read it; expected a TOML file with [[stage]] tables", path);
  return parse_recipe(*text, path, data);
}

}  // namespace espalier::tools
