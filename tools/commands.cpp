#include "tools/commands.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <sstream>
#include <utility>

#include "core/file_errors.h"
#include "core/precision.h"
#include "core/sparse/dispatch.h"
#include "core/threads.h"

namespace espalier::tools {

namespace {

constexpr const char* kGeneralGroup = "General";

/// CLI11's help with one empty line between its parts.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() {
    constexpr size_t kNameColumns = 28;
    column_width(kNameColumns);
  }
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    const std::string help = CLI::Formatter::make_help(app, std::move(name), mode);
    std::string result;
    int newlines = 0;
    for (char c : help) {
      newlines = c == '\n' ? newlines + 1 : 0;
      if (newlines <= 2) result += c;
    }
    return result;
  }
  std::string make_usage(const CLI::App* app, std::string name) const override {
    return "\n" + CLI::Formatter::make_usage(app, std::move(name));
  }
};

/// The help flag of every command, as its last option, so that its group is the last one.
void set_help_flags(CLI::App& app) {
  app.set_help_flag("-h,--help", "Show this help")->group(kGeneralGroup);
  for (CLI::App* command : app.get_subcommands({})) set_help_flags(*command);
}

/// An empty value is what a shell makes of a variable that isn't set: it is no default.
void refuse_empty_values(CLI::App& app) {
  for (CLI::Option* option : app.get_options({}))
    if (option->get_items_expected_max() > 0)
      option->check(CLI::Validator(
          [](std::string& text) { return std::string(text.empty() ? "expected a value, got '', an empty one" : ""); },
          ""));
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_values(*command);
}

/// The innermost subcommand that the line named.
const CLI::App& innermost(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return parsed.empty() ? app : innermost(*parsed.back());
}

/// "train" for `espalier train`, "datasets show" for `espalier datasets show`, "espalier" for the program itself.
std::string title(const CLI::App& app) {
  if (app.get_parent() == nullptr) return "espalier";
  const std::string parent = title(*app.get_parent());
  return parent == "espalier" ? app.get_name() : parent + " " + app.get_name();
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

/// What is wrong with a line that did not parse, in the library's style.
std::string usage_error(const CLI::App& app, const std::string& parser_message) {
  const CLI::App& command = innermost(app);
  const std::string where = title(command);
  const std::string help = fmt::format("espalier {}--help", where == "espalier" ? "" : where + " ");
  const std::vector<std::string> left = command.remaining();
  const std::vector<std::string> names = subcommand_names(command);
  // What follows a misspelt command is left over too.
  if (!left.empty() && !names.empty() && !left.front().starts_with("-")) {
    return fmt::format("[{}] unknown command '{}'{}; expected {}; {} says what they do", where, left.front(),
                       did_you_mean(left.front(), names), fmt::join(names, ", "), help);
  }
  // A misspelt flag may show as another error (its value as a file too many), so what is left over is looked at first.
  for (const std::string& word : left) {
    if (!word.starts_with("-") || word == "-" || word == "--") continue;
    const std::string name = word.substr(0, word.find('='));
    return fmt::format("[{}] unknown option '{}'{}; {} lists the options", where, name,
                       did_you_mean(name, option_names(command)), help);
  }
  if (!left.empty())
    return fmt::format("[{}] unexpected argument '{}'; {} shows how the command is used", where, left.front(), help);
  return fmt::format("[{}] {}; {} shows how the command is used", where, parser_message, help);
}

template <class E>
bool is_a(const Error& error) {
  return dynamic_cast<const E*>(&error) != nullptr;
}

/// The exit status that an error of the library stands for. Files that can't be read are bad input; files that can't
/// be written and downloads that break off are failures.
int status_of(const Error& error) {
  if (is_a<NumericError>(error) || is_a<WriteError>(error) || is_a<DownloadError>(error)) return kFailure;
  return is_a<FileError>(error) || is_a<ArgumentError>(error) || is_a<UnavailableError>(error) ? kBadInput : kFailure;
}

int run_parsed(const CLI::App& app, const Commands& commands, Output& output) {
  const CLI::App& chosen = innermost(app);
  for (const Command& command : commands)
    if (command.app == &chosen) return command.run(output);
  // Only the program itself and the groups have nothing to run.
  output.error(fmt::format("[{}] expected a command: {}", title(chosen), fmt::join(subcommand_names(chosen), ", ")));
  if (!output.json()) output.hint("\n" + chosen.help());
  return kBadInput;
}

}  // namespace

CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples) {
  CLI::App* app = parent.add_subcommand(name, description);
  std::string footer = "Examples:";
  for (const std::string& example : examples) footer += "\n  " + example;
  app->footer(footer);
  return app;
}

void add_json_flag(CLI::App& app) {
  const std::string description = "The last line of stdout is one JSON object;\nthe rest goes to stderr";
  app.add_flag("--json", description)->group(kGeneralGroup);
}

void add_model(CLI::App& app, std::string& model) {
  app.add_option("model", model, "Checkpoint, or folder of a run (default: the newest\nbelow runs/)")
      ->type_name("MODEL");
}

void add_data_dir(CLI::App& app, std::string& data_dir) {
  app.add_option("--data-dir", data_dir, "Folder with data sets, looked into before\nESPALIER_DATA")->type_name("DIR");
}

CLI::Validator is_seed() {
  return {[](std::string& text) {
            const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
            const std::string most = std::to_string(std::numeric_limits<int64_t>::max());
            const bool fits = text.size() < most.size() || (text.size() == most.size() && text <= most);
            return digits && fits ? "" : fmt::format("expected a whole number from 0 to {}, got {}", most, text);
          },
          ""};
}

void add_threads_and_device(CLI::App& app, std::optional<int>& threads, std::string& device) {
  app.add_option("--threads", threads, "Threads of the kernels (default: all cores, or\nOMP_NUM_THREADS)")
      ->type_name("N")
      ->group(kGeneralGroup);
  app.add_option("--device", device, "cpu, cuda or cuda:N (default: cpu)")->type_name("NAME")->group(kGeneralGroup);
  app.add_option_function<std::string>(
         "--precision", [](const std::string& name) { set_matmul_precision(parse_matmul_precision(name)); },
         "How a GPU multiplies: f32 (default), tf32 or bf16")
      ->type_name("NAME")
      ->group(kGeneralGroup);
  app.add_flag_callback(
         "--no-sparse", [] { set_sparse_enabled(false); },
         "Masked weights by dense kernels only, as\nESPALIER_SPARSE=off")
      ->group(kGeneralGroup);
}

void use_threads(const std::optional<int>& threads) {
  constexpr int kMost = 1024;
  if (threads) {
    check(*threads > 0 && *threads <= kMost, "threads", "--threads: expected 1 to {}, got {}", kMost, *threads);
    set_num_threads(*threads);
  }
  reserve_matmul_memory();
}

namespace {

/// Parses and runs; what stdout could not take is known to `output` afterwards.
int parse_and_run(const std::vector<std::string>& arguments, Output& output) {
  CLI::App app("Espalier trains, prunes, distils and compacts neural networks.", "espalier");
  app.formatter(std::make_shared<HelpFormatter>());
  app.footer(
      "Examples:\n"
      "  espalier train --model lenet5 --data fashion-mnist\n"
      "  espalier eval runs/lenet5-fashion-mnist/model.safetensors\n"
      "  espalier predict shoe.png\n"
      "  espalier COMMAND --help   shows the options of a command, with examples");
  Commands commands;
  add_train(app, commands);
  add_eval(app, commands);
  add_predict(app, commands);
  add_prune(app, commands);
  add_distill(app, commands);
  add_compact(app, commands);
  add_run(app, commands);
  add_sensitivity(app, commands);
  add_compare(app, commands);
  add_diff(app, commands);
  add_masks(app, commands);
  add_bench(app, commands);
  add_info(app, commands);
  add_datasets(app, commands);
  add_models(app, commands);
  app.set_version_flag("--version", "espalier " ESPALIER_VERSION)->group(kGeneralGroup);
  refuse_empty_values(app);
  set_help_flags(app);

  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
    return run_parsed(app, commands, output);
  } catch (const CLI::Success& asked) {  // for help or the version
    std::ostringstream text, errors;
    const int status = app.exit(asked, text, errors);
    output.text(text.str());
    return status;
  } catch (const CLI::ParseError& error) {
    output.error(usage_error(app, error.what()));
    return kBadInput;
  } catch (const Error& error) {
    output.error(error.what());
    return status_of(error);
  } catch (const std::exception& error) {
    output.error(fmt::format("[espalier] {}", error.what()));
    return kFailure;
  }
}

}  // namespace

int run_command_line(const std::vector<std::string>& arguments) {
  Output output(std::find(arguments.begin(), arguments.end(), "--json") != arguments.end());
  const int status = parse_and_run(arguments, output);
  if (output.lost().empty() || status != kSuccess) return status;
  output.hint(fmt::format("espalier: [output] cannot write to stdout: {}\n", output.lost()));
  return kFailure;
}

}  // namespace espalier::tools
