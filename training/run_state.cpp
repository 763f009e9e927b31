#include "training/run_state.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <nlohmann/json.hpp>

#include "core/file_errors.h"
#include "core/safetensors.h"

namespace espalier {

namespace {
const std::string kMetricPrefix = "val_";

nlohmann::json number_or_null(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}
std::optional<double> optional_number(const nlohmann::json& json) {
  return json.is_null() ? std::nullopt : std::optional<double>(json.get<double>());
}
}  // namespace

nlohmann::json to_json(const EpochRecord& r) {
  nlohmann::json json = {{"epoch", r.epoch},
                         {"step", r.step},
                         {"train_loss", r.train_loss},
                         {"train_acc", number_or_null(r.train_accuracy)},
                         {"val_loss", number_or_null(r.validation_loss)},
                         {"val_acc", number_or_null(r.validation_accuracy)},
                         {"lr", r.lr},
                         {"images_per_second", r.images_per_second},
                         {"seconds", r.seconds},
                         {"peak_bytes", r.peak_bytes}};
  for (const auto& [name, value] : r.validation_metrics) json[kMetricPrefix + name] = value;
  return json;
}

EpochRecord epoch_record_from_json(const nlohmann::json& json) {
  EpochRecord record{.epoch = json.at("epoch"),
                     .step = json.at("step"),
                     .train_loss = json.at("train_loss"),
                     .train_accuracy = optional_number(json.at("train_acc")),
                     .validation_loss = optional_number(json.at("val_loss")),
                     .validation_accuracy = optional_number(json.at("val_acc")),
                     .lr = json.at("lr"),
                     .images_per_second = json.at("images_per_second"),
                     .seconds = json.at("seconds"),
                     .peak_bytes = json.at("peak_bytes")};
  for (const auto& [key, value] : json.items())
    if (key.starts_with(kMetricPrefix) && key != "val_loss" && key != "val_acc")
      record.validation_metrics[key.substr(kMetricPrefix.size())] = value.get<double>();
  return record;
}

nlohmann::json to_json(const PhiloxState& state) {
  return {{"seed", state.seed}, {"stream", state.stream}, {"offset", state.offset}};
}

PhiloxState philox_state_from_json(const nlohmann::json& json) {
  return {.seed = json.at("seed"), .stream = json.at("stream"), .offset = json.at("offset")};
}

nlohmann::json to_json(const RunState& state) {
  nlohmann::json history = nlohmann::json::array();
  for (const EpochRecord& record : state.history) history.push_back(to_json(record));
  return {{"epoch", state.epoch},
          {"batch", state.batch},
          {"step", state.step},
          {"loss_sum", state.loss.sum()},
          {"examples", state.loss.examples()},
          {"correct", state.correct ? nlohmann::json(*state.correct) : nlohmann::json()},
          {"seconds", state.seconds},
          {"peak_bytes", state.peak_bytes},
          {"best_epoch", state.best_epoch},
          {"best_score", state.best_score},
          {"best_loss", state.best_loss},
          {"epochs_since_best", state.epochs_since_best},
          {"history", history}};
}

RunState run_state_from_json(const nlohmann::json& json) {
  RunState state;
  state.epoch = json.at("epoch");
  state.batch = json.at("batch");
  state.step = json.at("step");
  state.loss.set(json.at("loss_sum"), json.at("examples"));
  if (!json.at("correct").is_null()) state.correct = json.at("correct").get<int64_t>();
  state.seconds = json.at("seconds");
  state.peak_bytes = json.at("peak_bytes");
  state.best_epoch = json.at("best_epoch");
  // Checkpoints of versions that trained nothing but classifiers have the accuracy.
  state.best_score = json.contains("best_score") ? json.at("best_score") : json.at("best_accuracy");
  state.best_loss = json.at("best_loss");
  state.epochs_since_best = json.at("epochs_since_best");
  for (const nlohmann::json& record : json.at("history")) state.history.push_back(epoch_record_from_json(record));
  return state;
}

void write_metrics(const RunFolder& folder, const std::vector<EpochRecord>& history) {
  if (!folder.is_used()) return;
  std::string text;
  for (const EpochRecord& record : history) text += to_json(record).dump() + "\n";
  write_file_atomically(folder.file(kMetricsFile), text);
}

void append_metrics(const RunFolder& folder, const EpochRecord& record) {
  if (!folder.is_used()) return;
  const std::string path = folder.file(kMetricsFile);
  errno = 0;
  std::ofstream file(path, std::ios::app);
  file << to_json(record).dump() << '\n' << std::flush;
  if (!file) fail<WriteError>("Trainer::fit", "cannot write {}: {}", path, std::strerror(errno));
}

}  // namespace espalier
