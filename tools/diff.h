// What pruning broke, in one line: how `prune`, `distill` and `run` end.
#pragma once

#include <string>
#include <vector>

#include "training/answers.h"

namespace espalier::tools {

/// "41 answers broken, 25 repaired (McNemar's p = 0.064), worst class 9: -1.30 points"
std::string changes_line(const AnswerChanges& changes, const std::vector<std::string>& classes);

}  // namespace espalier::tools
