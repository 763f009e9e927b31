// Options as TOML: a strict reader of a table, and the lines that give the same back. Not for others than recipes.
#pragma once

#include <string>
#include <vector>

#include <toml++/toml.h>

#include "core/fields.h"

namespace espalier {

/// Strict access to one table by lists of fields: every error names the file, the line and the key; what no list has
/// is an unknown key (finish).
class TomlReader : public FieldVisitor {
 public:
  /// `what` is read: "a stage".
  TomlReader(const toml::table& table, std::string source, std::string what)
      : table_(table), source_(std::move(source)), what_(std::move(what)) {}

  /// Called by finish(); what the check throws gets the line of the table.
  void judge(const std::function<void()>& check) override;
  /// Does something; an ArgumentError that has no line yet gets that of the table.
  void with_line(const std::function<void()>& act) const;
  /// Throws ArgumentError with the line of the table.
  [[noreturn]] void fail_here(const std::string& message) const;
  /// The tables of a key, for what isn't a list of fields.
  std::vector<const toml::table*> tables(const std::string& key);
  /// Throws on keys that nobody has asked for, naming the nearest; then what has to fit together is judged.
  void finish() const;

 protected:
  bool reads() const override { return true; }
  bool enter(const Field& field, bool has_value) override;
  void visit_value(const Field& field, bool& value) override;
  void visit_value(const Field& field, int64_t& value) override;
  void visit_value(const Field& field, uint64_t& value) override;
  void visit_value(const Field& field, double& value) override;
  void visit_value(const Field& field, std::string& value) override;
  void visit_value(const Field& field, std::vector<std::string>& value) override;
  void visit_value(const Field& field, std::vector<int64_t>& value) override;
  void visit_value(const Field& field, std::map<std::string, double>& value) override;
  void visit_value(const Field& field, int64_t& value, const EnumNames& names) override;
  void visit_list(const Field& field, const List& list) override;
  void visit_part(const Field& field, PartChoice& chosen, const PartFields& fields_of) override;

 private:
  [[noreturn]] void fail_at(const toml::node& node, const std::string& key, const std::string& expected) const;
  void check_number(const Field& field, double value) const;

  const toml::table& table_;
  std::string source_, what_;
  const toml::node* node_ = nullptr;  ///< of the field that is visited
  std::vector<std::string> known_;
  std::vector<std::function<void()>> checks_;
};

/// The lines of a list's options, "key = value". `defaults`: the same list over untouched options; what is only written
/// where it is set (Field::only_if_set) and has its default is left out, as are empty tables and options without a
/// value. Lists of structs follow as [[PREFIX.name]].
std::string toml_of_fields(const std::function<void(FieldVisitor&)>& fields,
                           const std::function<void(FieldVisitor&)>& defaults, const std::string& prefix = "");

}  // namespace espalier
