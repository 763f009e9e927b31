#include "run_command.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace espalier::testing {

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

Running::Running(const Folder& folder, const std::string& arguments, const std::string& before,
                 const std::string& redirections) {
  static int count = 0;
  out_ = folder / fmt::format("stdout-{}", ++count);
  err_ = folder / fmt::format("stderr-{}", count);
  const std::string line = fmt::format(
      "cd '{0}' && unset ESPALIER_DATA; export XDG_CACHE_HOME='{0}/cache' OMP_NUM_THREADS=1; {1} exec {2} {3} "
      ">'{4}' 2>'{5}' </dev/null {6}",
      folder.path(), before, ESPALIER_COMMAND, arguments, out_, err_, redirections);
  child_ = fork();
  if (child_ == 0) {
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
}

Said run_redirected(const Folder& folder, const std::string& arguments, const std::string& redirections) {
  return Running(folder, arguments, "", redirections).finish();
}

Running::~Running() {
  if (child_ == 0) return;
  send(SIGKILL);
  finish();
}

bool Running::wait_for(const std::function<bool()>& happened) {
  using namespace std::chrono_literals;
  for (int tries = 0; tries < 3000 && !happened(); ++tries) {
    siginfo_t info = {};
    if (waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
      ADD_FAILURE() << "ended too early: " << read_file(err_);
      return false;
    }
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

void Running::send(int signal) const { kill(child_, signal); }

Said Running::finish() {
  int status = 0;
  waitpid(std::exchange(child_, 0), &status, 0);
  Said said;
  said.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  said.out = read_file(out_);
  said.err = read_file(err_);
  return said;
}

Said run(const Folder& folder, const std::string& arguments, const std::string& before) {
  return Running(folder, arguments, before).finish();
}

Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::string& file) {
  return run_and_interrupt(folder, arguments, [&] { return std::filesystem::exists(folder / file); });
}

Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::function<bool()>& when) {
  Running running(folder, arguments);
  if (!running.wait_for(when)) return {};
  running.send(SIGINT);
  return running.finish();
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
