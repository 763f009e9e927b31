#include <csignal>

#include <fcntl.h>

#include "tools/commands.h"

namespace {

/// Gives stdin, stdout and stderr something to stand for where they are closed: else the first file that is opened, a
/// network perhaps, would be taken for stdout and get its text. Opened the wrong way round, so that using it is an
/// error.
void fill_standard_streams() {
  for (int stream = 0; stream < 3; ++stream)
    if (fcntl(stream, F_GETFD) == -1) open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY);
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past its limit is then an error with a message, as a full disk is
  return espalier::tools::run_command_line(std::vector<std::string>(argv + 1, argv + argc));
}
