#include "pruning/learned/learned_masks.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/bits.h"
#include "core/fields.h"
#include "core/ops.h"
#include "pruning/equal_units.h"
#include "pruning/identity.h"
#include "pruning/learned/units.h"

namespace espalier {

EnumNames names_of(Selection) {
  static constexpr std::pair<Selection, const char*> kNames[] = {{Selection::top_k, "top-k"},
                                                                 {Selection::threshold, "threshold"}};
  return {"selection", kNames};
}

EnumNames names_of(InitialScores) {
  static constexpr std::pair<InitialScores, const char*> kNames[] = {{InitialScores::zero, "zero"},
                                                                     {InitialScores::magnitude, "magnitude"}};
  return {"kind of initial scores", kNames};
}

void fields(FieldVisitor& f, LearnedMaskOptions& o) {
  f("selection", o.selection, "Which units exist: the best ones, or those above a threshold");
  f("initial", o.initial, "Scores at the start");
  f("sparsity", o.sparsity, share_below_one(), "Of top-k, at the end");
  f("threshold", o.threshold, "The least score of units that exist");
  f("penalty", o.penalty, at_least(0), "Times the mean of sigmoid(score): what makes thresholds remove anything");
  f("curve", o.curve, "How the sparsity rises");
  f("begin", o.begin, share(), "Share of the training after which it begins to rise");
  f("end", o.end, share(), "Share of the training in which it rises");
  f("harden", o.harden, share(), "Share of the training after which the masks are final");
  f("every", o.every, at_least(1), "Steps between two selections");
  f("scope", o.allocation.scope, "Where scores are compared");
  f.judge([&] {
    check(o.begin <= o.end && o.end <= o.harden, "LearnedMasks",
          "expected 0 <= begin <= end <= harden <= 1, shares of the training, got {}, {} and {}", o.begin, o.end,
          o.harden);
  });
}

LearnedMasks::LearnedMasks(ModulePtr module, std::vector<Site> sites, const LearnedMaskOptions& options)
    : module_(std::move(module)), sites_(std::move(sites)), options_(options) {
  check(module_ != nullptr && !sites_.empty(), "LearnedMasks", "expected a module and at least one site");
  check_option_ranges("LearnedMasks", options);
  check_disjoint("LearnedMasks", sites_);
  if (options.selection == Selection::threshold) {
    check_names(sites_, options.allocation);
    check_no_n_of_m("LearnedMasks", sites_, "a threshold judges units one by one, unlike top_k");
  }
  for (const Site& site : sites_) {
    Saliencies magnitudes;
    for (const SiteMember& member : site.members)
      if (member.masked) magnitudes[member.parameter.id()] = abs(member.parameter.data());
    const Tensor& like = site.members.front().parameter.data();
    Tensor initial = Tensor::zeros({site.units}, like.dtype(), like.device());
    if (options.initial == InitialScores::magnitude)
      initial.copy_(Tensor::from(unit_scores(site, magnitudes), {site.units}));
    scores_.emplace_back("scores." + site.name, Parameter("scores." + site.name, initial));
  }
  register_learned_modules();
  attach();
  select(0);
}

void LearnedMasks::attach() {
  units_ = 0;
  for (const Site& site : sites_) {
    const std::vector<bool> exists = existing_units(site);
    units_ += std::count(exists.begin(), exists.end(), true);
  }
  transforms_.attach(sites_, [&](size_t s, size_t m) {
    const Shape& weight = sites_[s].members[m].parameter.shape();
    auto mask = std::make_shared<StraightThroughMask>(units_of(sites_[s], m), weight, true, options_.flow);
    mask->share_parameter("scores", scores_[s].second);
    return mask;
  });
}

void LearnedMasks::set_exists(std::vector<std::vector<bool>> exists) {
  exists_ = std::move(exists);
  masks_ = member_masks(sites_, exists_);
  show_masks(transforms_, sites_, masks_, exists_);
}

void LearnedMasks::select(double sparsity) {
  check(!hard_, "LearnedMasks", "the masks are final; nothing is selected any more");
  std::vector<Candidates> sets;
  for (size_t s = 0; s < sites_.size(); ++s) {
    const Tensor values = scores_[s].second.data().contiguous();
    sets.push_back({values, existing_words(sites_[s]).to(values.device())});
  }
  std::vector<Tensor> words;
  if (options_.selection == Selection::threshold) {
    for (size_t s = 0; s < sites_.size(); ++s) words.push_back(above_threshold(sites_[s], sets[s]));
  } else if (have_equal_units(sites_, options_.allocation)) {
    check_allocation(sites_, sparsity, options_.allocation);
    words = allocate_words(sites_, std::move(sets), sparsity, options_.allocation);
  } else {
    std::vector<std::vector<double>> values;
    std::vector<std::vector<bool>> candidates;
    for (size_t s = 0; s < sites_.size(); ++s) {
      values.push_back(sets[s].scores.to_vector<double>());
      candidates.push_back(units_of_words(sites_[s], sets[s].words));
    }
    return set_exists(allocate(sites_, values, candidates, sparsity, options_.allocation));
  }
  std::vector<std::vector<bool>> chosen;
  for (size_t s = 0; s < sites_.size(); ++s) chosen.push_back(units_of_words(sites_[s], words[s]));
  set_exists(std::move(chosen));
}

Tensor LearnedMasks::above_threshold(const Site& site, const Candidates& candidates) const {
  if (names_include(options_.allocation.protect, site.name)) return candidates.words;
  const Tensor above = combine_bits(BitOp::bit_and, candidates.words, at_least(candidates.scores, options_.threshold));
  const int64_t least = options_.allocation.min_units;
  return count_bits(above) >= least ? above : highest_of(candidates, least);
}

double LearnedMasks::sparsity() const { return count_masked(masks_).sparsity(); }

void LearnedMasks::harden() {
  if (hard_) return;
  transforms_.detach();
  hard_ = true;
  for (size_t s = 0; s < sites_.size(); ++s) {
    set_existing_units(sites_[s], exists_[s]);
    scores_[s].second.zero_grad();
  }
}

void LearnedMasks::on_gradients(Trainer&, const StepRecord&) {
  if (hard_ || options_.penalty == 0) return;
  for (auto& [name, score] : scores_) {
    const Tensor p = unary(UnaryOp::sigmoid, score.data());
    Tensor slope = p * (1.0 - p) * (options_.penalty / static_cast<double>(std::max<int64_t>(units_, 1)));
    Variable leaf = score.variable();
    leaf.set_grad(Variable(score.grad().defined() ? score.grad() + slope : slope));
  }
}

nlohmann::json LearnedMasks::config() const {
  nlohmann::json config = identity_of("LearnedMasks", sites_, options_);
  config["allocation"] = identity_of(options_.allocation);
  config["dense_gradients"] = options_.flow == GradientFlow::dense;
  return config;
}

void LearnedMasks::on_epoch_begin(Trainer& trainer, int64_t epoch) {
  // A schedule that ends where the training begins chooses before the first step.
  if (epoch == 1) follow(0, trainer.total_steps());
}

void LearnedMasks::on_step_end(Trainer&, const StepRecord& record) { follow(record.step, record.steps); }

void LearnedMasks::follow(int64_t step, int64_t total) {
  if (hard_) return;
  const auto step_of = [total](double share) { return std::llround(share * static_cast<double>(total)); };
  const int64_t begin = step_of(options_.begin), end = step_of(options_.end), last = step_of(options_.harden);
  if (step % options_.every == 0 || step == end || step >= last) {
    double sparsity = step >= end ? options_.sparsity : 0;
    if (step > begin && step < end)
      sparsity = sparsity_at(options_.curve, static_cast<double>(step - begin) / static_cast<double>(end - begin), 0,
                             options_.sparsity);
    select(sparsity);
  }
  if (step >= last) harden();
}

std::vector<std::pair<std::string, Tensor>> LearnedMasks::state() const {
  std::vector<std::pair<std::string, Tensor>> result = {{"hard", Tensor::scalar(hard_ ? 1 : 0, DType::i64)}};
  for (size_t s = 0; s < sites_.size(); ++s) {
    result.emplace_back(fmt::format("scores/{}", s), scores_[s].second.data());
    result.emplace_back(fmt::format("exists/{}", s), pack_bits(exists_[s]));
  }
  return result;
}

void LearnedMasks::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  const auto find = [&](const std::string& name) { return find_state("LearnedMasks", state, name); };
  std::vector<std::vector<bool>> exists;
  for (size_t s = 0; s < sites_.size(); ++s) {
    const Tensor values = find(fmt::format("scores/{}", s));
    if (values.shape() != scores_[s].second.shape())
      fail<FileError>("LearnedMasks", "the checkpoint has scores of shape {} for '{}', expected {}", values.shape(),
                      sites_[s].name, scores_[s].second.shape());
    scores_[s].second.set_data(values.clone());
    exists.push_back(unpack_bits(find(fmt::format("exists/{}", s)), static_cast<size_t>(sites_[s].units)));
  }
  hard_ = find("hard").item() != 0;
  // The checkpoint brought the weights and, if the masks were final, the masks.
  if (hard_)
    transforms_.detach();
  else
    attach();
  set_exists(std::move(exists));
}

}  // namespace espalier
