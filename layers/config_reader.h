// ConfigReader: strict access to a module's JSON configuration. Internal: included by .cpp files only.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "layers/module.h"
#include "layers/size2d.h"

namespace espalier {

/// A value that is formatted as JSON, cut to a readable length; in messages only, so that it costs nothing without one.
struct ShownJson {
  const nlohmann::json& value;
};

}  // namespace espalier

template <>
struct fmt::formatter<espalier::ShownJson> : fmt::formatter<std::string> {
  template <class Context>
  auto format(const espalier::ShownJson& shown, Context& context) const {
    const std::string text = shown.value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return fmt::formatter<std::string>::format(text.size() > 60 ? text.substr(0, 60) + "..." : text, context);
  }
};

namespace espalier {

inline nlohmann::json to_json(const Size2d& size) {
  if (size.h == size.w) return size.h;
  return nlohmann::json::array({size.h, size.w});
}

/// Reads the keys of one object; what was not read is an unknown key (finish). Every error names the type and the key.
class ConfigReader {
 public:
  explicit ConfigReader(const nlohmann::json& config) : config_(config), read_{"type"} {
    check(config.is_object(), kWhere, "expected a JSON object with a \"type\", got {}", shown(config));
    type_ = config.value("type", std::string("model"));
  }

  bool has(const std::string& key) {
    read_.push_back(key);
    return config_.contains(key);
  }
  const nlohmann::json& at(const std::string& key) {
    check(has(key), kWhere, "{} needs the key \"{}\"", type_, key);
    return config_.at(key);
  }

  int64_t integer(const std::string& key) {
    const nlohmann::json& value = at(key);
    check(value.is_number_integer(), kWhere, "\"{}\" of {} must be a whole number, got {}", key, type_, shown(value));
    return value.get<int64_t>();
  }
  int64_t integer(const std::string& key, int64_t fallback) { return has(key) ? integer(key) : fallback; }

  double number(const std::string& key, double fallback) {
    if (!has(key)) return fallback;
    const nlohmann::json& value = config_.at(key);
    check(value.is_number(), kWhere, "\"{}\" of {} must be a number, got {}", key, type_, shown(value));
    return value.get<double>();
  }

  bool boolean(const std::string& key, bool fallback) {
    if (!has(key)) return fallback;
    const nlohmann::json& value = config_.at(key);
    check(value.is_boolean(), kWhere, "\"{}\" of {} must be true or false, got {}", key, type_, shown(value));
    return value.get<bool>();
  }

  std::string text(const std::string& key) {
    const nlohmann::json& value = at(key);
    check(value.is_string(), kWhere, "\"{}\" of {} must be a string, got {}", key, type_, shown(value));
    return value.get<std::string>();
  }

  Size2d size2d(const std::string& key, Size2d fallback) {
    if (!has(key)) return fallback;
    const nlohmann::json& value = config_.at(key);
    if (value.is_number_integer()) return Size2d(value.get<int64_t>());
    check(value.is_array() && value.size() == 2 && value[0].is_number_integer() && value[1].is_number_integer(), kWhere,
          "\"{}\" of {} must be a whole number or [height, width], got {}", key, type_, shown(value));
    return {value[0].get<int64_t>(), value[1].get<int64_t>()};
  }

  std::vector<int64_t> integers(const std::string& key) {
    const nlohmann::json& value = at(key);
    check(value.is_array(), kWhere, "\"{}\" of {} must be a list of whole numbers, got {}", key, type_, shown(value));
    for (const auto& item : value)
      check(item.is_number_integer(), kWhere, "\"{}\" of {} must hold whole numbers, got {}", key, type_, shown(item));
    return value.get<std::vector<int64_t>>();
  }

  ModulePtr module(const std::string& key) { return module_from_config(at(key)); }

  /// Throws on a key that nobody read.
  void finish() const {
    for (const auto& [key, value] : config_.items())
      check(std::find(read_.begin(), read_.end(), key) != read_.end(), kWhere, "{} has no option \"{}\"{}", type_, key,
            did_you_mean(key, read_));
  }

 private:
  static constexpr const char* kWhere = "module_from_config";
  static ShownJson shown(const nlohmann::json& value) { return {value}; }

  const nlohmann::json& config_;
  std::string type_;
  std::vector<std::string> read_;
};

}  // namespace espalier
