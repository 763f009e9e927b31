// Flags of a command from lists of fields: an option is written once.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/fields.h"

namespace espalier::tools {

/// "--batch-size" for batch_size.
std::string flag_of(const std::string& key);

/// What a line said of options that have lists of fields. It has to outlive the parsing.
class FieldFlags {
 public:
  using Fields = std::function<void(FieldVisitor&)>;
  struct Style {
    std::string group = "Options";                  ///< heading in the help
    std::map<std::string, std::string> flags = {};  ///< of single options: {"model", "--student"}, {"epochs",
                                                    ///< "--epochs,-e"}
    std::map<std::string, std::string> help = {};   ///< of single options, where their own line would mislead
    std::set<std::string> left_out = {};
  };

  /// Adds a flag for every option: --batch-size N; of switches that aren't off by default two,
  /// --nesterov and --no-nesterov.
  void add(CLI::App& app, const Fields& fields, const Style& style);
  /// Gives options the values that the line had. Throws ArgumentError, naming the flag.
  void read(const char* command, const Fields& fields) const;
  /// How messages call an option: its flag.
  std::string label(const std::string& key) const;
  /// Whether the line said something of this option.
  bool has(const std::string& key) const;
  bool is_bare() const { return given_.empty(); }

 private:
  std::vector<TextOption> given_;
  std::map<std::string, std::string> labels_;
};

}  // namespace espalier::tools
