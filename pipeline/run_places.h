// Where the runs of `train`, `run`, `prune` and `distill` live: a folder, with a folder in it for each of several
// seeds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "training/run_folder.h"

namespace espalier {

/// What the commands write into a run's folder besides its training.
inline constexpr const char* kTrainIdentity = "run.json";      ///< of `train`: its settings
inline constexpr const char* kRecipeIdentity = "recipe.toml";  ///< of the others: the recipe with all its defaults
inline constexpr const char* kRecipeRecord = "identity.json";  ///< beside it: what decides the result, as it began
inline constexpr const char* kRemovalsFile = "removals.safetensors";  ///< of a stage that prunes: why each unit went
inline constexpr const char* kResultFile = "result.json";
inline constexpr const char* kRoundsFolder = "rounds";  ///< of a stage that trains many times

/// OUT itself for one seed, OUT/seed-N for several.
std::string seed_folder(const std::string& out, int64_t seeds, uint64_t seed);
/// OUT and every OUT/seed-N that is there, locked.
std::vector<RunFolder> places_in(const RunFolder& out);

/// Throws, in the name of `command`, when something else than a folder has this name.
void check_can_be_folder(const char* command, const std::string& path);
/// Throws, in the name of `command`, when the folder holds a run, saying what can be done with it.
void check_holds_no_run(const char* command, const std::string& folder);
/// Throws, in the name of `command`, when a network for `file` would replace the one in `source` that it is made from,
/// or, unless the user said so, any other file.
void check_replaces_nothing(const char* command, const std::string& file, const std::string& source, bool overwrite);
/// The folder of a run that is resumed; `identity` is the file that every such run has. Throws when there is none.
RunFolder open_run(const char* command, const std::string& folder, const char* identity);

/// Networks stay until a new run's take their place. Called at its end, this removes what an older run left elsewhere:
/// in the folders of seeds that the new run, whose networks stand in `written`, doesn't have, and those folders
/// themselves where nothing else is in them.
void forget_other_networks(const RunFolder& out, const std::vector<std::string>& written);

/// "espalier prune --resume --out runs/net/prune": the line that goes on with a run.
std::string resume_command(const std::string& command, const std::string& out, const std::string& data_dir,
                           const std::string& device);

}  // namespace espalier
