#include "pruning/removals.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "core/json.h"

namespace espalier {

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

/// A tensor of a record, as a vector. Throws when it isn't there, or isn't of this dtype and length (none: any length).
template <class T>
std::vector<T> values_of(const NamedTensors& tensors, const std::string& name, DType dtype,
                         std::optional<int64_t> length) {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const auto& entry) { return entry.first == name; });
  if (found == tensors.end()) fail<FileError>("removals", "expected a tensor '{}', found none", name);
  const Tensor& tensor = found->second;
  if (tensor.dtype() != dtype || (length && tensor.numel() != *length))
    fail<FileError>("removals", "expected '{}' to hold {} {} values, got {}", name,
                    length ? std::to_string(*length) : "any number of", name_of(dtype), describe(tensor));
  return tensor.to_vector<T>();
}

}  // namespace

RemovalRecord::RemovalRecord(std::string criterion, Scope scope, const std::vector<Site>& sites)
    : criterion_(std::move(criterion)), scope_(scope) {
  for (const Site& site : sites) {
    names_.push_back(site.name);
    units_.push_back(site.units);
  }
  if (std::accumulate(units_.begin(), units_.end(), int64_t{0}) > kMostUnits) return;
  for (int64_t units : units_) {
    event_.emplace_back(static_cast<size_t>(units), 0);
    score_.emplace_back(static_cast<size_t>(units), 0.0f);
  }
}

void RemovalRecord::add(double sparsity, const std::vector<std::vector<double>>& scores,
                        const std::vector<std::vector<bool>>& existed, const std::vector<std::vector<bool>>& exists) {
  if (!has_units() || existed == exists) return;
  forget(existed);
  sparsity_.push_back(sparsity);
  for (size_t s = 0; s < names_.size(); ++s) {
    int64_t candidates = 0;
    double spared = kNone;
    for (size_t u = 0; u < exists[s].size(); ++u) {
      candidates += existed[s][u] ? 1 : 0;
      if (exists[s][u]) spared = std::min(spared, scores[s][u]);
      if (existed[s][u] == exists[s][u]) continue;
      event_[s][u] = exists[s][u] ? 0 : static_cast<int32_t>(prunings());
      score_[s][u] = exists[s][u] ? 0 : static_cast<float>(scores[s][u]);
    }
    candidates_.push_back(candidates);
    spared_.push_back(spared);
  }
}

void RemovalRecord::set_budget(std::string budget, bool per_cost) {
  budget_ = std::move(budget);
  per_cost_ = per_cost;
}

void RemovalRecord::forget(const std::vector<std::vector<bool>>& exists) {
  for (size_t s = 0; s < event_.size(); ++s)
    for (size_t u = 0; u < event_[s].size(); ++u)
      if (exists[s][u]) event_[s][u] = 0;
}

int64_t RemovalRecord::candidates_of(int64_t event, size_t site) const {
  const auto row = candidates_.begin() + (event - 1) * static_cast<int64_t>(names_.size());
  if (scope_ != Scope::global) return row[static_cast<int64_t>(site)];
  return std::accumulate(row, row + static_cast<int64_t>(names_.size()), int64_t{0});
}

double RemovalRecord::spared_of(int64_t event, size_t site) const {
  const auto row = spared_.begin() + (event - 1) * static_cast<int64_t>(names_.size());
  if (scope_ != Scope::global) return row[static_cast<int64_t>(site)];
  return *std::min_element(row, row + static_cast<int64_t>(names_.size()));
}

std::vector<Removal> RemovalRecord::removed(size_t site) const {
  if (!has_units()) return {};
  // All units that were compared with this site's, in the order in which they went.
  std::vector<std::tuple<int32_t, float, size_t, size_t>> order;
  for (size_t s = 0; s < names_.size(); ++s) {
    if (s != site && scope_ != Scope::global) continue;
    for (size_t u = 0; u < event_[s].size(); ++u)
      if (event_[s][u] > 0) order.emplace_back(event_[s][u], score_[s][u], s, u);
  }
  std::sort(order.begin(), order.end());
  std::vector<Removal> result;
  int64_t rank = 0;
  int32_t last = 0;
  for (const auto& [event, score, s, u] : order) {
    rank = event == last ? rank + 1 : 1;
    last = event;
    if (s != site) continue;
    result.push_back({.unit = static_cast<int64_t>(u),
                      .event = event,
                      .sparsity = sparsity_[static_cast<size_t>(event - 1)],
                      .score = score,
                      .rank = rank,
                      .candidates = candidates_of(event, site),
                      .spared = spared_of(event, site)});
  }
  return result;
}

NamedTensors RemovalRecord::state() const {
  const auto sites = static_cast<int64_t>(names_.size());
  NamedTensors tensors = {{"sparsity", Tensor::from<double>(sparsity_, {prunings()})},
                          {"candidates", Tensor::from<int64_t>(candidates_, {prunings(), sites})},
                          {"spared", Tensor::from<double>(spared_, {prunings(), sites})}};
  for (size_t s = 0; s < event_.size(); ++s) {
    tensors.emplace_back(names_[s] + ".event", Tensor::from<int32_t>(event_[s], {units_[s]}));
    tensors.emplace_back(names_[s] + ".score", Tensor::from<float>(score_[s], {units_[s]}));
  }
  return tensors;
}

void RemovalRecord::load_state(const NamedTensors& tensors) {
  sparsity_ = values_of<double>(tensors, "sparsity", DType::f64, std::nullopt);
  const int64_t entries = prunings() * static_cast<int64_t>(names_.size());
  candidates_ = values_of<int64_t>(tensors, "candidates", DType::i64, entries);
  spared_ = values_of<double>(tensors, "spared", DType::f64, entries);
  for (size_t s = 0; s < event_.size(); ++s) {
    event_[s] = values_of<int32_t>(tensors, names_[s] + ".event", DType::i32, units_[s]);
    score_[s] = values_of<float>(tensors, names_[s] + ".score", DType::f32, units_[s]);
    for (float score : score_[s])
      if (std::isnan(score)) fail<FileError>("removals", "'{}.score': expected numbers, got NaN", names_[s]);
    for (int32_t event : event_[s])
      if (event < 0 || event > prunings())
        fail<FileError>("removals", "'{}.event': expected prunings from 0 to {}, got {}", names_[s], prunings(), event);
  }
}

void RemovalRecord::save(const std::string& path) const {
  save_safetensors(path, state(),
                   {{"criterion", criterion_},
                    {"budget", budget_},
                    {"per_cost", per_cost_ ? "true" : "false"},
                    {"scope", name_of(scope_)},
                    {"sites", nlohmann::json(names_).dump()},
                    {"units", nlohmann::json(units_).dump()}});
}

RemovalRecord RemovalRecord::load(const std::string& path) {
  const SafetensorsFile file = load_safetensors(path);
  RemovalRecord record;
  try {
    record.criterion_ = file.metadata.at("criterion");
    record.scope_ = parse_scope(file.metadata.at("scope"));
    // Earlier files have no entry of a budget.
    if (file.metadata.contains("budget"))
      record.set_budget(file.metadata.at("budget"), file.metadata.at("per_cost") == "true");
    record.names_ = parse_json(file.metadata.at("sites")).get<std::vector<std::string>>();
    record.units_ = parse_json(file.metadata.at("units")).get<std::vector<int64_t>>();
    if (record.names_.size() != record.units_.size())
      fail<FileError>("removals", "{} sites, but {} numbers of units", record.names_.size(), record.units_.size());
    for (int64_t units : record.units_)
      if (units < 0) fail<FileError>("removals", "expected numbers of units, at least 0, got {}", units);
    record.event_.resize(record.names_.size());
    record.score_.resize(record.names_.size());
    record.load_state(file.tensors);
  } catch (const std::exception& error) {
    fail<FileError>("removals", "{}: expected a record of removed units: {}", path, error.what());
  }
  return record;
}

}  // namespace espalier
