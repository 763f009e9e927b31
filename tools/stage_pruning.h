// What a stage's settings are in the library's terms: sites, pruners, budgets, callbacks. `example` is one input of the
// network, on its device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pruning/budget.h"
#include "tools/recipe.h"
#include "training/trainer.h"

namespace espalier::tools {

/// The units of a pattern's name, "channels" among them; `inputs`: with those, weights whose input features are units
/// too. Throws when the pattern does not fit a weight that `protect` doesn't name.
std::vector<Site> sites_of(Module& network, const Tensor& example, const std::string& pattern,
                           const std::vector<std::string>& protect = {}, const std::vector<std::string>& inputs = {});

std::shared_ptr<Pruner> make_pruner(const ModulePtr& network, const PruneSettings& p, const Tensor& example,
                                    const Dataset& train, uint64_t seed);

/// Sites of whose units a share comes back: those that the stage doesn't protect.
std::vector<Site> regrowing_sites(Module& network, const Tensor& example, const RegrowSettings& r);

/// A share counts from what the network costs now.
Budget budget_of(const PruneSettings& p, double now);

/// What a stage does to masks and weights while it trains, but for pruning by a Pruner.
struct StageCallbacks {
  std::vector<std::shared_ptr<Callback>> callbacks = {};
  NamedParameters parameters = {};  ///< scores and gates, for the optimiser
  std::vector<Site> sites = {};     ///< whose masks the training chooses; none: masks stay what they are
  int64_t min_units = 1;            ///< what each of them keeps at least
};
/// `examples`: in the training set. Makes a network variational when the stage is.
StageCallbacks callbacks_of(const Stage& stage, const ModulePtr& network, const Tensor& example, int64_t examples,
                            uint64_t seed);

}  // namespace espalier::tools
