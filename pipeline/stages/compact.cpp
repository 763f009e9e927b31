// [[stage]] type = "compact": masked channels are taken out of the network.
#include "pruning/structure/compact.h"

#include <nlohmann/json.hpp>

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"

namespace espalier {

namespace {

constexpr const char* kReportFile = "compaction.json";

class CompactStage : public Stage {
 public:
  void fields(FieldVisitor& f) override { espalier::fields(f, options_); }
  std::vector<std::string> files() const override { return {kReportFile}; }

  bool rehearse(SeedRun& run) override {
    compact(*run.network(), run.example(), options_);
    return true;
  }
  void run(SeedRun& run) override {
    CompactOptions options = options_;
    options.earlier = run.index_map();
    const CompactionReport report = compact(*run.network(), run.example(), options);
    run.index_map() = report.kept;
    RunFolder(run.folder_of(*this)).write_json(kReportFile, report.to_json());
    run.say("{}", report.to_table());
  }
  void read_back(SeedRun& run) override {
    Stage::read_back(run);
    const RunFolder folder(run.folder_of(*this));
    const nlohmann::json report = folder.read_json(kReportFile);
    if (report.is_null()) return;
    try {
      run.index_map() = index_map_from_json(report.at("kept"));
    } catch (const std::exception&) {  // of the JSON library, or of the map
      fail<FileError>("run", "{}: not what a compaction wrote: expected the indices that were kept; start anew",
                      folder.file(kReportFile));
    }
  }

 private:
  CompactOptions options_;
};

}  // namespace

StagePtr make_compact_stage() { return std::make_shared<CompactStage>(); }

}  // namespace espalier
