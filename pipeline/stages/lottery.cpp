// [[stage]] type = "lottery": train, prune, go back to early weights, train again what is left.
#include "pruning/schedules/lottery.h"

#include "pipeline/search_stage.h"
#include "pipeline/stages.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class LotteryStage : public SearchStage {
 public:
  bool rehearse(SeedRun& run) override {
    rehearse_lesson(run);
    check_lottery(*run.network(), sites_of(*run.network(), run.example(), pattern_), options(run, nullptr));
    return false;
  }

  void run(SeedRun& run) override {
    const std::vector<Site> sites = sites_of(*run.network(), run.example(), pattern_);
    const LotteryOptions options = this->options(run, find_teacher(run));
    const LotteryResult result = find_lottery_ticket(run.network(), sites, run.train(), run.validation(), {}, options);
    for (const LotteryRound& round : result.rounds)
      run.say("    round {}: {:.2f} % masked{}", round.round, 100 * round.sparsity,
              round.validation_accuracy
                  ? fmt::format(", validation accuracy {:.2f} %", 100 * *round.validation_accuracy)
                  : "");
    for (const LotteryRound& round : result.rounds)
      if (!round.untouched.empty())
        run.warn(
            "    warning: round {} removed nothing of {}: the rate is less than half a unit of what is left; take a "
            "larger rate or smaller units",
            round.round, fmt::join(round.untouched, ", "));
    if (result.finished) run.warn_of_collapses(sites, 1);
  }

 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, options_);
    pattern_field(f, pattern_);
    criterion_field(f, criterion_);
  }
  void settle_own(const Recipe&) override {
    const double last = options_.rate * options_.output_rate;
    if (!(last >= 0 && last < 1)) refuse("expected rate * output_rate in [0,1), got {}", last);
    check_pattern(pattern_);
    refuse_watcher(criterion_, "a lottery stage scores the networks that its rounds leave, take another");
    if (options_.scope == Scope::erk)
      refuse("rounds remove shares by layer or globally; expected scope = \"layer\" or \"global\", got \"erk\"");
    if (!options_.rate_of.empty() && options_.scope != Scope::layer)
      refuse("rate_of gives layers rates of their own; expected scope = \"layer\", got \"{}\"",
             name_of(options_.scope));
  }
  std::string describe_own() const override {
    return fmt::format(" ticket: {} rounds of {:.4g} % of the {}, rewound to step {}", options_.rounds,
                       100 * options_.rate, noun(pattern_), options_.rewind_step);
  }

 private:
  LotteryOptions options(SeedRun& run, const ModulePtr& teacher) const {
    LotteryOptions options = options_;
    options.training = plan(run, teacher);
    options.criterion = make_criterion(criterion_);
    options.folder = rounds_folder(run);
    return options;
  }

  LotteryOptions options_;
  std::string pattern_ = "element";
  PartChoice criterion_ = {.name = "magnitude"};
};

}  // namespace

StagePtr make_lottery_stage() { return std::make_shared<LotteryStage>(); }

}  // namespace espalier
