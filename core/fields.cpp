#include "core/fields.h"

#include <nlohmann/json.hpp>

namespace espalier {

bool Range::contains(double value) const {
  return (low_is_in ? value >= low : value > low) && (high_is_in ? value <= high : value < high);
}

std::string Range::to_string() const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (low == -kInfinity && high == kInfinity) return "";
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
            field.range.to_string(), name, number);
  }
  void visit_value(const Field&, int64_t&, const EnumNames&) override {}
  void visit_list(const Field&, const List& list) override {
    for (size_t i = 0; i < list.size(); ++i) list.visit(i, *this);
  }

 private:
  void check_number(const Field& field, double value) const {
    check(field.range.contains(value), operation_, "expected {} {}, got {}", field.name, field.range.to_string(),
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

std::vector<FieldDescription> describe_fields(const std::function<void(FieldVisitor&)>& fields) {
  Describer describer;
  fields(describer);
  return std::move(describer.found);
}

}  // namespace espalier
