#include "core/fields.h"

#include <algorithm>
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
  nlohmann::json object = nlohmann::json::object();

 protected:
  bool enter(const Field& field, bool has_value) override {
    object[field.name] = nullptr;
    return has_value;
  }
  void visit_value(const Field& field, bool& value) override { object[field.name] = value; }
  void visit_value(const Field& field, int64_t& value) override { object[field.name] = value; }
  void visit_value(const Field& field, uint64_t& value) override { object[field.name] = value; }
  void visit_value(const Field& field, double& value) override { object[field.name] = value; }
  void visit_value(const Field& field, std::string& value) override { object[field.name] = value; }
  void visit_value(const Field& field, std::vector<std::string>& value) override { object[field.name] = value; }
  void visit_value(const Field& field, std::map<std::string, double>& value) override { object[field.name] = value; }
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override {
    object[field.name] = names.name(value);
  }
  void visit_list(const Field& field, const List& list) override {
    nlohmann::json items = nlohmann::json::array();
    for (size_t i = 0; i < list.size(); ++i) {
      JsonWriter item;
      list.visit(i, item);
      items.push_back(std::move(item.object));
    }
    object[field.name] = std::move(items);
  }
  void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) override {
    nlohmann::json options = json_of_fields(fields_of_choice(chosen, fields_of));
    if (options == json_of_fields(fields_of(chosen.name))) {
      object[field.name] = chosen.name;
    } else {
      options["name"] = chosen.name;
      object[field.name] = std::move(options);
    }
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
  return std::move(writer.object);
}

void read_fields(const char* operation, const nlohmann::json& object,
                 const std::function<void(FieldVisitor&)>& fields) {
  JsonReader reader(operation, object);
  fields(reader);
  reader.finish();
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
