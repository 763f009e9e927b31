// Runs the espalier command as a user's shell would, and keeps what it said.
#pragma once

#include <filesystem>
#include <string>

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

/// espalier ARGUMENTS, as a shell line, in the folder; no data folder is set, the user's cache is empty, and it
/// has one thread, because threads that wait for each other on a busy machine take minutes.
/// `before`: shell commands to run first ("export ESPALIER_DATA=x;").
Said run(const Folder& folder, const std::string& arguments, const std::string& before = "");

/// The same with stdout and stderr somewhere else: ">/dev/full" or "2>&-". What is redirected can't be read afterwards.
Said run_redirected(const Folder& folder, const std::string& arguments, const std::string& redirections);

/// The same as run(), sent SIGINT as soon as `file` (in the folder) is there.
Said run_and_interrupt(const Folder& folder, const std::string& arguments, const std::string& file);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& contents);

bool contains(const std::string& text, const std::string& part);

}  // namespace espalier::testing
