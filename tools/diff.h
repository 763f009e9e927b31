// What pruning broke, in one line: how `prune`, `compact` and `run` end, and `diff` begins.
#pragma once

#include <string>
#include <vector>

#include "training/answers.h"

namespace espalier::tools {

/// "41 of 10,000 answers broken, 25 repaired, 9 others changed (McNemar's p = 0.064); worst class: 9, 98.5 -> 97.2 %"
std::string changes_line(const AnswerChanges& changes, int64_t examples, const std::vector<std::string>& classes);

}  // namespace espalier::tools
