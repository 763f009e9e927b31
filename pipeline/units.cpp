#include "pipeline/units.h"

#include "pipeline/stage.h"
#include "pruning/structure/graph.h"

namespace espalier {

namespace {
constexpr const char* kProtectHelp = "Layers that lose nothing; names may end in '*'";
constexpr const char* kMinUnitsHelp = "What every layer keeps, if it had as many";
}  // namespace

void pattern_field(FieldVisitor& f, std::string& pattern, bool free) {
  f("pattern", pattern,
    free ? "element, block 4x1, kernel, channel 0, or channels: coupled channels"
         : "element, block 4x1, 2 of 4, kernel, channel 0, or channels: coupled channels");
}

void fields(FieldVisitor& f, UnitOptions& o) {
  pattern_field(f, o.pattern, o.free_pattern);
  f("protect", o.protect, kProtectHelp);
  f("min_units", o.min_units, at_least(0), kMinUnitsHelp);
}

void fields(FieldVisitor& f, ScoredUnitOptions& o) {
  pattern_field(f, o.pattern);
  f.unless_default("inputs", o.inputs, "With channels: weights whose input features are pruned as well");
  criterion_field(f, o.criterion);
  f("scope", o.scope, "Where scores are compared; by default global, of channels layer");
  f("protect", o.protect, kProtectHelp);
  f("normalize", o.normalize, "Scores are divided by their site's mean first");
  f("min_units", o.min_units, at_least(0), kMinUnitsHelp);
  f("round_to", o.round_to, Range{.low = 1, .high = 1e6}, "Layers keep multiples of so many units");
  f("batches", o.batches, at_least(1), "Of 128 images, for criteria that look at data");
}

void refuse_watcher(const PartChoice& criterion, const char* why) {
  if (make_criterion(criterion)->watcher() != nullptr)
    refuse("criterion = \"{}\" knows nothing before a training has shown it gradients; {}", criterion.name, why);
}

void settle(ScoredUnitOptions& o) {
  // Scores of channels of different layers don't compare: globally, whole layers go (docs/results.md, Budgets).
  if (!o.scope) o.scope = o.pattern == "channels" ? Scope::layer : Scope::global;
  check_pattern(o.pattern, o.inputs);
}

void check_pattern(const std::string& pattern, const std::vector<std::string>& inputs) {
  if (pattern == "channels") return;
  try {
    Pattern::parse(pattern);
  } catch (const ArgumentError& error) {
    refuse("pattern: {}; or 'channels', coupled channels of all layers{}", error.what(),
           did_you_mean(pattern, {"channels", "element", "kernel", "recurrent"}));
  }
  if (!inputs.empty()) refuse("inputs belong to pattern = \"channels\"");
}

void check_free_pattern(const std::string& pattern) {
  check_pattern(pattern);
  if (least_sparsity(pattern) > 0)
    refuse("units come and go one by one, so that the pattern \"{}\" can't be kept", pattern);
}

double least_sparsity(const std::string& name) {
  if (name == "channels") return 0;
  const Pattern pattern = Pattern::parse(name);
  if (pattern.kind() != Pattern::Kind::n_of_m) return 0;
  return 1 - static_cast<double>(pattern.first()) / static_cast<double>(pattern.second());
}

std::string noun(const std::string& pattern) {
  return pattern == "channels" ? "channels" : pattern == "element" ? "weights" : pattern;
}

std::vector<Site> sites_of(Module& network, const Bundle& example, const std::string& pattern,
                           const std::vector<std::string>& protect, const std::vector<std::string>& inputs) {
  if (pattern != "channels") return weight_sites(network, Pattern::parse(pattern), protect);
  std::vector<Site> sites = channel_sites(DependencyGraph::trace(network, example));
  for (Site& site : input_feature_sites(network, inputs)) sites.push_back(std::move(site));
  return sites;
}

std::vector<Site> unprotected_sites(Module& network, const Bundle& example, const std::string& pattern,
                                    const std::vector<std::string>& protect) {
  std::vector<Site> sites = sites_of(network, example, pattern, protect);
  check_names("protect", sites, protect);
  std::erase_if(sites, [&](const Site& site) { return names_include(protect, site.name); });
  return sites;
}

std::shared_ptr<Pruner> make_pruner(const ModulePtr& network, const ScoredUnitOptions& units, PrunerOptions rest,
                                    const Bundle& example) {
  rest.criterion = make_criterion(units.criterion);
  rest.allocation.scope = units.scope.value_or(Scope::global);
  rest.allocation.protect = units.protect;
  rest.allocation.normalize = units.normalize;
  rest.allocation.min_units = units.min_units;
  rest.allocation.round_to = units.round_to;
  rest.batches = units.batches;
  return std::make_shared<Pruner>(network, sites_of(*network, example, units.pattern, units.protect, units.inputs),
                                  std::move(rest));
}

}  // namespace espalier
