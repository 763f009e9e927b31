// Stage: one step of a recipe. Each kind is a class in pipeline/stages/ that owns its options, knows what it does to
// the network, what it saves and what it forgets; a run is a loop over stages.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/fields.h"
#include "core/registry.h"
#include "pipeline/train_settings.h"
#include "training/run_folder.h"

namespace espalier {

struct Recipe;
class SeedRun;
struct TeacherOptions;

/// Throws ArgumentError for options that make no sense; where a recipe is read the message gets file and line.
template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) {
  fail("stage", "{}", fmt::format(text, std::forward<Args>(args)...));
}

class Stage {
 public:
  virtual ~Stage() = default;

  std::string type;  ///< by which the registry knows it: "prune"
  std::string name;  ///< "2-prune" unless given; the name of its folder
  int64_t line = 0;  ///< of its table in the recipe's file; 0: it stands in none

  // --- what it is told
  /// Its options, but for type and name.
  virtual void fields(FieldVisitor&) {}
  /// Fills in what depends on other options, and judges them together. `recipe` has the stages before this one. Throws
  /// ArgumentError, by refuse().
  virtual void settle(const Recipe& /*recipe*/) {}
  /// A line for people, without the name.
  virtual std::string describe() const { return type; }

  // --- what it does
  /// Tries on a network that nobody trained whether it can do its work: names that fit no layer, patterns that divide
  /// no weight, budgets out of reach are told before hours of training. False when nobody knows what it leaves.
  virtual bool rehearse(SeedRun&) { return true; }
  /// Comes before run, and before read_back of a stage that is done.
  virtual void begin(SeedRun&) {}
  /// Works on the run's network.
  virtual void run(SeedRun&) = 0;
  /// Takes back what it left in an earlier start: the network of its folder.
  virtual void read_back(SeedRun&);

  // --- what it leaves
  /// Whether the run's network is the one of this stage afterwards, and stands in its folder.
  virtual bool leaves_network() const { return true; }
  /// Files and folders of its own that a new run in the same folder removes, besides those of a training.
  virtual std::vector<std::string> files() const { return {}; }
  /// What is only needed to go on within it, and goes when it is done.
  virtual void tidy(const RunFolder& folder) const { folder.forget({kCheckpointFile, kBestFile}); }

  // --- what others ask
  /// The network of the zoo that takes the old one's place; "": none does.
  virtual std::string new_network() const { return ""; }
  /// The network of the zoo that it trains, where that isn't the run's.
  virtual std::string own_network() const { return new_network(); }
  /// A network whose accuracy is one to compare the final one's with.
  virtual bool is_baseline() const { return false; }
  virtual bool includes_validation() const { return false; }
  /// From whom it learns; null: nobody.
  virtual const TeacherOptions* teacher() const { return nullptr; }
  /// How the network was trained last, as its file says it; "": not by this stage.
  virtual std::string settings(const SeedRun&) const { return ""; }
};

using StagePtr = std::shared_ptr<Stage>;

/// The kinds of stages by type: add() your own before a recipe that names it is read.
Registry<StagePtr()>& stage_registry();

/// The options of a stage as they are before anything is given, for docs and help.
std::vector<FieldDescription> describe_stage(const std::string& type);

}  // namespace espalier
