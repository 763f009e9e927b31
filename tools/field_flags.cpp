#include "tools/field_flags.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace espalier::tools {

namespace {

/// With line breaks where the help's right column ends.
std::string wrapped(const std::string& text) {
  constexpr size_t kColumns = 52;
  std::string result;
  size_t column = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (column > 0 && column + 1 + end - begin > kColumns) {
      result += '\n';
      column = 0;
    } else if (column > 0) {
      result += ' ';
      ++column;
    }
    result += text.substr(begin, end - begin);
    column += end - begin;
    begin = end + 1;
  }
  return result;
}

std::string help_of(const FieldDescription& option) {
  std::string help = option.field.help;
  if (!option.choices.empty()) help += fmt::format(": {}", fmt::join(option.choices, ", "));
  if (!option.otherwise.empty() && option.type != "true or false")
    help += fmt::format(" (default: {})", option.otherwise);
  return wrapped(help);
}

const char* type_name(const FieldDescription& option) {
  if (!option.choices.empty()) return "NAME";
  if (option.type == "number") return "X";
  if (option.type == "whole number") return "N";
  if (option.type == "table of numbers") return "NAME=X,...";
  if (option.type == "tables") return "KEY=VALUE,...";
  if (option.type.starts_with("list")) return "NAME";
  return "TEXT";
}

}  // namespace

std::string flag_of(const std::string& key) {
  std::string flag = "--" + key;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string FieldFlags::label(const std::string& key) const {
  const auto found = labels_.find(key);
  return found == labels_.end() ? flag_of(key) : found->second;
}

bool FieldFlags::has(const std::string& key) const {
  return std::any_of(given_.begin(), given_.end(), [&](const TextOption& option) { return option.name == key; });
}

void FieldFlags::add(CLI::App& app, const Fields& fields, const Style& style) {
  for (const FieldDescription& option : describe_fields(fields)) {
    const std::string& name = option.field.name;
    if (style.left_out.contains(name) || name.find('.') != std::string::npos) continue;
    const auto named = style.flags.find(name);
    const std::string flag = named == style.flags.end() ? flag_of(name) : named->second;
    labels_[name] = flag.substr(0, flag.find(','));
    const auto told = style.help.find(name);
    const std::string help = told == style.help.end() ? help_of(option) : wrapped(told->second);
    const auto give = [this, name](const std::string& value) { given_.push_back({.name = name, .value = value}); };
    if (option.type == "true or false") {
      app.add_flag_callback(
             flag, [give] { give("true"); }, help)
          ->group(style.group);
      if (option.otherwise != "false")
        app.add_flag_callback(
               "--no-" + labels_[name].substr(2), [give] { give("false"); }, "The opposite")
            ->group(style.group);
    } else if (option.type == "tables" || option.type.starts_with("list")) {
      app.add_option_function<std::vector<std::string>>(
             flag,
             [give](const std::vector<std::string>& values) { std::for_each(values.begin(), values.end(), give); },
             help)
          ->allow_extra_args(false)
          ->type_name(type_name(option))
          ->group(style.group);
    } else {
      app.add_option_function<std::string>(flag, give, help)->type_name(type_name(option))->group(style.group);
    }
  }
}

void FieldFlags::read(const char* command, const Fields& fields) const {
  read_text_fields(command, given_, fields, [this](const std::string& key) { return label(key); });
}

}  // namespace espalier::tools
