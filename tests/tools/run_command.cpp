#include "run_command.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace espalier::testing {

namespace {

pid_t start(const Folder& folder, const std::string& arguments, const std::string& before,
            const std::string& redirections = "") {
  const std::string line = fmt::format(
      "cd '{0}' && unset ESPALIER_DATA; export XDG_CACHE_HOME='{0}/cache' OMP_NUM_THREADS=1; {1} exec {2} {3} "
      ">'{0}/stdout' 2>'{0}/stderr' </dev/null {4}",
      folder.path(), before, ESPALIER_COMMAND, arguments, redirections);
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  return child;
}

Said finish(const Folder& folder, pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  Said said;
  said.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  said.out = read_file(folder / "stdout");
  said.err = read_file(folder / "stderr");
  return said;
}

}  // namespace

std::string Said::last_line() const {
  const size_t end = out.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t begin = out.rfind('\n', end);
  return out.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

nlohmann::json Said::json() const {
  nlohmann::json parsed = nlohmann::json::parse(last_line(), nullptr, false);
  EXPECT_TRUE(parsed.is_object()) << "last line of stdout: " << last_line() << "\n" << err;
  return parsed.is_object() ? parsed : nlohmann::json();
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "espalier-tools-XXXXXX").string();
  path_ = mkdtemp(name.data());
}

Folder::~Folder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

Said run(const Folder& folder, const std::string& arguments, const std::string& before) {
  return finish(folder, start(folder, arguments, before));
}

Said run_redirected(const Folder& folder, const std::string& arguments, const std::string& redirections) {
  return finish(folder, start(folder, arguments, "", redirections));
}

Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::string& file) {
  using namespace std::chrono_literals;
  const pid_t child = start(folder, arguments, "");
  for (int tries = 0; tries < 3000 && !std::filesystem::exists(folder / file); ++tries) {
    if (waitpid(child, nullptr, WNOHANG) != 0) {
      ADD_FAILURE() << "ended before it was interrupted: " << read_file(folder / "stderr");
      return {};
    }
    std::this_thread::sleep_for(10ms);
  }
  kill(child, SIGINT);
  return finish(folder, child);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace espalier::testing
