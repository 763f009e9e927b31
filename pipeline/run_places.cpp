#include "pipeline/run_places.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"

namespace espalier {

namespace fs = std::filesystem;

namespace {

constexpr char kSeed[] = "seed-";

/// A folder "seed-N" itself; one that is linked to, or has another name, is a user's own.
bool is_of_seed(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  const std::string_view number = std::string_view(name).substr(std::min(name.size(), sizeof(kSeed) - 1));
  std::error_code ignored;
  return name.starts_with(kSeed) && !number.empty() &&
         number.find_first_not_of("0123456789") == std::string_view::npos &&
         entry.symlink_status(ignored).type() == fs::file_type::directory;
}

/// A word as a shell reads it back.
std::string shell_word(const std::string& text) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("/._-+:=,@%").find(c) != std::string::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::string seed_folder(const std::string& out, int64_t seeds, uint64_t seed) {
  return seeds == 1 ? out : fmt::format("{}/{}{}", out, kSeed, seed);
}

std::vector<RunFolder> places_in(const RunFolder& out) {
  std::vector<RunFolder> places = {out};
  std::error_code error;
  for (fs::directory_iterator at(out.path(), error), end; !error && at != end; at.increment(error))
    if (is_of_seed(*at)) places.emplace_back(at->path().string());
  if (error) fail<FileError>("run", "cannot read {}: {}", out.path(), error.message());
  return places;
}

void check_can_be_folder(const char* command, const std::string& path) {
  std::error_code ignored;
  check(!fs::exists(path, ignored) || fs::is_directory(path, ignored), command,
        "{} is no folder, and --out names the folder of a run; choose another", path);
}

void check_holds_no_run(const char* command, const std::string& folder) {
  for (const char* sign : {kTrainIdentity, kRecipeIdentity, kCheckpointFile})
    check(!fs::exists(fmt::format("{}/{}", folder, sign)), command,
          "{} holds a run already; add --resume to go on with it, --overwrite to start anew, or choose another --out",
          folder);
}

void check_replaces_nothing(const char* command, const std::string& file, const std::string& source, bool overwrite) {
  std::error_code ignored;
  check(!fs::equivalent(source, file, ignored), command,
        "{} would replace the network that it is made from; choose another --out", file);
  check(overwrite || !fs::exists(file, ignored), command,
        "{} is there already; add --overwrite to replace it, or choose another --out", file);
}

RunFolder open_run(const char* command, const std::string& folder, const char* identity) {
  const std::string file = fmt::format("{}/{}", folder, identity);
  if (folder.empty() || !fs::exists(file))
    fail<FileError>(command, "{}: expected a run to resume, found none; start one without --resume",
                    folder.empty() ? "--resume needs --out DIR" : file);
  return RunFolder(folder);
}

void forget_other_networks(const RunFolder& out, const std::vector<std::string>& written) {
  for (const RunFolder& place : places_in(out))
    if (std::find(written.begin(), written.end(), place.path()) == written.end()) {
      place.forget({kModelFile});
      if (place.path() != out.path()) place.remove_if_empty();
    }
}

std::string resume_command(const std::string& command, const std::string& out, const std::string& data_dir,
                           const std::string& device) {
  std::string line = fmt::format("espalier {} --resume --out {}", command, shell_word(out));
  if (!data_dir.empty()) line += " --data-dir " + shell_word(data_dir);
  if (device != "cpu") line += " --device " + device;
  return line;
}

}  // namespace espalier
