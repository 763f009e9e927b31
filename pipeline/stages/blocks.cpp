// [[stage]] type = "blocks": residual blocks whose absence costs least are masked as a whole.
#include "pruning/structure/blocks.h"

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"

namespace espalier {

namespace {

class BlocksStage : public Stage {
 public:
  void fields(FieldVisitor& f) override { f("drop", drop_, at_least(0), "How many residual blocks go"); }
  void settle(const Recipe&) override {
    if (drop_ < 1) refuse("expected drop = 1 residual block or more, got {}", drop_);
  }
  std::string describe() const override { return fmt::format("{}: {} of them masked as a whole", type, drop_); }

  bool rehearse(SeedRun& run) override {
    mask_least_important_blocks(*run.network(), drop_, {});
    return true;
  }
  void run(SeedRun& run) override {
    constexpr int64_t kBatches = 20;  // of training images
    const std::vector<BlockImportance> worth =
        run.validation().size() > 0 ? block_importances(*run.network(), run.validation())
                                    : block_importances(*run.network(), run.train(), {.batches = kBatches});
    for (const BlockImportance& block : mask_least_important_blocks(*run.network(), drop_, worth))
      run.say("    {}: the loss rises by {:.4f} without it", block.name, block.increase);
  }

 private:
  int64_t drop_ = 0;
};

}  // namespace

StagePtr make_blocks_stage() { return std::make_shared<BlocksStage>(); }

}  // namespace espalier
