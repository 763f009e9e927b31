#include "tools/progress.h"

#include <unistd.h>

namespace espalier::tools {

void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent) {
  if (output.quiet()) {
    trainer.progress = ProgressMode::silent;
  } else if (isatty(STDERR_FILENO) == 0) {
    trainer.progress = ProgressMode::lines;
    trainer.log = [&output, indent](const std::string& line) { output.say("{}{}", indent, line); };
  }
}

}  // namespace espalier::tools
