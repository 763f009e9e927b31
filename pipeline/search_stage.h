// What stages that train many times have in common: their rounds live in a folder of their own.
#pragma once

#include <filesystem>

#include <nlohmann/json.hpp>

#include "pipeline/run_places.h"
#include "pipeline/seed_run.h"
#include "pipeline/training_stage.h"
#include "pruning/schedules/search_folder.h"

namespace espalier {

class SearchStage : public TrainingStage {
 public:
  std::vector<std::string> files() const override { return {kRoundsFolder}; }
  void read_back(SeedRun& run) override {
    TrainingStage::read_back(run);
    RunFolder(rounds_folder(run)).read_json(SearchFolder::kList);  // throws when it is damaged
  }
  void tidy(const RunFolder& folder) const override {
    TrainingStage::tidy(folder);
    std::error_code ignored;
    for (const auto& round : std::filesystem::directory_iterator(folder.file(kRoundsFolder), ignored))
      if (round.is_directory()) TrainingStage::tidy(RunFolder(round.path().string()));
  }

 protected:
  bool trains_anew() const override { return true; }
  std::string rounds_folder(const SeedRun& run) const {
    return fmt::format("{}/{}", run.folder_of(*this), kRoundsFolder);
  }
};

}  // namespace espalier
