#include "tools/stage_pruning.h"

#include "layers/containers.h"
#include "pruning/criteria/slimming.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/learned/movement.h"
#include "pruning/learned/variational.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "pruning/structure/graph.h"

namespace espalier::tools {

namespace {

/// For what judges units apart from the rest of a layer: sites that nobody protects. Throws on names of no site.
std::vector<Site> unprotected(std::vector<Site> sites, const std::vector<std::string>& protect) {
  check_names("protect", sites, protect);
  std::erase_if(sites, [&](const Site& site) { return names_include(protect, site.name); });
  return sites;
}

}  // namespace

std::vector<Site> sites_of(Module& network, const Tensor& example, const std::string& pattern,
                           const std::vector<std::string>& protect, const std::vector<std::string>& inputs) {
  if (pattern != "channels") return weight_sites(network, Pattern::parse(pattern), protect);
  std::vector<Site> sites = channel_sites(DependencyGraph::trace(network, example));
  for (Site& site : input_feature_sites(network, inputs)) sites.push_back(std::move(site));
  return sites;
}

std::shared_ptr<Pruner> make_pruner(const ModulePtr& network, const PruneSettings& p, const Tensor& example,
                                    const Dataset& train, uint64_t seed) {
  const UnitSettings& u = p.units;
  return std::make_shared<Pruner>(
      network, sites_of(*network, example, u.pattern, u.protect, u.inputs),
      PrunerOptions{.criterion = u.criterion == "movement" ? std::make_shared<MovementCriterion>(network->parameters())
                                                           : make_criterion(u.criterion),
                    .allocation = {.scope = parse_scope(u.scope),
                                   .sparsity_of = p.sparsity_of,
                                   .protect = u.protect,
                                   .normalize = u.normalize,
                                   .min_units = u.min_units,
                                   .round_to = u.round_to},
                    .regrow = p.regrow,
                    .data = train,
                    .batches = u.batches,
                    .seed = seed});
}

std::vector<Site> regrowing_sites(Module& network, const Tensor& example, const RegrowSettings& r) {
  return unprotected(sites_of(network, example, r.pattern, r.protect), r.protect);
}

Budget budget_of(const PruneSettings& p, double now) {
  const BudgetKind kind = parse_budget_kind(p.budget);
  const bool share = p.amount < 1 && kind != BudgetKind::milliseconds;
  return {.kind = kind, .amount = share ? p.amount * now : p.amount, .ranking = parse_ranking(p.rank_by)};
}

StageCallbacks callbacks_of(const Stage& stage, const ModulePtr& network, const Tensor& example, int64_t examples,
                            uint64_t seed) {
  StageCallbacks result;
  if (stage.slimming > 0) {
    const auto penalty = std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = stage.slimming});
    penalty->check_fits(*network);
    result.callbacks.push_back(penalty);
  }
  if (stage.sparse_training) {
    const SparseTrainingSettings& s = *stage.sparse_training;
    result.sites = sites_of(*network, example, s.pattern, s.protect);
    result.min_units = s.min_units;
    result.callbacks.push_back(std::make_shared<SparseTraining>(
        result.sites, SparseTrainingOptions{
                          .growth = parse_growth(s.growth),
                          .sparsity = s.sparsity,
                          .allocation = {.scope = parse_scope(s.scope), .protect = s.protect, .min_units = s.min_units},
                          .fraction = s.fraction,
                          .every = s.every,
                          .end = s.end,
                          .seed = seed}));
  }
  if (stage.surgery) {
    const SurgerySettings& s = *stage.surgery;
    const std::vector<Site> sites = unprotected(sites_of(*network, example, s.pattern, s.protect), s.protect);
    const auto surgery = std::make_shared<NetworkSurgery>(
        sites, SurgeryOptions{.c = s.c, .c_of = s.c_of, .min_units = s.min_units, .harden = s.harden, .seed = seed});
    result.callbacks.push_back(surgery);
    result.sites = sites;
    result.min_units = s.min_units;
  }
  if (stage.variational) {
    const auto sequential = std::dynamic_pointer_cast<Sequential>(network);
    check(sequential != nullptr, "variational", "expected a network that is a Sequential, got a {}", network->type());
    const VariationalSettings& s = *stage.variational;
    make_variational(*sequential, {.initial_log_sigma2 = s.initial_log_sigma2, .threshold = s.threshold});
    result.callbacks.push_back(std::make_shared<VariationalPenalty>(
        network, VariationalPenaltyOptions{.weight = s.kl_weight, .warmup_end = s.warmup, .examples = examples}));
  }
  if (stage.learned_masks) {
    const LearnedMaskSettings& m = *stage.learned_masks;
    const std::vector<Site> sites = sites_of(*network, example, m.pattern, m.protect);
    const auto masks = std::make_shared<LearnedMasks>(
        network, sites,
        LearnedMaskOptions{
            .selection = m.selection == "top-k" ? Selection::top_k : Selection::threshold,
            .initial = m.initial == "zero" ? InitialScores::zero : InitialScores::magnitude,
            .sparsity = m.sparsity,
            .curve = parse_sparsity_curve(m.curve),
            .begin = m.begin,
            .end = m.end,
            .allocation = {.scope = parse_scope(m.scope), .protect = m.protect, .min_units = m.min_units},
            .threshold = m.threshold,
            .penalty = m.penalty,
            .every = m.every,
            .harden = m.harden});
    result.parameters.insert(result.parameters.end(), masks->scores().begin(), masks->scores().end());
    result.callbacks.push_back(masks);
    result.sites = sites;
    result.min_units = m.min_units;
  }
  if (stage.gates) {
    const GateSettings& g = *stage.gates;
    const std::vector<Site> sites = unprotected(sites_of(*network, example, g.pattern, g.protect), g.protect);
    const auto gates = std::make_shared<HardConcreteGates>(network, sites,
                                                           HardConcreteOptions{.lambda = g.lambda,
                                                                               .examples = examples,
                                                                               .open = g.open,
                                                                               .harden = g.harden,
                                                                               .min_units = g.min_units,
                                                                               .seed = seed});
    result.parameters.insert(result.parameters.end(), gates->log_alphas().begin(), gates->log_alphas().end());
    result.callbacks.push_back(gates);
    result.sites = sites;
    result.min_units = g.min_units;
  }
  return result;
}

}  // namespace espalier::tools
