#include "tools/commands.h"

int main(int argc, char** argv) {
  return espalier::tools::run_command_line(std::vector<std::string>(argv + 1, argv + argc));
}
