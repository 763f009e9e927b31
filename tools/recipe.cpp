#include "tools/recipe.h"

#include <algorithm>
#include <set>
#include <sstream>

#include <toml++/toml.h>
#include <nlohmann/json.hpp>

#include "layers/models/zoo.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/sensitivity.h"

namespace espalier::tools {

namespace {

/// Strict access to one table: every error names file, line and key; what nobody read is an unknown key (finish).
class TableReader {
 public:
  TableReader(const toml::table& table, std::string source, std::string what)
      : table_(table), source_(std::move(source)), what_(std::move(what)) {}

  template <class T>
  std::optional<T> get(const std::string& key) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    if constexpr (std::is_same_v<T, double>) {
      if (node->is_number()) return node->value<double>();
      fail_at(*node, key, "a number");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (node->is_boolean()) return node->value<bool>();
      fail_at(*node, key, "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      const auto value = node->is_integer() ? node->value<int64_t>() : std::nullopt;
      if (value && *value >= 0) return static_cast<T>(*value);
      fail_at(*node, key, "a whole number of at least 0");
    } else {
      if (node->is_string()) return node->value<std::string>();
      fail_at(*node, key, "a text in quotes");
    }
  }

  template <class T>
  void read(const std::string& key, T& value) {
    if (const auto given = get<T>(key)) value = *given;
  }
  template <class T>
  void read(const std::string& key, std::optional<T>& value) {
    if (auto given = get<T>(key)) value = std::move(given);
  }
  void read(const std::string& key, std::vector<std::string>& value) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if (!node->is_array()) fail_at(*node, key, "a list of texts");
    value.clear();
    for (const toml::node& item : *node->as_array()) {
      if (!item.is_string()) fail_at(item, key, "a list of texts");
      value.push_back(*item.value<std::string>());
    }
  }
  void read(const std::string& key, std::map<std::string, double>& value) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if (!node->is_table()) fail_at(*node, key, "a table such as { \"fc1.weight\" = 0.9 }");
    for (const auto& [name, item] : *node->as_table()) {
      if (!item.is_number()) fail_at(item, key, "numbers");
      value[std::string(name.str())] = *item.value<double>();
    }
  }

  template <class E = ArgumentError>
  [[noreturn]] void fail_here(const std::string& message) const {
    fail<E>("recipe", "{}:{}: {}", source_, table_.source().begin.line, message);
  }

  void expect_share(const char* key, double value) const {
    if (!(value >= 0 && value <= 1)) fail_here(fmt::format("expected {} in [0,1], got {}", key, value));
  }

  void finish() const {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (std::find(known_.begin(), known_.end(), name) == known_.end())
        fail<ArgumentError>("recipe", "{}:{}: {} has no key '{}'{}; known: {}", source_, key.source().begin.line, what_,
                            name, did_you_mean(name, known_), fmt::join(known_, ", "));
    }
  }
  void know(const std::string& key) { known_.push_back(key); }

 private:
  [[noreturn]] void fail_at(const toml::node& node, const std::string& key, const char* expected) const {
    std::ostringstream shown;
    node.visit([&](const auto& value) { shown << value; });
    fail<ArgumentError>("recipe", "{}:{}: {} '{}': expected {}, got {}", source_, node.source().begin.line, what_, key,
                        expected, shown.str());
  }

  const toml::table& table_;
  std::string source_, what_;
  std::vector<std::string> known_;
};

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
  stage.keep_best = keep == "best" && recipe.validation > 0;
  stage.trains = !flags.epochs || *flags.epochs > 0;
  if (!stage.trains && (stage.variational || stage.sparse_training || stage.surgery || stage.slimming > 0))
    reader.fail_here(fmt::format("a {} stage works while it trains; expected epochs of at least 1, got 0", stage.type));
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
  if (sparsity) prune.sparsity = *sparsity;
  if (ratio) prune.sparsity = 1 - 1 / *ratio;
  if (!(prune.sparsity >= 0 && prune.sparsity < 1))
    reader.fail_here(
        fmt::format("expected a sparsity in [0,1) or a ratio of at least 1, got {}", sparsity ? *sparsity : *ratio));
  reader.read("pattern", prune.pattern);
  reader.read("criterion", prune.criterion);
  reader.read("scope", prune.scope);
  reader.read("curve", prune.curve);
  reader.read("begin", prune.begin);
  reader.read("end", prune.end);
  reader.read("every", prune.every);
  reader.read("normalize", prune.normalize);
  reader.read("regrow", prune.regrow);
  reader.read("min_units", prune.min_units);
  reader.read("round_to", prune.round_to);
  reader.read("batches", prune.batches);
  reader.read("protect", prune.protect);
  reader.read("inputs", prune.inputs);
  reader.read("sparsity_of", prune.sparsity_of);
  if (prune.round_to < 1 || prune.batches < 1)
    reader.fail_here(
        fmt::format("expected round_to and batches of at least 1, got {} and {}", prune.round_to, prune.batches));
  for (const auto& [name, value] : prune.sparsity_of)
    if (!(value >= 0 && value < 1))
      reader.fail_here(fmt::format("sparsity_of: expected a sparsity in [0,1) for '{}', got {}", name, value));
  if (prune.pattern != "channels") {
    Pattern::parse(prune.pattern);
    if (!prune.inputs.empty()) reader.fail_here("inputs belong to pattern = \"channels\"");
  }
  make_criterion(prune.criterion);
  parse_scope(prune.scope);
  parse_sparsity_curve(prune.curve);
  GradualPruning::check_options(
      {.sparsity = prune.sparsity, .begin = prune.begin, .end = prune.end, .every = prune.every});
  stage.prune = prune;
}

/// Settings of the stages that bring their own way of pruning.
void read_method(TableReader& reader, Stage& stage) {
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
    reader.expect_share("harden", s.harden);
    stage.surgery = s;
  }
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
    if (stage.type == "train") reader.read("slimming", stage.slimming);
    if (!(stage.slimming >= 0)) reader.fail_here(fmt::format("expected slimming >= 0, got {}", stage.slimming));
    if (stage.type == "compensate" || stage.type == "reconstruct") {
      reader.read("reference", stage.reference);
      std::vector<std::string> names;
      for (const Stage& earlier : recipe.stages) names.push_back(earlier.name);
      if (std::find(names.begin(), names.end(), stage.reference) == names.end())
        reader.fail_here(fmt::format("a {} stage needs reference = an earlier stage, got \"{}\"; there are: {}",
                                     stage.type, stage.reference, fmt::join(names, ", ")));
    }
    read_method(reader, stage);
    if (is_training(stage.type)) {
      read_distillation(reader, stage);
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

std::string quote(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}
std::string quote(const std::vector<std::string>& list) {
  std::vector<std::string> items;
  for (const std::string& item : list) items.push_back(quote(item));
  return fmt::format("[{}]", fmt::join(items, ", "));
}

std::string inline_table(const std::map<std::string, double>& values) {
  std::vector<std::string> items;
  for (const auto& [name, value] : values) items.push_back(fmt::format("{} = {}", quote(name), toml_number(value)));
  return fmt::format("{{ {} }}", fmt::join(items, ", "));
}

}  // namespace

std::string toml_number(double value) {
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".einf") == std::string::npos ? text + ".0" : text;
}

const std::vector<std::string>& stage_types() {
  static const std::vector<std::string> kTypes = {"train",           "teacher",     "prune",   "variational",
                                                  "sparse-training", "surgery",     "distill", "recalibrate",
                                                  "compensate",      "reconstruct", "compact"};
  return kTypes;
}

bool is_training(const std::string& type) {
  return type != "compact" && type != "recalibrate" && type != "compensate" && type != "reconstruct";
}

Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data) {
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
  reader.read("validation", recipe.validation);
  reader.read("seed", recipe.seed);
  reader.read("seeds", recipe.seeds);
  reader.know("stage");
  reader.finish();
  if (recipe.model.empty() || recipe.data.empty())
    reader.fail_here("expected model and data, such as model = \"lenet5\" and data = \"mnist\"");
  recipe.data = dataset_info(recipe.data).name;
  if (recipe.start.empty()) model_image(recipe.model);  // throws on an unknown name
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

std::string to_toml(const Recipe& recipe) {
  std::string text =
      fmt::format("title = {}\nmodel = {}\ndata = {}\nvalidation = {}\nseed = {}\nseeds = {}\n", quote(recipe.title),
                  quote(recipe.model), quote(recipe.data), toml_number(recipe.validation), recipe.seed, recipe.seeds);
  if (!recipe.start.empty()) text += fmt::format("start = {}\n", quote(recipe.start));
  const auto add = [&](const char* key, const std::string& value) { text += fmt::format("{} = {}\n", key, value); };
  for (const Stage& stage : recipe.stages) {
    text += "\n[[stage]]\n";
    add("type", quote(stage.type));
    add("name", quote(stage.name));
    if (!stage.model.empty()) add("model", quote(stage.model));
    if (stage.prune) {
      const PruneSettings& p = *stage.prune;
      if (p.budget.empty())
        add("sparsity", toml_number(p.sparsity));
      else
        add(p.budget.c_str(), toml_number(p.amount));
      add("pattern", quote(p.pattern));
      add("criterion", quote(p.criterion));
      add("scope", quote(p.scope));
      add("curve", quote(p.curve));
      add("begin", toml_number(p.begin));
      add("end", toml_number(p.end));
      add("every", std::to_string(p.every));
      add("normalize", p.normalize ? "true" : "false");
      add("regrow", p.regrow ? "true" : "false");
      add("min_units", std::to_string(p.min_units));
      add("round_to", std::to_string(p.round_to));
      add("batches", std::to_string(p.batches));
      add("protect", quote(p.protect));
      if (!p.inputs.empty()) add("inputs", quote(p.inputs));
      if (!p.sparsity_of.empty()) add("sparsity_of", inline_table(p.sparsity_of));
    }
    if (stage.distill) {
      add("teacher", quote(stage.distill->teacher));
      add("temperature", toml_number(stage.distill->temperature));
      add("alpha", toml_number(stage.distill->alpha));
    }
    if (!stage.reference.empty()) add("reference", quote(stage.reference));
    if (stage.slimming > 0) add("slimming", toml_number(stage.slimming));
    if (stage.variational) {
      add("kl_weight", toml_number(stage.variational->kl_weight));
      add("kl_warmup", toml_number(stage.variational->warmup));
      add("initial_log_sigma2", toml_number(stage.variational->initial_log_sigma2));
      add("threshold", toml_number(stage.variational->threshold));
    }
    if (stage.sparse_training) {
      add("sparsity", toml_number(stage.sparse_training->sparsity));
      add("growth", quote(stage.sparse_training->growth));
      add("scope", quote(stage.sparse_training->scope));
      add("fraction", toml_number(stage.sparse_training->fraction));
      add("end", toml_number(stage.sparse_training->end));
      add("every", std::to_string(stage.sparse_training->every));
    }
    if (stage.surgery) {
      add("c", toml_number(stage.surgery->c));
      if (!stage.surgery->c_of.empty()) add("c_of", inline_table(stage.surgery->c_of));
      add("harden", toml_number(stage.surgery->harden));
    }
    if (!is_training(stage.type)) continue;
    const TrainSettings& t = stage.train;
    add("epochs", std::to_string(t.epochs));
    if (!stage.trains) continue;
    add("batch_size", std::to_string(t.batch_size));
    add("optimizer", quote(t.optimizer));
    add("lr", toml_number(t.lr));
    if (t.momentum) add("momentum", toml_number(*t.momentum));
    add("nesterov", t.nesterov ? "true" : "false");
    add("weight_decay", toml_number(t.weight_decay));
    add("schedule", quote(t.schedule));
    add("warmup", toml_number(t.warmup));
    add("label_smoothing", toml_number(t.label_smoothing));
    add("clip", toml_number(t.clip));
    add("augment", quote(t.augment));
    add("keep", quote(stage.keep_best ? "best" : "last"));
  }
  return text;
}

std::string describe(const Stage& stage) {
  std::string text = stage.type;
  if (!stage.model.empty()) text += " " + stage.model;
  if (stage.prune) {
    const PruneSettings& p = *stage.prune;
    const std::string what = p.pattern == "channels" ? "channels" : p.pattern == "element" ? "weights" : p.pattern;
    text += p.budget.empty() ? fmt::format(" {:.4g} % of the {}", 100 * p.sparsity, what)
                             : fmt::format(" {} to {:g} {}", what, p.amount, p.budget);
    text += fmt::format(" by {}, {}", p.criterion, p.scope);
  }
  if (stage.sparse_training)
    text += fmt::format(" with {:.4g} % of the weights missing, {} growth", 100 * stage.sparse_training->sparsity,
                        stage.sparse_training->growth);
  if (stage.trains)
    text += fmt::format("{} {} epoch{}", stage.prune ? ", over" : ",", stage.train.epochs,
                        stage.train.epochs == 1 ? "" : "s");
  if (stage.distill)
    text += fmt::format(", teacher {} (T {:g}, alpha {:g})", stage.distill->teacher, stage.distill->temperature,
                        stage.distill->alpha);
  return text;
}

}  // namespace espalier::tools
