// What the programs among the benchmarks share.
#pragma once

#include <cstdio>

#include <fmt/format.h>

#include "core/error.h"

namespace espalier {

/// main() of a program: an error of the library is a line on stderr and status 1.
inline int run_program(int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}

}  // namespace espalier
