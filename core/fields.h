// Fields: the options of a struct, each written once: name, member, what it may be, a line of help. Recipes, JSON,
// flags, help and the docs' tables are made of these lists.
//
//   struct SurgeryOptions { double c = 1; int64_t min_units = 1; };
//   void fields(FieldVisitor& f, SurgeryOptions& o) {
//     f("c", o.c, "The higher, the fewer weights stay");
//     f("min_units", o.min_units, at_least(0), "What every layer keeps");
//   }
//
// A visitor goes through a list to read the values, to write them, or to tell people of them.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/names.h"

namespace espalier {

/// The numbers that an option may have; of a map, each of them. NaN and the infinities are in no range.
struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_is_in = true, high_is_in = true;

  bool contains(double value) const;
  bool is_everything() const {
    return low == -std::numeric_limits<double>::infinity() && high == std::numeric_limits<double>::infinity();
  }
  /// "in [0,1)", "of at least 1", "above 0"; "" for every number.
  std::string to_string() const;
  /// The same for messages: "that is finite" for every number.
  std::string expectation() const;
};
inline Range at_least(double low) { return {.low = low}; }
inline Range above(double low) { return {.low = low, .low_is_in = false}; }
/// [0,1].
inline Range share() { return {.low = 0, .high = 1}; }
/// [0,1).
inline Range share_below_one() { return {.low = 0, .high = 1, .high_is_in = false}; }
/// (0,1].
inline Range share_above_zero() { return {.low = 0, .high = 1, .low_is_in = false}; }
/// (0,1).
inline Range between_zero_and_one() { return {.low = 0, .high = 1, .low_is_in = false, .high_is_in = false}; }

/// One option, but for its value.
struct Field {
  std::string name;  ///< "min_units"
  std::string help;  ///< one line for people
  Range range = {};
  /// Texts leave it out where it has its default: for what means nothing then, and for options that came later, so that
  /// texts of earlier versions stay as they are.
  bool only_if_set = false;
  bool is_optional = false;  ///< it may have no value: something else decides then
};

class FieldVisitor;

/// A part chosen by name: which, and those of its options that were given, as a JSON object; "": none.
struct PartChoice {
  std::string name;
  std::string options = {};
};
/// The list of fields of a fresh part of that name. Throws ArgumentError on an unknown name.
using PartFields = std::function<std::function<void(FieldVisitor&)>(const std::string& name)>;

/// Goes through the options of a struct. The base of what reads, writes and describes them.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;

  template <class T>
  void operator()(const char* name, T& value, const char* help) {
    visit({.name = name, .help = help}, value);
  }
  template <class T>
  void operator()(const char* name, T& value, const Range& range, const char* help) {
    visit({.name = name, .help = help, .range = range}, value);
  }
  /// Field::only_if_set.
  template <class T>
  void unless_default(const char* name, T& value, const char* help) {
    visit({.name = name, .help = help, .only_if_set = true}, value);
  }
  template <class T>
  void unless_default(const char* name, T& value, const Range& range, const char* help) {
    visit({.name = name, .help = help, .range = range, .only_if_set = true}, value);
  }
  /// A part chosen by name, with options of its own: "taylor", or { name = "taylor", squared = false }.
  void part(const char* name, PartChoice& chosen, const PartFields& fields_of, const char* help) {
    const Field field{.name = name, .help = help};
    if (enter(field, true)) visit_part(field, chosen, fields_of);
  }
  void part(const char* name, std::optional<PartChoice>& chosen, const PartFields& fields_of, const char* help) {
    const Field field{.name = name, .help = help, .is_optional = true};
    PartChoice inside = chosen.value_or(PartChoice{});
    if (!enter(field, chosen.has_value())) return;
    visit_part(field, inside, fields_of);
    if (reads()) chosen = std::move(inside);
  }
  /// What several options have to keep together, at the end of their list: `check` throws ArgumentError. It is called
  /// where options are read or checked.
  virtual void judge(const std::function<void()>& /*check*/) {}
  /// A list of structs that have fields themselves.
  template <class T>
  void list(const char* name, std::vector<T>& items, const char* help) {
    const Field field{.name = name, .help = help};
    if (!enter(field, true)) return;
    visit_list(field, {.size = [&] { return items.size(); },
                       .resize = [&](size_t size) { items.resize(size); },
                       .visit = [&](size_t i, FieldVisitor& f) { fields(f, items[i]); },
                       .visit_new =
                           [](FieldVisitor& f) {
                             T item{};
                             fields(f, item);
                           }});
  }

 protected:
  /// Any list of structs.
  struct List {
    std::function<size_t()> size;
    std::function<void(size_t)> resize;
    std::function<void(size_t, FieldVisitor&)> visit;
    std::function<void(FieldVisitor&)> visit_new;  ///< one that nobody has touched
  };

  /// Whether it gives options their values, and those that had none one.
  virtual bool reads() const { return false; }
  /// Whether the value is to be visited; `has_value` is false for an optional one that has none.
  virtual bool enter(const Field&, bool has_value) { return has_value; }
  virtual void visit_value(const Field& field, bool& value) = 0;
  virtual void visit_value(const Field& field, int64_t& value) = 0;
  virtual void visit_value(const Field& field, uint64_t& value) = 0;
  virtual void visit_value(const Field& field, double& value) = 0;
  virtual void visit_value(const Field& field, std::string& value) = 0;
  virtual void visit_value(const Field& field, std::vector<std::string>& value) = 0;
  virtual void visit_value(const Field& field, std::vector<int64_t>& value) = 0;
  virtual void visit_value(const Field& field, std::map<std::string, double>& value) = 0;
  /// One of an enumeration's values.
  virtual void visit_value(const Field& field, int64_t& value, const EnumNames& names) = 0;
  virtual void visit_list(const Field& field, const List& list) = 0;
  virtual void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) = 0;

 private:
  template <class T>
  void visit(Field field, std::optional<T>& value) {
    field.is_optional = true;
    T inside = value.value_or(T{});
    if (!enter(field, value.has_value())) return;
    visit_any(field, inside);
    if (reads()) value = std::move(inside);
  }
  template <class T>
  void visit(const Field& field, T& value) {
    if (enter(field, true)) visit_any(field, value);
  }
  template <class T>
  void visit_any(const Field& field, T& value) {
    if constexpr (std::is_enum_v<T>) {
      auto number = static_cast<int64_t>(value);
      visit_value(field, number, names_of(T{}));
      value = static_cast<T>(number);
    } else {
      visit_value(field, value);
    }
  }
};

/// A struct's list of fields, whichever header has it: for member functions whose own name would hide it.
template <class Options>
void visit_fields(FieldVisitor& f, Options& options) {
  fields(f, options);
}

/// Throws ArgumentError, naming the option, where a number is out of its range: "[surgery] low: expected a number above
/// 0, got -1".
void check_ranges(const char* operation, const std::function<void(FieldVisitor&)>& fields);
template <class Options>
void check_option_ranges(const char* operation, const Options& options) {
  check_ranges(operation, [copy = options](FieldVisitor& f) mutable { fields(f, copy); });
}

/// The same options, when they are in their ranges.
template <class Options>
const Options& checked(const char* operation, const Options& options) {
  check_option_ranges(operation, options);
  return options;
}

/// The options as a JSON object. An optional one without a value is null; left out, if only written where it is set.
nlohmann::json json_of_fields(const std::function<void(FieldVisitor&)>& fields);

/// Gives options the values of a JSON object; those that it doesn't have stay. Throws ArgumentError, in the name of
/// `operation`, on values of another kind or out of range, and on keys that are no options.
void read_fields(const char* operation, const nlohmann::json& object, const std::function<void(FieldVisitor&)>& fields);

/// An option as text; without a name it is the next one in the order of the list.
struct TextOption {
  std::string name, value;
};
/// "30,gamma=0.1" as options.
std::vector<TextOption> split_options(const std::string& text);
/// Gives options the values of texts; those that are not among them stay. Lists and tables have their items between
/// commas, or take all texts without a name that are left. Throws as above. `label` is what a message calls an option:
/// "--gamma"; default: its name.
void read_text_fields(const char* operation, const std::vector<TextOption>& texts,
                      const std::function<void(FieldVisitor&)>& fields,
                      const std::function<std::string(const std::string& name)>& label = {});
/// The options as one text, "every=30,gamma=0.1"; those without a value are left out.
std::string text_of_fields(const std::function<void(FieldVisitor&)>& fields);

/// "taylor:squared=false" as a choice.
PartChoice choice_of_text(const std::string& text, const PartFields& fields_of);
std::string to_text(const PartChoice& chosen);
/// A part's list of fields with the options that were chosen.
std::function<void(FieldVisitor&)> fields_of_choice(const PartChoice& chosen, const PartFields& fields_of);

/// What is said of an option: for help and the docs' tables.
struct FieldDescription {
  Field field;
  std::string type;       ///< "number", "whole number", "text", "true or false", "list of texts", "table of numbers"
  std::string otherwise;  ///< its default, as a recipe has it; "" where something else decides
  std::vector<std::string> choices = {};  ///< of an enumeration
};
/// Of all of a list's options; those of lists of structs by the name "term.weight".
std::vector<FieldDescription> describe_fields(const std::function<void(FieldVisitor&)>& fields);

}  // namespace espalier
