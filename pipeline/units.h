// Which units a stage removes, and by what they are judged: options that several stages share. `example` is one input
// of the network, on its device.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"
#include "pruning/budget_pruner.h"
#include "pruning/pruner.h"

namespace espalier {

/// Units that a stage treats one by one.
struct UnitOptions {
  bool free_pattern = false;        ///< no n of m: units come and go one by one
  std::string pattern = "element";  ///< a Pattern, or "channels": groups of coupled channels
  std::vector<std::string> protect = {};
  int64_t min_units = 1;
};
void fields(FieldVisitor& f, UnitOptions& o);
/// The option `pattern` alone; `free`: of units that come and go one by one.
void pattern_field(FieldVisitor& f, std::string& pattern, bool free = false);

/// Units that a Pruner compares and removes.
struct ScoredUnitOptions {
  std::string pattern = "element";
  std::vector<std::string> inputs = {};          ///< with "channels": weights whose input features are pruned as well
  PartChoice criterion = {.name = "magnitude"};  ///< of make_criterion
  std::optional<Scope> scope = {};               ///< nothing: global; of channels layer
  std::vector<std::string> protect = {};
  bool normalize = false;
  int64_t min_units = 1, round_to = 1;
  int64_t batches = 8;  ///< of 128 images, for criteria that look at data
};
void fields(FieldVisitor& f, ScoredUnitOptions& o);
/// Fills in the scope, and judges names. Throws ArgumentError (stage.h, refuse).
void settle(ScoredUnitOptions& o);

/// Throws ArgumentError for a criterion that has to watch the training whose network it scores; `why` says what does
/// not go together, and what to do.
void refuse_watcher(const PartChoice& criterion, const char* why);

/// Throws ArgumentError for a pattern that isn't one.
void check_pattern(const std::string& pattern, const std::vector<std::string>& inputs = {});
/// The same, and for patterns that leave units no freedom of their own: n of m.
void check_free_pattern(const std::string& pattern);
/// What a pattern removes whatever the sparsity: "2 of 4" half.
double least_sparsity(const std::string& pattern);
/// What units of a pattern are called: "channels", "weights", the pattern itself.
std::string noun(const std::string& pattern);

/// The units of a pattern's name, "channels" among them; `inputs`: with those, weights whose input features are units
/// too. Throws when the pattern does not fit a weight that `protect` doesn't name.
std::vector<Site> sites_of(Module& network, const Bundle& example, const std::string& pattern,
                           const std::vector<std::string>& protect = {}, const std::vector<std::string>& inputs = {});
/// For what judges units apart from the rest of a layer: the sites that nobody protects. Throws on names of no site.
std::vector<Site> unprotected_sites(Module& network, const Bundle& example, const std::string& pattern,
                                    const std::vector<std::string>& protect);

/// A Pruner of these units. `rest`: what the stage says besides (sparsity_of, regrow).
std::shared_ptr<Pruner> make_pruner(const ModulePtr& network, const ScoredUnitOptions& units, PrunerOptions rest,
                                    const Bundle& example);

}  // namespace espalier
