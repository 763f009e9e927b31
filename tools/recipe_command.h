// Running a recipe from the command line: what people see of it.
#pragma once

#include "pipeline/run.h"
#include "tools/output.h"

namespace espalier::tools {

/// Runs it and shows lines, progress and results on `output`. Returns the exit status. `options`: without say, warn and
/// show_progress.
int show_recipe_run(const Recipe& recipe, RunOptions options, Output& output);

}  // namespace espalier::tools
