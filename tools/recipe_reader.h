// Strict access to the tables of a TOML file. Not for others than recipe.cpp.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/ranges.h>
#include <toml++/toml.h>

#include "core/error.h"

namespace espalier::tools {

/// Strict access to one table: every error names file, line and key; what nobody read is an unknown key (finish).
class TableReader {
 public:
  TableReader(const toml::table& table, std::string source, std::string what)
      : table_(table), source_(std::move(source)), what_(std::move(what)) {}

  template <class T>
  std::optional<T> get(const std::string& key) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    if constexpr (std::is_same_v<T, double>) {
      if (node->is_number()) return node->value<double>();
      fail_at(*node, key, "a number");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (node->is_boolean()) return node->value<bool>();
      fail_at(*node, key, "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      const auto value = node->is_integer() ? node->value<int64_t>() : std::nullopt;
      if (value && *value >= 0) return static_cast<T>(*value);
      fail_at(*node, key, "a whole number of at least 0");
    } else {
      if (node->is_string()) return node->value<std::string>();
      fail_at(*node, key, "a text in quotes");
    }
  }

  template <class T>
  void read(const std::string& key, T& value) {
    if (const auto given = get<T>(key)) value = *given;
  }
  template <class T>
  void read(const std::string& key, std::optional<T>& value) {
    if (auto given = get<T>(key)) value = std::move(given);
  }
  void read(const std::string& key, std::vector<std::string>& value) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if (!node->is_array()) fail_at(*node, key, "a list of texts");
    value.clear();
    for (const toml::node& item : *node->as_array()) {
      if (!item.is_string()) fail_at(item, key, "a list of texts");
      value.push_back(*item.value<std::string>());
    }
  }
  void read(const std::string& key, std::map<std::string, double>& value) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if (!node->is_table()) fail_at(*node, key, "a table such as { \"fc1.weight\" = 0.9 }");
    for (const auto& [name, item] : *node->as_table()) {
      if (!item.is_number()) fail_at(item, key, "numbers");
      value[std::string(name.str())] = *item.value<double>();
    }
  }

  /// The tables of [[stage.term]].
  std::vector<const toml::table*> tables(const std::string& key) {
    known_.push_back(key);
    std::vector<const toml::table*> result;
    const toml::node* node = table_.get(key);
    if (node == nullptr) return result;
    if (!node->is_array_of_tables()) fail_at(*node, key, "[[stage.term]] tables");
    for (const toml::node& item : *node->as_array()) result.push_back(item.as_table());
    return result;
  }

  template <class E = ArgumentError>
  [[noreturn]] void fail_here(const std::string& message) const {
    fail<E>("recipe", "{}:{}: {}", source_, table_.source().begin.line, message);
  }

  void expect_share(const char* key, double value) const {
    if (!(value >= 0 && value <= 1)) fail_here(fmt::format("expected {} in [0,1], got {}", key, value));
  }

  void finish() const {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (std::find(known_.begin(), known_.end(), name) == known_.end())
        fail<ArgumentError>("recipe", "{}:{}: {} has no key '{}'{}; known: {}", source_, key.source().begin.line, what_,
                            name, did_you_mean(name, known_), fmt::join(known_, ", "));
    }
  }
  void know(const std::string& key) { known_.push_back(key); }

 private:
  [[noreturn]] void fail_at(const toml::node& node, const std::string& key, const char* expected) const {
    std::ostringstream shown;
    node.visit([&](const auto& value) { shown << value; });
    fail<ArgumentError>("recipe", "{}:{}: {} '{}': expected {}, got {}", source_, node.source().begin.line, what_, key,
                        expected, shown.str());
  }

  const toml::table& table_;
  std::string source_, what_;
  std::vector<std::string> known_;
};

}  // namespace espalier::tools
