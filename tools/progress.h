// How the progress of a training is shown.
#pragma once

#include <string>

#include "tools/output.h"
#include "training/trainer.h"

namespace espalier::tools {

/// A bar on a terminal; elsewhere the epochs' lines go, behind `indent`, where the other text goes. `output` has to
/// outlive the training.
void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent = "");

}  // namespace espalier::tools
