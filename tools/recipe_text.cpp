// Recipes as text: TOML with every default filled in, and lines for people.
#include <sstream>

#include <fmt/ranges.h>
#include <toml++/toml.h>
#include <nlohmann/json.hpp>

#include "tools/recipe.h"
#include "tools/toml_text.h"

namespace espalier::tools {

namespace {

std::string inline_table(const std::map<std::string, double>& values) {
  std::vector<std::string> items;
  for (const auto& [name, value] : values) items.push_back(fmt::format("{} = {}", quote(name), toml_number(value)));
  return fmt::format("{{ {} }}", fmt::join(items, ", "));
}

/// What units of a pattern are called.
std::string noun(const std::string& pattern) {
  return pattern == "channels" ? "channels" : pattern == "element" ? "weights" : pattern;
}

}  // namespace

std::string to_toml(const Recipe& recipe) {
  std::string text =
      fmt::format("title = {}\nmodel = {}\ndata = {}\nvalidation = {}\nseed = {}\nseeds = {}\n", quote(recipe.title),
                  quote(recipe.model), quote(recipe.data), toml_number(recipe.validation), recipe.seed, recipe.seeds);
  if (recipe.validation_seed) text += fmt::format("validation_seed = {}\n", *recipe.validation_seed);
  if (!recipe.start.empty()) text += fmt::format("start = {}\n", quote(recipe.start));
  const auto add = [&](const char* key, const std::string& value) { text += fmt::format("{} = {}\n", key, value); };
  const auto add_units = [&](const UnitSettings& u) {
    add("pattern", quote(u.pattern));
    if (!u.inputs.empty()) add("inputs", quote(u.inputs));
    add("criterion", quote(u.criterion));
    add("scope", quote(u.scope));
    add("protect", quote(u.protect));
    add("normalize", u.normalize ? "true" : "false");
    add("min_units", std::to_string(u.min_units));
    add("round_to", std::to_string(u.round_to));
    add("batches", std::to_string(u.batches));
  };
  const auto add_moving_units = [&](const auto& s) {
    add("pattern", quote(s.pattern));
    add("protect", quote(s.protect));
    add("min_units", std::to_string(s.min_units));
  };
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
      if (!p.budget.empty()) add("rank_by", quote(p.rank_by));
      add_units(p.units);
      add("curve", quote(p.curve));
      add("begin", toml_number(p.begin));
      add("end", toml_number(p.end));
      add("every", std::to_string(p.every));
      add("regrow", p.regrow ? "true" : "false");
      if (p.update) add("update", "true");
      if (!p.sparsity_of.empty()) add("sparsity_of", inline_table(p.sparsity_of));
    }
    if (stage.regrow) {
      add("share", toml_number(stage.regrow->share));
      add("pattern", quote(stage.regrow->pattern));
      add("protect", quote(stage.regrow->protect));
      add("batches", std::to_string(stage.regrow->batches));
    }
    if (stage.lottery) {
      const LotterySettings& l = *stage.lottery;
      add("rounds", std::to_string(l.rounds));
      add("rate", toml_number(l.rate));
      add("output_rate", toml_number(l.output_rate));
      if (!l.rate_of.empty()) add("rate_of", inline_table(l.rate_of));
      add("rewind_to", std::to_string(l.rewind_to));
      add("pattern", quote(l.pattern));
      add("criterion", quote(l.criterion));
      add("scope", quote(l.scope));
    }
    if (stage.adaptive) {
      const AdaptiveSettings& a = *stage.adaptive;
      add_units(a.units);
      add("step", toml_number(a.step));
      add("smallest_step", toml_number(a.smallest_step));
      add("tolerance", toml_number(a.tolerance));
      add("retrain", toml_number(a.retrain));
      add("largest_sparsity", toml_number(a.largest_sparsity));
      add("rounds", std::to_string(a.rounds));
    }
    if (stage.learned_masks) {
      const LearnedMaskSettings& m = *stage.learned_masks;
      add("selection", quote(m.selection));
      add("initial", quote(m.initial));
      add("sparsity", toml_number(m.sparsity));
      add("threshold", toml_number(m.threshold));
      add("penalty", toml_number(m.penalty));
      add("curve", quote(m.curve));
      add("begin", toml_number(m.begin));
      add("end", toml_number(m.end));
      add("harden", toml_number(m.harden));
      add("every", std::to_string(m.every));
      add("pattern", quote(m.pattern));
      add("scope", quote(m.scope));
      add("protect", quote(m.protect));
      add("min_units", std::to_string(m.min_units));
    }
    if (stage.gates) {
      add("lambda", toml_number(stage.gates->lambda));
      add("open", toml_number(stage.gates->open));
      add("harden", toml_number(stage.gates->harden));
      add_moving_units(*stage.gates);
    }
    if (stage.distill) {
      add("teacher", quote(stage.distill->teacher));
      add("temperature", toml_number(stage.distill->temperature));
      add("alpha", toml_number(stage.distill->alpha));
    }
    if (stage.type == "blocks") add("drop", std::to_string(stage.drop));
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
      add_moving_units(*stage.sparse_training);
    }
    if (stage.surgery) {
      add("c", toml_number(stage.surgery->c));
      if (!stage.surgery->c_of.empty()) add("c_of", inline_table(stage.surgery->c_of));
      add("harden", toml_number(stage.surgery->harden));
      add_moving_units(*stage.surgery);
    }
    if (!is_training(stage.type)) continue;
    const TrainSettings& t = stage.train;
    add("epochs", std::to_string(t.epochs));
    if (stage.trains) {
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
      if (t.checkpoint_every > 0) add("checkpoint_every", std::to_string(t.checkpoint_every));
      add("keep", quote(stage.keep_best ? "best" : "last"));
      if (stage.include_validation) add("include_validation", "true");
    }
    if (!stage.distill) continue;
    for (const TermSettings& term : stage.distill->terms) {
      text += "\n[[stage.term]]\n";
      add("type", quote(term.type));
      if (!term.student.empty()) add("student", quote(term.student));
      if (!term.teacher.empty()) add("teacher", quote(term.teacher));
      add("weight", toml_number(term.weight));
    }
  }
  return text;
}

nlohmann::json identity_of(Recipe recipe) {
  recipe.title.clear();
  for (Stage& stage : recipe.stages) stage.train.checkpoint_every = 0;
  std::ostringstream json;
  json << toml::json_formatter{toml::parse(to_toml(recipe))};
  return nlohmann::json::parse(json.str());
}

std::string describe(const Stage& stage) {
  std::string text = stage.type;
  if (!stage.model.empty()) text += " " + stage.model;
  if (stage.prune) {
    const PruneSettings& p = *stage.prune;
    const std::string what = noun(p.units.pattern);
    text += p.budget.empty()
                ? fmt::format(" {:.4g} % of the {}{}", 100 * p.sparsity, p.sparsity_of.empty() ? "" : "other ", what)
                : fmt::format(" {} to {:g} {}", what, p.amount, p.budget);
    for (const auto& [layer, sparsity] : p.sparsity_of) text += fmt::format(", {:.4g} % of {}", 100 * sparsity, layer);
    if (!p.sparsity_of.empty()) text += ",";
    text += fmt::format(" by {}, {}", p.units.criterion, p.units.scope);
    if (p.update) text += ", the others updated";
  }
  if (stage.regrow)
    text += fmt::format(": {:.4g} % of the {} that are gone come back", 100 * stage.regrow->share,
                        noun(stage.regrow->pattern));
  if (stage.type == "blocks") text += fmt::format(": {} of them masked as a whole", stage.drop);
  if (stage.lottery)
    text += fmt::format(" ticket: {} rounds of {:.4g} % of the {}, rewound to step {}", stage.lottery->rounds,
                        100 * stage.lottery->rate, noun(stage.lottery->pattern), stage.lottery->rewind_to);
  if (stage.adaptive)
    text += fmt::format(": {} by {} until the validation loss rises by {:g}", noun(stage.adaptive->units.pattern),
                        stage.adaptive->units.criterion, stage.adaptive->tolerance);
  if (stage.learned_masks && stage.learned_masks->selection == "top-k")
    text += fmt::format(" without {:.4g} % of the {}", 100 * stage.learned_masks->sparsity,
                        noun(stage.learned_masks->pattern));
  if (stage.gates) text += fmt::format(" gates on {}, lambda {:g}", noun(stage.gates->pattern), stage.gates->lambda);
  if (stage.sparse_training)
    text += fmt::format(" with {:.4g} % of the weights missing, {} growth", 100 * stage.sparse_training->sparsity,
                        stage.sparse_training->growth);
  if (stage.trains)
    text += fmt::format("{} {} epoch{}", stage.prune ? ", over" : ",", stage.train.epochs,
                        stage.train.epochs == 1 ? "" : "s");
  if (stage.include_validation) text += ", on the validation images too";
  if (stage.distill)
    text += fmt::format(", teacher {} (T {:g}, alpha {:g})", stage.distill->teacher, stage.distill->temperature,
                        stage.distill->alpha);
  if (stage.distill)
    for (const TermSettings& term : stage.distill->terms) text += fmt::format(", {}", term.type);
  return text;
}

}  // namespace espalier::tools
