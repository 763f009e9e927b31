#include "pruning/schedules/surgery.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/bits.h"
#include "core/fields.h"
#include "core/ops.h"
#include "core/random.h"
#include "pruning/equal_units.h"
#include "pruning/identity.h"
#include "pruning/learned/units.h"

namespace espalier {

namespace {
constexpr uint64_t kSurgeryStream = 0x73757267;

/// Whether a site's units are the single weights of one parameter: millions, so that they are treated as words.
bool is_of_single_weights(const Site& site) {
  return site.members.size() == 1 && site.members[0].masked && site.members[0].site_units.empty() &&
         site.members[0].pattern == Pattern::element();
}

/// Flips the bits of `exists` that are set in `changes`.
void flip(const Tensor& changes, std::vector<bool>& exists) {
  const std::vector<int64_t> words = changes.to_vector<int64_t>();
  for (size_t w = 0; w < words.size(); ++w)
    for (auto word = static_cast<uint64_t>(words[w]); word != 0; word &= word - 1)
      exists[w * kWordBits + static_cast<size_t>(std::countr_zero(word))].flip();
}
}  // namespace

void fields(FieldVisitor& f, SurgeryOptions& o) {
  f("c", o.c, "Thresholds are at mean + c * deviation of |w|: the higher, the fewer weights stay");
  f("c_of", o.c_of, "c of single layers");
  f.unless_default("low", o.low, above(0), "Weights below low * threshold are cut");
  f.unless_default("high", o.high, above(0), "Weights above high * threshold are spliced");
  f.unless_default("gamma", o.gamma, at_least(0),
                   "Masks are updated in step i with probability (1 + gamma * i)^-power");
  f.unless_default("power", o.power, at_least(0), "The power of that");
  f.unless_default("begin", o.begin, share_below_one(), "Share of the training after which surgery begins");
  f("harden", o.harden, share_above_zero(), "Share of the training after which the masks are final");
  f.judge([&] {
    check(o.low <= o.high, "NetworkSurgery", "expected low <= high, got {} and {}", o.low, o.high);
    check(o.begin < o.harden, "NetworkSurgery", "expected begin < harden, shares of the training, got {} and {}",
          o.begin, o.harden);
  });
}

NetworkSurgery::NetworkSurgery(std::vector<Site> sites, const SurgeryOptions& options)
    : sites_(std::move(sites)), options_(options) {
  check(!sites_.empty(), "NetworkSurgery", "expected something to prune, got no site");
  check_option_ranges("NetworkSurgery", options);
  check(options.min_units >= 0, "NetworkSurgery", "expected min_units >= 0, got {}", options.min_units);
  check_disjoint("NetworkSurgery", sites_);
  check_no_n_of_m("NetworkSurgery", sites_, "units are spliced one by one");
  for (const auto& [name, c] : options.c_of) check_names("NetworkSurgery", sites_, {name});
  std::vector<std::vector<bool>> exists;
  for (const Site& site : sites_) exists.push_back(existing_units(site));
  register_learned_modules();
  attach();
  set_exists(std::move(exists));
}

void NetworkSurgery::attach() {
  transforms_.attach(sites_, [&](size_t s, size_t m) {
    const Shape& weight = sites_[s].members[m].parameter.shape();
    return std::make_shared<StraightThroughMask>(units_of(sites_[s], m), weight, false, GradientFlow::dense);
  });
}

void NetworkSurgery::set_exists(std::vector<std::vector<bool>> exists) {
  exists_ = std::move(exists);
  masks_ = member_masks(sites_, exists_);
  show_masks(transforms_, sites_, masks_, exists_);
}

std::vector<double> NetworkSurgery::magnitudes(const Site& site) const {
  Site masked = site;
  std::erase_if(masked.members, [](const SiteMember& member) { return !member.masked; });
  Saliencies values;
  for (const SiteMember& member : masked.members) values[member.parameter.id()] = abs(member.parameter.data());
  std::vector<double> sums = unit_scores(masked, values);
  const std::vector<int64_t> weights = existing_unit_weights(masked);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] /= static_cast<double>(std::max<int64_t>(weights[i], 1));
  return sums;
}

double NetworkSurgery::threshold_of(const Site& site, const std::vector<double>& values) const {
  double c = options_.c;
  for (const auto& [name, own] : options_.c_of)
    if (fits_name(name, site.name)) c = own;
  const std::vector<bool> exists = existing_units(site);
  const auto count = static_cast<double>(std::max<int64_t>(std::count(exists.begin(), exists.end(), true), 1));
  double mean = 0, square = 0;
  for (size_t i = 0; i < values.size(); ++i)
    if (exists[i]) mean += values[i] / count;
  for (size_t i = 0; i < values.size(); ++i)
    if (exists[i]) square += (values[i] - mean) * (values[i] - mean);
  return std::max(mean + c * std::sqrt(square / count), 0.0);
}

void NetworkSurgery::update() {
  check(!hard_, "NetworkSurgery", "the masks are final; nothing is cut or spliced any more");
  if (thresholds_.empty())
    for (const Site& site : sites_) thresholds_.push_back(threshold_of(site, magnitudes(site)));
  for (size_t s = 0; s < sites_.size(); ++s) {
    const Site& site = sites_[s];
    // A unit that had its mask before surgery has weights of 0, which are never above a threshold.
    const double low = options_.low * thresholds_[s], high = options_.high * thresholds_[s];
    if (is_of_single_weights(site)) {
      const Tensor sizes = abs(site.members[0].parameter.data()).contiguous();
      const Tensor before = masks_[s][0].words().to(sizes.device());
      const Tensor next = cut_and_splice(sizes, low, high, before);
      if (count_bits(next) >= std::min(options_.min_units, site.units)) {
        const Tensor changes = combine_bits(BitOp::bit_xor, before, next);
        if (count_bits(changes) == 0) continue;
        flip(changes, exists_[s]);
        masks_[s] = {mask_of_words(site, next)};
        continue;
      }
    }
    const std::vector<double> values = magnitudes(site);
    std::vector<bool> exists = exists_[s];
    for (size_t i = 0; i < exists.size(); ++i) {
      if (values[i] < low) exists[i] = false;
      if (values[i] > high) exists[i] = true;
    }
    keep_at_least(exists, existing_units(site), values, options_.min_units);
    masks_[s] = member_masks({site}, {exists}).front();
    exists_[s] = std::move(exists);
  }
  show_masks(transforms_, sites_, masks_, exists_);
}

double NetworkSurgery::sparsity() const { return count_masked(masks_).sparsity(); }

void NetworkSurgery::harden() {
  if (hard_) return;
  transforms_.detach();
  hard_ = true;
  for (size_t s = 0; s < sites_.size(); ++s) set_existing_units(sites_[s], exists_[s]);
}

nlohmann::json NetworkSurgery::config() const {
  nlohmann::json config = identity_of("NetworkSurgery", sites_, options_);
  config["min_units"] = options_.min_units;
  config["seed"] = options_.seed;
  return config;
}

void NetworkSurgery::on_step_end(Trainer&, const StepRecord& record) {
  if (hard_) return;
  const auto step_of = [&](double share) { return std::llround(share * static_cast<double>(record.steps)); };
  // However short the training is, surgery has a step of it.
  const int64_t last = std::max<int64_t>(step_of(options_.harden), 1);
  const int64_t begin = std::min<int64_t>(step_of(options_.begin), last - 1);
  if (record.step <= begin) return;
  const int64_t i = record.step - begin - 1;
  const double probability = std::pow(1 + options_.gamma * static_cast<double>(i), -options_.power);
  Generator generator(options_.seed, kSurgeryStream);
  generator.set_state({options_.seed, kSurgeryStream, static_cast<uint64_t>(record.step)});
  if (generator.next_uniform() < probability) update();
  if (record.step >= last) harden();
}

std::vector<std::pair<std::string, Tensor>> NetworkSurgery::state() const {
  std::vector<std::pair<std::string, Tensor>> result = {
      {"hard", Tensor::scalar(hard_ ? 1 : 0, DType::i64)},
      {"thresholds", Tensor::from(thresholds_, {static_cast<int64_t>(thresholds_.size())})}};
  for (size_t s = 0; s < sites_.size(); ++s) result.emplace_back(fmt::format("exists/{}", s), pack_bits(exists_[s]));
  return result;
}

void NetworkSurgery::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  const auto find = [&](const std::string& name) { return find_state("NetworkSurgery", state, name); };
  std::vector<std::vector<bool>> exists;
  for (size_t s = 0; s < sites_.size(); ++s)
    exists.push_back(unpack_bits(find(fmt::format("exists/{}", s)), static_cast<size_t>(sites_[s].units)));
  thresholds_ = find("thresholds").to_vector<double>();
  hard_ = find("hard").item() != 0;
  // The checkpoint brought the weights and, if the masks were final, the masks.
  if (hard_)
    transforms_.detach();
  else
    attach();
  set_exists(std::move(exists));
}

}  // namespace espalier
