#include <csignal>

#include "tools/commands.h"

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past its limit is then an error with a message, as a full disk is
  return espalier::tools::run_command_line(std::vector<std::string>(argv + 1, argv + argc));
}
