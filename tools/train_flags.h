// The flags of `espalier train`, and how its progress is shown.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "pipeline/train_settings.h"
#include "tools/output.h"

namespace espalier::tools {

void add_train_flags(CLI::App& app, TrainFlags& flags);

/// A bar on a terminal; elsewhere the epochs' lines go, behind `indent`, where the other text goes. `output` has to
/// outlive the training.
void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent = "");

}  // namespace espalier::tools
