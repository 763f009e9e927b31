// [[stage]] type = "regrow": removed units return, at 0, where the dense gradient is largest.
#include "pruning/recovery/regrow.h"

#include <algorithm>

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class RegrowStage : public Stage {
 public:
  void fields(FieldVisitor& f) override {
    f("share", share_, share(), "Of the removed units");
    pattern_field(f, pattern_, true);
    f("protect", protect_, "Layers that get nothing back; names may end in '*'");
    f("batches", batches_, at_least(1), "Of 128 images, for the gradients");
  }
  void settle(const Recipe&) override { check_free_pattern(pattern_); }
  std::string describe() const override {
    return fmt::format("{}: {:.4g} % of the {} that are gone come back", type, 100 * share_, noun(pattern_));
  }

  bool rehearse(SeedRun& run) override {
    sites(run);
    return true;
  }
  void run(SeedRun& run) override {
    const std::vector<Site> sites = this->sites(run);
    const std::vector<int64_t> grown = regrow_share(
        sites, dense_gradients(*run.network(), sites, run.train(), {.batches = batches_, .seed = run.seed()}), share_);
    if (std::all_of(grown.begin(), grown.end(), [](int64_t units) { return units == 0; }))
      run.warn(
          "    warning: nothing came back: no unit of this pattern is gone, or the share is less than half of one");
    run.say_sparsity(count_sparsity(sites));
  }

 private:
  std::vector<Site> sites(SeedRun& run) const {
    return unprotected_sites(*run.network(), run.example(), pattern_, protect_);
  }

  double share_ = 0.1;
  std::string pattern_ = "element";
  std::vector<std::string> protect_;
  int64_t batches_ = 8;
};

}  // namespace

StagePtr make_regrow_stage() { return std::make_shared<RegrowStage>(); }

}  // namespace espalier
