#include "core/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/json.h"

namespace espalier {

bool Range::contains(double value) const {
  return std::isfinite(value) && (low_is_in ? value >= low : value > low) &&
         (high_is_in ? value <= high : value < high);
}

std::string Range::expectation() const { return is_everything() ? "that is finite" : to_string(); }

std::string Range::to_string() const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (is_everything()) return "";
  if (high == kInfinity) return fmt::format("{} {:g}", low_is_in ? "of at least" : "above", low);
  if (low == -kInfinity) return fmt::format("{} {:g}", high_is_in ? "of at most" : "below", high);
  return fmt::format("in {}{:g},{:g}{}", low_is_in ? '[' : '(', low, high, high_is_in ? ']' : ')');
}

namespace {

class RangeCheck : public FieldVisitor {
 public:
  explicit RangeCheck(const char* operation) : operation_(operation) {}
  void judge(const std::function<void()>& check) override { check(); }

 protected:
  void visit_value(const Field&, bool&) override {}
  void visit_value(const Field& field, int64_t& value) override { check_number(field, static_cast<double>(value)); }
  void visit_value(const Field& field, uint64_t& value) override { check_number(field, static_cast<double>(value)); }
  void visit_value(const Field& field, double& value) override { check_number(field, value); }
  void visit_value(const Field&, std::string&) override {}
  void visit_value(const Field&, std::vector<std::string>&) override {}
  void visit_value(const Field& field, std::vector<int64_t>& value) override {
    for (int64_t number : value) check_number(field, static_cast<double>(number));
  }
  void visit_value(const Field& field, std::map<std::string, double>& value) override {
    for (const auto& [name, number] : value)
      check(field.range.contains(number), operation_, "{}: expected a number {} for '{}', got {}", field.name,
            field.range.expectation(), name, number);
  }
  void visit_value(const Field&, int64_t&, const EnumNames&) override {}
  void visit_list(const Field&, const List& list) override {
    for (size_t i = 0; i < list.size(); ++i) list.visit(i, *this);
  }
  void visit_part(const Field&, PartChoice& chosen, const PartFields& fields_of) override {
    fields_of_choice(chosen, fields_of)(*this);
  }

 private:
  void check_number(const Field& field, double value) const {
    check(field.range.contains(value), operation_, "expected {} {}, got {}", field.name, field.range.expectation(),
          value);
  }
  const char* operation_;
};

class JsonWriter : public FieldVisitor {
 public:
  std::vector<std::pair<std::string, nlohmann::json>> items;  ///< in the order of the list
  nlohmann::json object() const {
    nlohmann::json object = nlohmann::json::object();
    for (const auto& [name, value] : items) object[name] = value;
    return object;
  }

 protected:
  bool enter(const Field& field, bool has_value) override {
    if (has_value || !field.only_if_set) items.emplace_back(field.name, nullptr);
    return has_value;
  }
  void visit_value(const Field&, bool& value) override { items.back().second = value; }
  void visit_value(const Field&, int64_t& value) override { items.back().second = value; }
  void visit_value(const Field&, uint64_t& value) override { items.back().second = value; }
  void visit_value(const Field&, double& value) override { items.back().second = value; }
  void visit_value(const Field&, std::string& value) override { items.back().second = value; }
  void visit_value(const Field&, std::vector<std::string>& value) override { items.back().second = value; }
  void visit_value(const Field&, std::vector<int64_t>& value) override { items.back().second = value; }
  void visit_value(const Field&, std::map<std::string, double>& value) override { items.back().second = value; }
  void visit_value(const Field&, int64_t& value, const EnumNames& names) override {
    items.back().second = names.name(value);
  }
  void visit_list(const Field&, const List& list) override {
    items.back().second = nlohmann::json::array();
    for (size_t i = 0; i < list.size(); ++i) {
      JsonWriter item;
      list.visit(i, item);
      items.back().second.push_back(item.object());
    }
  }
  void visit_part(const Field&, PartChoice& chosen, const PartFields& fields_of) override {
    const nlohmann::json options = json_of_fields(fields_of_choice(chosen, fields_of)),
                         untouched = json_of_fields(fields_of(chosen.name));
    nlohmann::json part = {{"name", chosen.name}};
    for (const auto& [key, value] : options.items())
      if (value != untouched.at(key)) part[key] = value;
    items.back().second = part.size() == 1 ? nlohmann::json(chosen.name) : std::move(part);
  }
};

class JsonReader : public FieldVisitor {
 public:
  JsonReader(const char* operation, const nlohmann::json& object) : operation_(operation), object_(object) {
    check(object.is_object(), operation, "expected a JSON object with options, got {}", object.dump());
  }
  void judge(const std::function<void()>& check) override { check(); }
  void finish() const {
    for (const auto& [key, value] : object_.items())
      check(std::find(known_.begin(), known_.end(), key) != known_.end(), operation_,
            "no option is named '{}'{}; known: {}", key, did_you_mean(key, known_), fmt::join(known_, ", "));
  }

 protected:
  bool reads() const override { return true; }
  bool enter(const Field& field, bool) override {
    known_.push_back(field.name);
    const auto found = object_.find(field.name);
    value_ = found == object_.end() || found->is_null() ? nullptr : &*found;
    return value_ != nullptr;
  }
  void visit_value(const Field& field, bool& value) override { get(field, value, value_->is_boolean()); }
  void visit_value(const Field& field, int64_t& value) override {
    get_number(field, value, value_->is_number_integer());
  }
  void visit_value(const Field& field, uint64_t& value) override {
    get_number(field, value, value_->is_number_unsigned());
  }
  void visit_value(const Field& field, double& value) override { get_number(field, value, value_->is_number()); }
  void visit_value(const Field& field, std::string& value) override { get(field, value, value_->is_string()); }
  void visit_value(const Field& field, std::vector<std::string>& value) override {
    bool texts = value_->is_array();
    for (const nlohmann::json& item : *value_) texts = texts && item.is_string();
    get(field, value, texts);
  }
  void visit_value(const Field& field, std::vector<int64_t>& value) override {
    bool numbers = value_->is_array();
    for (const nlohmann::json& item : *value_)
      numbers = numbers && item.is_number_integer() && field.range.contains(item.get<double>());
    get(field, value, numbers);
  }
  void visit_value(const Field& field, std::map<std::string, double>& value) override {
    bool numbers = value_->is_object();
    for (const nlohmann::json& item : *value_)
      numbers = numbers && item.is_number() && field.range.contains(item.get<double>());
    get(field, value, numbers);
  }
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override {
    std::string text;
    get(field, text, value_->is_string());
    value = names.value(operation_, text);
  }
  void visit_list(const Field& field, const List& list) override {
    check_kind(field, value_->is_array());
    const nlohmann::json& items = *value_;
    list.resize(items.size());
    for (size_t i = 0; i < items.size(); ++i)
      read_fields(operation_, items[i], [&](FieldVisitor& f) { list.visit(i, f); });
  }
  void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) override {
    const nlohmann::json part = value_->is_string() ? nlohmann::json{{"name", *value_}} : *value_;
    check_kind(field, part.is_object() && part.contains("name") && part["name"].is_string());
    chosen = {.name = part["name"]};
    nlohmann::json options = part;
    options.erase("name");
    chosen.options = options.dump();
    fields_of_choice(chosen, fields_of);  // judges them
  }

 private:
  void check_kind(const Field& field, bool is_right) const {
    check(is_right, operation_, "{}: expected a value of its kind, got {}", field.name, value_->dump());
  }
  template <class T>
  void get(const Field& field, T& value, bool is_right) const {
    check_kind(field, is_right);
    value = value_->get<T>();
  }
  template <class T>
  void get_number(const Field& field, T& value, bool is_right) const {
    get(field, value, is_right);
    check(field.range.contains(static_cast<double>(value)), operation_, "expected {} {}, got {}", field.name,
          field.range.expectation(), value);
  }

  const char* operation_;
  const nlohmann::json& object_;
  const nlohmann::json* value_ = nullptr;  ///< of the option that is visited
  std::vector<std::string> known_;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

class TextReader : public FieldVisitor {
 public:
  TextReader(const char* operation, const std::vector<TextOption>& texts,
             std::function<std::string(const std::string&)> label)
      : operation_(operation), label_(std::move(label)) {
    for (const TextOption& text : texts) (text.name.empty() ? unnamed_ : named_).push_back(text);
  }
  void judge(const std::function<void()>& check) override { check(); }
  void finish() const {
    for (const TextOption& text : named_)
      check(std::find(known_.begin(), known_.end(), text.name) != known_.end(), operation_,
            "no option is named '{}'{}; known: {}", text.name, did_you_mean(text.name, known_),
            fmt::join(known_, ", "));
    check(next_ == unnamed_.size(), operation_, "there are too many arguments; known: {}", fmt::join(known_, ", "));
  }

 protected:
  bool reads() const override { return true; }
  bool enter(const Field& field, bool) override {
    known_.push_back(field.name);
    values_.clear();
    for (const TextOption& text : named_)
      if (text.name == field.name) values_.push_back(text.value);
    is_named_ = !values_.empty();
    if (!is_named_ && next_ < unnamed_.size()) values_.push_back(unnamed_[next_++].value);
    return !values_.empty();
  }
  void visit_value(const Field& field, bool& value) override {
    const std::string& text = values_.back();
    if (text != "true" && text != "false") wrong(field, "true or false", text);
    value = text == "true";
  }
  void visit_value(const Field& field, int64_t& value) override { get(field, value, kWhole, values_.back()); }
  void visit_value(const Field& field, uint64_t& value) override {
    int64_t number = 0;  // what files can hold
    get(field, number, "a whole number from 0 to 9223372036854775807", values_.back());
    if (number < 0) wrong(field, "a whole number of at least 0", values_.back());
    value = static_cast<uint64_t>(number);
  }
  void visit_value(const Field& field, double& value) override { get(field, value, "a number", values_.back()); }
  void visit_value(const Field&, std::string& value) override { value = values_.back(); }
  void visit_value(const Field&, std::vector<std::string>& value) override { value = all_items(); }
  void visit_value(const Field& field, std::vector<int64_t>& value) override {
    value.clear();
    for (const std::string& item : all_items()) get(field, value.emplace_back(), kWhole, item);
  }
  void visit_value(const Field& field, std::map<std::string, double>& value) override {
    for (const std::string& item : all_items()) {
      const size_t equals = item.rfind('=');
      if (equals == std::string::npos) wrong(field, "NAME=NUMBER,...", item);
      get(field, value[item.substr(0, equals)], "a number", item.substr(equals + 1));
    }
  }
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override {
    const std::vector<std::string> known = names.names();
    const std::string& text = values_.back();
    if (std::find(known.begin(), known.end(), text) == known.end())
      wrong(field, fmt::format("a {}: {}{}", names.what(), fmt::join(known, ", "), did_you_mean(text, known)), text);
    value = names.value(operation_, text);
  }
  void visit_list(const Field&, const List& list) override {
    const std::vector<std::string> items = values_;
    list.resize(items.size());
    for (size_t i = 0; i < items.size(); ++i)
      read_text_fields(operation_, split_options(items[i]), [&](FieldVisitor& f) { list.visit(i, f); });
  }
  void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) override {
    try {
      chosen = choice_of_text(values_.back(), fields_of);
    } catch (const ArgumentError& error) {
      fail(operation_, "{}: {}", label(field), error.what());
    }
  }

 private:
  std::string label(const Field& field) const { return label_ ? label_(field.name) : field.name; }
  [[noreturn]] void wrong(const Field& field, const std::string& expected, const std::string& got) const {
    fail(operation_, "{}: expected {}, got '{}'", label(field), expected, got);
  }
  /// The items of a list: those between the commas of its text, or all texts without a name that are left.
  std::vector<std::string> all_items() {
    std::vector<std::string> items;
    while (!is_named_ && next_ < unnamed_.size()) values_.push_back(unnamed_[next_++].value);
    for (const std::string& value : values_)
      for (std::string& item : split(value, ',')) items.push_back(std::move(item));
    return items;
  }
  template <class T>
  void get(const Field& field, T& value, const char* kind, const std::string& text) const {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) wrong(field, kind, text);
    check(field.range.contains(static_cast<double>(value)), operation_, "{}: expected a number {}, got {}",
          label(field), field.range.expectation(), text);
  }

  static constexpr const char* kWhole = "a whole number";
  const char* operation_;
  std::function<std::string(const std::string&)> label_;
  std::vector<TextOption> named_, unnamed_;
  size_t next_ = 0;                  ///< of those without a name
  std::vector<std::string> values_;  ///< of the option that is visited
  bool is_named_ = false;
  std::vector<std::string> known_;
};

class Describer : public FieldVisitor {
 public:
  std::vector<FieldDescription> found;

 protected:
  bool enter(const Field&, bool has_value) override {
    has_default_ = has_value;
    return true;
  }
  void visit_value(const Field& field, bool& value) override { add(field, "true or false", value ? "true" : "false"); }
  void visit_value(const Field& field, int64_t& value) override { add(field, "whole number", std::to_string(value)); }
  void visit_value(const Field& field, uint64_t& value) override { add(field, "whole number", std::to_string(value)); }
  void visit_value(const Field& field, double& value) override { add(field, "number", fmt::format("{:g}", value)); }
  void visit_value(const Field& field, std::string& value) override { add(field, "text", value); }
  void visit_value(const Field& field, std::vector<std::string>& value) override {
    add(field, "list of texts", fmt::format("{}", fmt::join(value, ", ")));
  }
  void visit_value(const Field& field, std::vector<int64_t>& value) override {
    add(field, "list of whole numbers", fmt::format("{}", fmt::join(value, ", ")));
  }
  void visit_value(const Field& field, std::map<std::string, double>&) override { add(field, "table of numbers", ""); }
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override {
    add(field, "text", names.name(value));
    found.back().choices = names.names();
  }
  void visit_part(const Field& field, PartChoice& chosen, const PartFields&) override {
    add(field, "text, or a table with name and options", chosen.name);
  }
  void visit_list(const Field& field, const List& list) override {
    found.push_back({.field = field, .type = "tables", .otherwise = ""});
    Describer item;
    list.visit_new(item);
    for (FieldDescription& description : item.found) {
      description.field.name = field.name + "." + description.field.name;
      found.push_back(std::move(description));
    }
  }

 private:
  void add(const Field& field, const char* type, std::string value) {
    found.push_back({.field = field, .type = type, .otherwise = has_default_ ? std::move(value) : ""});
  }
  bool has_default_ = true;
};

}  // namespace

void check_ranges(const char* operation, const std::function<void(FieldVisitor&)>& fields) {
  RangeCheck range_check(operation);
  fields(range_check);
}

nlohmann::json json_of_fields(const std::function<void(FieldVisitor&)>& fields) {
  JsonWriter writer;
  fields(writer);
  return writer.object();
}

void read_fields(const char* operation, const nlohmann::json& object,
                 const std::function<void(FieldVisitor&)>& fields) {
  JsonReader reader(operation, object);
  fields(reader);
  reader.finish();
}

std::vector<TextOption> split_options(const std::string& text) {
  std::vector<TextOption> options;
  if (text.empty()) return options;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos)
      options.push_back({.name = "", .value = part});
    else
      options.push_back({.name = part.substr(0, equals), .value = part.substr(equals + 1)});
  }
  return options;
}

void read_text_fields(const char* operation, const std::vector<TextOption>& texts,
                      const std::function<void(FieldVisitor&)>& fields,
                      const std::function<std::string(const std::string& name)>& label) {
  TextReader reader(operation, texts, label);
  fields(reader);
  reader.finish();
}

std::string text_of_fields(const std::function<void(FieldVisitor&)>& fields) {
  JsonWriter writer;
  fields(writer);
  std::vector<std::string> parts;
  const auto text_of = [](const nlohmann::json& value) {
    if (value.is_string()) return value.get<std::string>();
    return value.is_number_float() ? fmt::format("{}", value.get<double>()) : value.dump();
  };
  for (const auto& [name, value] : writer.items) {
    if (value.is_null()) continue;
    if (!value.is_array()) parts.push_back(fmt::format("{}={}", name, text_of(value)));
    for (const nlohmann::json& item : value.is_array() ? value : nlohmann::json::array())
      parts.push_back(fmt::format("{}={}", name, text_of(item)));
  }
  return fmt::format("{}", fmt::join(parts, ","));
}

PartChoice choice_of_text(const std::string& text, const PartFields& fields_of) {
  const size_t colon = std::min(text.find(':'), text.size());
  PartChoice chosen{.name = text.substr(0, colon)};
  const std::function<void(FieldVisitor&)> fields = fields_of(chosen.name);
  if (colon == text.size()) return chosen;
  const nlohmann::json before = json_of_fields(fields);
  read_text_fields(chosen.name.c_str(), split_options(text.substr(colon + 1)), fields);
  nlohmann::json options = json_of_fields(fields), given = nlohmann::json::object();
  for (const TextOption& option : split_options(text.substr(colon + 1)))
    if (!option.name.empty()) given[option.name] = options[option.name];
  for (const auto& [name, value] : options.items())
    if (value != before[name]) given[name] = value;
  chosen.options = given.dump();
  return chosen;
}

std::string to_text(const PartChoice& chosen) {
  std::string text = chosen.name;
  if (chosen.options.empty()) return text;
  const nlohmann::json options = parse_json(chosen.options);
  for (const auto& [name, value] : options.items())
    text += fmt::format("{}{}={}", text == chosen.name ? ":" : ",", name,
                        value.is_string() ? value.get<std::string>() : value.dump());
  return text;
}

std::function<void(FieldVisitor&)> fields_of_choice(const PartChoice& chosen, const PartFields& fields_of) {
  std::function<void(FieldVisitor&)> fields = fields_of(chosen.name);
  if (!chosen.options.empty()) read_fields(chosen.name.c_str(), parse_json(chosen.options), fields);
  return fields;
}

std::vector<FieldDescription> describe_fields(const std::function<void(FieldVisitor&)>& fields) {
  Describer describer;
  fields(describer);
  return std::move(describer.found);
}

}  // namespace espalier
