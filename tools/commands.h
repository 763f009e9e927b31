// The subcommands of `espalier`: each adds itself to the parser and says what to run once the line is parsed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/output.h"

namespace espalier::tools {

/// Exit statuses.
constexpr int kSuccess = 0, kFailure = 1, kBadInput = 2, kInterrupted = 130;

/// A subcommand that can run.
struct Command {
  CLI::App* app;
  std::function<int(Output&)> run;  ///< the exit status; errors are thrown
};
using Commands = std::vector<Command>;

void add_train(CLI::App& app, Commands& commands);
void add_eval(CLI::App& app, Commands& commands);
void add_predict(CLI::App& app, Commands& commands);
void add_run(CLI::App& app, Commands& commands);
void add_prune(CLI::App& app, Commands& commands);
void add_distill(CLI::App& app, Commands& commands);
void add_compact(CLI::App& app, Commands& commands);
void add_sensitivity(CLI::App& app, Commands& commands);
void add_compare(CLI::App& app, Commands& commands);
void add_diff(CLI::App& app, Commands& commands);
void add_masks(CLI::App& app, Commands& commands);
void add_bench(CLI::App& app, Commands& commands);
void add_info(CLI::App& app, Commands& commands);
void add_datasets(CLI::App& app, Commands& commands);
void add_models(CLI::App& app, Commands& commands);

/// A subcommand whose help ends with these examples.
CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples);

/// Options that several commands share. --json is read by main() before anything is parsed, so that errors in the line
/// come as JSON too; the flag added here is for the help.
void add_json_flag(CLI::App& app);
/// A trained network as first argument; find_model reads "" as the newest one.
void add_model(CLI::App& app, std::string& model);
void add_data_dir(CLI::App& app, std::string& data_dir);
/// For options that are seeds: what a recipe can hold. The parser alone would read -1 as a large number.
CLI::Validator is_seed();
void add_threads_and_device(CLI::App& app, std::optional<int>& threads, std::string& device);
/// Obeys --threads and takes the memory that they need. Throws for a number that makes no sense, or too little memory.
void use_threads(const std::optional<int>& threads);

/// Parses one command line and runs it: everything main() does. Returns the exit status.
int run_command_line(const std::vector<std::string>& arguments);

}  // namespace espalier::tools
