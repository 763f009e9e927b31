// Lottery tickets: train, prune, go back to early weights, and train again what is left.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pruning/pruner.h"
#include "pruning/schedules/retraining.h"

namespace espalier {

class FieldVisitor;

struct LotteryOptions {
  TrainingPlan training = {};
  int64_t rounds = 10;  ///< prunings; there is one training more
  double rate = 0.2;    ///< share of the remaining weights that each round removes
  /// Scope::layer removes that share of every site, of the last one half (`output_rate`); Scope::global of all
  /// together.
  Scope scope = Scope::layer;
  double output_rate = 0.5;                    ///< times rate: for the last site; Scope::layer only
  std::map<std::string, double> rate_of = {};  ///< of single sites, by name; Scope::layer only
  CriterionPtr criterion = magnitude_criterion();
  /// What every round starts from: the weights after this many steps of the first training (0: the initial weights).
  /// The rounds then train the remaining steps, with their learning rates.
  int64_t rewind_step = 0;
  /// Holds each round's network, results and run; a search that was stopped goes on from there. "": nothing is written.
  std::string folder = {};
};
/// All but training, criterion and folder.
void fields(FieldVisitor& f, LotteryOptions& o);

/// One training.
struct LotteryRound {
  int64_t round = 0;    ///< 0: the dense network
  double sparsity = 0;  ///< of the sites' weights
  /// Sites of which the round removed no unit though it should have: its rate is less than half of one.
  std::vector<std::string> untouched = {};
  std::optional<double> validation_loss = {}, validation_accuracy = {};  ///< accuracy: of data that asks for a class
  std::optional<double> test_loss = {}, test_accuracy = {};
};

struct LotteryResult {
  std::vector<LotteryRound> rounds;
  bool finished = true;  ///< false when it was stopped; with a folder, call it again
};

/// Throws on options that make no sense for these sites of the network: find_lottery_ticket calls it first.
void check_lottery(const Module& network, const std::vector<Site>& sites, const LotteryOptions& options);

/// Iterative magnitude pruning with rewinding. Frankle & Carbin 2019, "The lottery ticket hypothesis";
/// weights of step k instead of the initial ones: Frankle et al. 2020, "Linear mode connectivity and the lottery ticket
/// hypothesis". Every round gets a fresh optimiser. Afterwards the network has the weights and masks of
/// the last round. Sites must be of `network`. Data sets may be empty, but for the training set. Throws FileError when
/// the folder belongs to another search.
LotteryResult find_lottery_ticket(const ModulePtr& network, const std::vector<Site>& sites, const Dataset& train,
                                  const Dataset& validation, const Dataset& test, const LotteryOptions& options);

}  // namespace espalier
