#include "pipeline/toml_fields.h"

#include <algorithm>
#include <sstream>

#include <nlohmann/json.hpp>

#include "pipeline/toml_text.h"

namespace espalier {

namespace {

/// Of whole numbers above 2^53 toml++ makes no double.
double number_of(const toml::node& node) {
  return node.is_integer() ? static_cast<double>(*node.value<int64_t>()) : *node.value<double>();
}

}  // namespace

void TomlReader::fail_here(const std::string& message) const {
  fail("recipe", "{}:{}: {}", source_, table_.source().begin.line, message);
}

void TomlReader::judge(const std::function<void()>& check) { checks_.push_back(check); }

void TomlReader::fail_at(const toml::node& node, const std::string& key, const std::string& expected) const {
  std::ostringstream shown;
  node.visit([&](const auto& value) { shown << value; });
  fail("recipe", "{}:{}: {} '{}': expected {}, got {}", source_, node.source().begin.line, what_, key, expected,
       shown.str());
}

void TomlReader::check_number(const Field& field, double value) const {
  if (!field.range.contains(value))
    fail("recipe", "{}:{}: expected {} {}, got {}", source_, node_->source().begin.line, field.name,
         field.range.expectation(), value);
}

std::vector<const toml::table*> TomlReader::tables(const std::string& key) {
  known_.push_back(key);
  std::vector<const toml::table*> result;
  const toml::node* node = table_.get(key);
  if (node == nullptr) return result;
  if (!node->is_array_of_tables()) fail_at(*node, key, fmt::format("[[{}]] tables", key));
  for (const toml::node& item : *node->as_array()) result.push_back(item.as_table());
  return result;
}

void TomlReader::finish() const {
  for (const auto& [key, node] : table_) {
    const std::string name(key.str());
    if (std::find(known_.begin(), known_.end(), name) == known_.end())
      fail("recipe", "{}:{}: {} has no key '{}'{}; known: {}", source_, key.source().begin.line, what_, name,
           did_you_mean(name, known_), fmt::join(known_, ", "));
  }
  for (const std::function<void()>& check : checks_) with_line(check);
}

void TomlReader::with_line(const std::function<void()>& act) const {
  try {
    act();
  } catch (const ArgumentError& error) {
    // What the options themselves say, or the parser of a value.
    const std::string message = error.what(), own = "[stage] ";
    if (message.starts_with("[recipe]")) throw;
    fail_here(message.starts_with(own) ? message.substr(own.size()) : message);
  }
}

bool TomlReader::enter(const Field& field, bool) {
  known_.push_back(field.name);
  node_ = table_.get(field.name);
  return node_ != nullptr;
}

void TomlReader::visit_value(const Field& field, bool& value) {
  if (!node_->is_boolean()) fail_at(*node_, field.name, "true or false");
  value = *node_->value<bool>();
}

void TomlReader::visit_value(const Field& field, int64_t& value) {
  if (!node_->is_integer() || *node_->value<int64_t>() < 0) fail_at(*node_, field.name, "a whole number of at least 0");
  value = *node_->value<int64_t>();
  check_number(field, static_cast<double>(value));
}

void TomlReader::visit_value(const Field& field, uint64_t& value) {
  int64_t number = 0;
  visit_value(field, number);
  value = static_cast<uint64_t>(number);
}

void TomlReader::visit_value(const Field& field, double& value) {
  if (!node_->is_number()) fail_at(*node_, field.name, "a number");
  value = number_of(*node_);
  check_number(field, value);
}

void TomlReader::visit_value(const Field& field, std::string& value) {
  if (!node_->is_string()) fail_at(*node_, field.name, "a text in quotes");
  value = *node_->value<std::string>();
}

void TomlReader::visit_value(const Field& field, std::vector<std::string>& value) {
  if (!node_->is_array()) fail_at(*node_, field.name, "a list of texts");
  value.clear();
  for (const toml::node& item : *node_->as_array()) {
    if (!item.is_string()) fail_at(item, field.name, "a list of texts");
    value.push_back(*item.value<std::string>());
  }
}

void TomlReader::visit_value(const Field& field, std::vector<int64_t>& value) {
  if (!node_->is_array()) fail_at(*node_, field.name, "a list of whole numbers");
  value.clear();
  for (const toml::node& item : *node_->as_array()) {
    if (!item.is_integer()) fail_at(item, field.name, "a list of whole numbers");
    value.push_back(*item.value<int64_t>());
    check_number(field, static_cast<double>(value.back()));
  }
}

void TomlReader::visit_value(const Field& field, std::map<std::string, double>& value) {
  if (!node_->is_table()) fail_at(*node_, field.name, "a table such as { \"fc1.weight\" = 0.9 }");
  for (const auto& [key, item] : *node_->as_table()) {
    const std::string name(key.str());
    if (!item.is_number()) fail_at(item, field.name, "numbers");
    value[name] = number_of(item);
    if (!field.range.contains(value[name]))
      fail_at(item, field.name, fmt::format("a number {} for '{}'", field.range.expectation(), name));
  }
}

void TomlReader::visit_value(const Field& field, int64_t& value, const EnumNames& names) {
  std::string text;
  visit_value(field, text);
  const std::vector<std::string> known = names.names();
  if (std::find(known.begin(), known.end(), text) == known.end())
    fail_at(*node_, field.name,
            fmt::format("a {}: {}{}", names.what(), fmt::join(known, ", "), did_you_mean(text, known)));
  value = names.value("recipe", text);
}

void TomlReader::visit_list(const Field& field, const List& list) {
  const toml::node& node = *node_;
  if (!node.is_array_of_tables()) fail_at(node, field.name, fmt::format("[[{}]] tables", field.name));
  const toml::array& items = *node.as_array();
  list.resize(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    TomlReader item(*items[i].as_table(), source_, "a " + field.name);
    list.visit(i, item);
    item.finish();
  }
}

void TomlReader::visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) {
  const toml::node& node = *node_;
  const auto with_line = [&](const auto& read) {
    try {
      return read();
    } catch (const ArgumentError& error) {
      fail("recipe", "{}:{}: {}", source_, node.source().begin.line, error.what());
    }
  };
  if (node.is_string()) {
    chosen = with_line([&] { return choice_of_text(*node.value<std::string>(), fields_of); });
    return;
  }
  if (!node.is_table())
    fail_at(node, field.name, "a text in quotes, or a table such as { name = \"taylor\", squared = false }");
  TomlReader part(*node.as_table(), source_, "a " + field.name);
  std::string name;
  part("name", name, "Which");
  const std::function<void(FieldVisitor&)> fields = with_line([&] { return fields_of(name); });
  fields(part);
  part.finish();
  const nlohmann::json options = json_of_fields(fields);
  nlohmann::json given = nlohmann::json::object();
  for (const auto& [key, value] : *node.as_table())
    if (key.str() != "name") given[std::string(key.str())] = options[std::string(key.str())];
  chosen = {.name = name, .options = given.empty() ? "" : given.dump()};
}

namespace {

class TomlWriter : public FieldVisitor {
 public:
  explicit TomlWriter(std::string prefix) : prefix_(std::move(prefix)) {}

  struct Line {
    std::string key, value;
    bool only_if_set = false;
  };
  std::vector<Line> lines;
  std::string tables;

  /// The lines but for those that are only written where they are set.
  std::string text(const TomlWriter& untouched) const {
    std::string text;
    for (const Line& line : lines) {
      const auto is_default = [&](const Line& other) { return other.key == line.key && other.value == line.value; };
      if (line.only_if_set && std::any_of(untouched.lines.begin(), untouched.lines.end(), is_default)) continue;
      text += fmt::format("{} = {}\n", line.key, line.value);
    }
    return text;
  }

 protected:
  void visit_value(const Field& field, bool& value) override { add(field, value ? "true" : "false"); }
  void visit_value(const Field& field, int64_t& value) override { add(field, std::to_string(value)); }
  void visit_value(const Field& field, uint64_t& value) override { add(field, std::to_string(value)); }
  void visit_value(const Field& field, double& value) override { add(field, toml_number(value)); }
  void visit_value(const Field& field, std::string& value) override { add(field, quote(value)); }
  void visit_value(const Field& field, std::vector<std::string>& value) override { add(field, quote(value)); }
  void visit_value(const Field& field, std::vector<int64_t>& value) override {
    add(field, fmt::format("[{}]", fmt::join(value, ", ")));
  }
  void visit_value(const Field& field, std::map<std::string, double>& value) override {
    std::vector<std::string> items;
    for (const auto& [name, number] : value) items.push_back(fmt::format("{} = {}", quote(name), toml_number(number)));
    if (!items.empty()) add(field, fmt::format("{{ {} }}", fmt::join(items, ", ")));
  }
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override {
    add(field, quote(std::string(names.name(value))));
  }
  void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) override {
    TomlWriter part(prefix_), untouched(prefix_);
    fields_of_choice(chosen, fields_of)(part);
    fields_of(chosen.name)(untouched);
    std::vector<std::string> items = {"name = " + quote(chosen.name)};
    for (size_t i = 0; i < part.lines.size(); ++i)
      if (part.lines[i].value != untouched.lines[i].value)
        items.push_back(fmt::format("{} = {}", part.lines[i].key, part.lines[i].value));
    add(field, items.size() == 1 ? quote(chosen.name) : fmt::format("{{ {} }}", fmt::join(items, ", ")));
  }
  void visit_list(const Field& field, const List& list) override {
    for (size_t i = 0; i < list.size(); ++i) {
      TomlWriter item(prefix_), untouched(prefix_);
      list.visit(i, item);
      list.visit_new(untouched);
      tables += fmt::format("\n[[{}{}]]\n{}", prefix_, field.name, item.text(untouched));
    }
  }

 private:
  void add(const Field& field, std::string value) {
    lines.push_back({field.name, std::move(value), field.only_if_set});
  }
  std::string prefix_;
};

}  // namespace

std::string toml_of_fields(const std::function<void(FieldVisitor&)>& fields,
                           const std::function<void(FieldVisitor&)>& defaults, const std::string& prefix) {
  TomlWriter writer(prefix), untouched(prefix);
  fields(writer);
  defaults(untouched);
  return writer.text(untouched) + writer.tables;
}

}  // namespace espalier
