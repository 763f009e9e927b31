// Runs the espalier command as a user's shell would, and keeps what it said.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include <sys/types.h>

#include <nlohmann/json.hpp>

namespace espalier::testing {

struct Said {
  int status = -1;  ///< exit status; 128 + the signal that ended it
  std::string out, err;

  std::string all() const { return out + err; }
  std::string last_line() const;
  /// The last line of stdout as JSON; a test failure and null if it isn't.
  nlohmann::json json() const;
};

/// A folder for one test, empty at first, removed at the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// espalier ARGUMENTS under way, started as a shell line in the folder; no data folder is set, the user's cache is
/// empty, and it has one thread, because threads that wait for each other on a busy machine take minutes.
/// `before`: shell commands to run first ("export ESPALIER_DATA=x;"); `redirections`: in place of what is read back.
/// What is still running at the end is killed.
class Running {
 public:
  Running(const Folder& folder, const std::string& arguments, const std::string& before = "",
          const std::string& redirections = "");
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  pid_t process() const { return child_; }
  /// Half a minute at most; a test failure and false when the command ends before.
  bool wait_for(const std::function<bool()>& happened);
  void send(int signal) const;
  Said finish();

 private:
  pid_t child_ = 0;
  std::string out_, err_;
};

/// From start to end.
Said run(const Folder& folder, const std::string& arguments, const std::string& before = "");

/// The same with stdout and stderr somewhere else: ">/dev/full" or "2>&-". What is redirected can't be read afterwards.
Said run_redirected(const Folder& folder, const std::string& arguments, const std::string& redirections);

/// The same as run(), sent SIGINT as soon as `file` (in the folder) is there.
Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::string& file);
Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::function<bool()>& when);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& contents);

bool contains(const std::string& text, const std::string& part);

}  // namespace espalier::testing
