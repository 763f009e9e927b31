#include "training/run_folder.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file_errors.h"
#include "core/json.h"

#include "core/safetensors.h"

namespace espalier {

namespace fs = std::filesystem;

std::optional<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

namespace {

constexpr char kOperation[] = "run folder";
constexpr char kLockFile[] = ".lock";

/// Who holds a lock, as its file says.
std::string holder_in(const std::string& lock_file) {
  const std::string text = read_text(lock_file).value_or("");
  return text.empty() ? "another process" : text.substr(0, text.find('\n'));
}

/// "process 4711 on laptop since 2026-11-28 03:00:00 (espalier train ...)".
std::string describe_this_process() {
  char host[256] = "", when[32] = "";
  gethostname(host, sizeof(host) - 1);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  std::strftime(when, sizeof(when), "%F %T", localtime_r(&now, &local));
  std::string command = read_text("/proc/self/cmdline").value_or("").substr(0, 200);  // words, each with a 0 behind it
  while (!command.empty() && command.back() == '\0') command.pop_back();
  for (char& c : command)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return fmt::format("process {} on {} since {} ({})", getpid(), host, when, command);
}

void make_folders(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error || !fs::is_directory(path, error))
    fail<WriteError>(kOperation, "cannot write to {}: {}", path.string(),
                     error ? error.message() : "a file has that name");
}

}  // namespace

/// One RunFolder's share in the lock of its folder, which everybody in this process who works there has together.
class RunFolder::Lock {
 public:
  explicit Lock(const std::string& folder) {
    const std::lock_guard guard(turn());
    const std::string path = fmt::format("{}/{}", folder, kLockFile);
    locked_ = ours(path);
    if (locked_) return;
    locked_ = std::make_shared<const Locked>(folder, path);
    held()[file_at(path)] = locked_;
  }
  /// Who holds a folder's lock, as its file says; "" when nobody or this process does.
  static std::string holder_of(const std::string& folder) {
    const std::lock_guard guard(turn());
    const std::string path = fmt::format("{}/{}", folder, kLockFile);
    if (ours(path)) return "";
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (file.number < 0) return "";
    // Only an attempt tells: the lock is had for as long as it takes to give it back.
    return flock(file.number, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK ? holder_in(path) : "";
  }
  /// The last share frees the file while it is its turn: otherwise a thread that takes the folder at this moment would
  /// find that nobody in this process has it, and that it is locked.
  ~Lock() {
    const std::lock_guard guard(turn());
    locked_.reset();
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  using File = std::pair<dev_t, ino_t>;  ///< the same by whatever path it is reached; {0, 0} is none

  /// A descriptor that is closed, which frees its lock, however its owner ends.
  struct Descriptor {
    int number;
    explicit Descriptor(int opened) : number(opened) {}
    ~Descriptor() {
      if (number >= 0) close(number);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
  };

  struct Locked {
    Locked(const std::string& folder, const std::string& path)
        : file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) {
      if (file.number < 0) fail<WriteError>(kOperation, "cannot write to {}: {}", folder, std::strerror(errno));
      if (flock(file.number, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        fail<FileError>(kOperation, "{} is held by {}; wait for it, stop it, or choose another folder", folder,
                        holder_in(path));
      }
      struct stat opened = {};
      if (fstat(file.number, &opened) != 0 || file_at(path) != File{opened.st_dev, opened.st_ino})
        fail<WriteError>(kOperation, "cannot write to {}: it was removed at this moment; try again", folder);
      const std::string text = describe_this_process() + "\n";
      // Only the message of others depends on it.
      [[maybe_unused]] const bool told =
          ftruncate(file.number, 0) == 0 && pwrite(file.number, text.data(), text.size(), 0) > 0;
      remove_abandoned_files(folder);
    }

    Descriptor file;
    pid_t process = getpid();  ///< a fork has a copy of it, and no right to it
  };

  static std::map<File, std::weak_ptr<const Locked>>& held() {
    static std::map<File, std::weak_ptr<const Locked>> locks;
    return locks;
  }
  /// This process's lock on a file, if there is one. The file is looked at before anybody opens it: where locks are a
  /// server's, closing one more descriptor of a locked file frees it.
  static std::shared_ptr<const Locked> ours(const std::string& path) {
    const auto found = held().find(file_at(path));
    std::shared_ptr<const Locked> locked = found != held().end() ? found->second.lock() : nullptr;
    return locked && locked->process == getpid() ? locked : nullptr;
  }
  static File file_at(const std::string& path) {
    struct stat info = {};
    return stat(path.c_str(), &info) == 0 ? File{info.st_dev, info.st_ino} : File{};
  }
  static std::mutex& turn() {
    static std::mutex mutex;
    return mutex;
  }

  std::shared_ptr<const Locked> locked_;
};

RunFolder::RunFolder(const std::string& path) : path_(path) {
  if (path.empty()) return;
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();  // paths of folders inside are compared as text
  make_folders(path_);
  lock_ = std::make_shared<const Lock>(path_);
}

RunFolder RunFolder::make_new(const std::string& base) {
  if (const fs::path parent = fs::path(base).parent_path(); !parent.empty()) make_folders(parent);
  for (int i = 1;; ++i) {
    const std::string path = i == 1 ? base : fmt::format("{}-{}", base, i);
    if (mkdir(path.c_str(), 0777) == 0) return RunFolder(path);
    if (errno != EEXIST) fail<WriteError>(kOperation, "cannot write to {}: {}", path, std::strerror(errno));
  }
}

std::string RunFolder::holder_of(const std::string& path) { return Lock::holder_of(path); }

std::string RunFolder::file(std::string_view name) const { return is_used() ? fmt::format("{}/{}", path_, name) : ""; }

bool RunFolder::has(std::string_view name) const {
  std::error_code ignored;
  return is_used() && fs::exists(file(name), ignored);
}

nlohmann::json RunFolder::read_json(std::string_view name) const {
  if (!has(name)) return {};
  try {
    return parse_json(read_text(file(name)).value_or(""));
  } catch (const nlohmann::json::exception& error) {
    const auto* broken = dynamic_cast<const nlohmann::json::parse_error*>(&error);
    fail<FileError>(kOperation, "{}: not what a run wrote: expected JSON, found something else{}; start anew",
                    file(name), broken != nullptr ? fmt::format(" at byte {}", broken->byte) : "");
  }
}

void RunFolder::write_json(std::string_view name, const nlohmann::json& json) const {
  if (is_used()) write_file_atomically(file(name), json.dump(2) + "\n");
}

void RunFolder::mark_done(const std::string& what) const {
  if (is_used()) write_file_atomically(file(kDoneFile), what + "\n");
}

void RunFolder::forget(const std::vector<std::string>& names) const {
  if (!is_used()) return;
  for (const std::string& name : names) {
    std::error_code error;
    fs::remove_all(file(name), error);
    if (error)
      fail<WriteError>(kOperation, "cannot write to {}: {} can't be removed: {}", path_, name, error.message());
  }
}

void RunFolder::remove_if_empty() const {
  if (!is_used()) return;
  std::error_code error;
  for (fs::directory_iterator at(path_, error), end; !error && at != end; at.increment(error))
    if (at->path().filename() != kLockFile) return;
  if (error) return;
  fs::remove(file(kLockFile), error);
  fs::remove(path_, error);
}

std::string differences(const nlohmann::json& was, const nlohmann::json& is) {
  constexpr size_t kListed = 20;
  const nlohmann::json before = was.flatten(), after = is.flatten();
  nlohmann::json all = before;
  all.update(after);
  std::string text;
  size_t count = 0;
  for (const auto& [key, ignored] : all.items()) {
    const nlohmann::json then = before.value(key, nlohmann::json()), now = after.value(key, nlohmann::json());
    if (then == now || ++count > kListed) continue;
    std::string name = key.substr(1);
    for (char& c : name)
      if (c == '/') c = '.';
    text += fmt::format("\n  {}: was {}, is {}", name, then.dump(), now.dump());
  }
  if (count > kListed) text += fmt::format("\n  and {} more", count - kListed);
  return text;
}

void check_same_run(std::string_view operation, const std::string& file, const nlohmann::json& was,
                    const nlohmann::json& is) {
  const std::string found = differences(was, is);
  if (!found.empty()) fail<FileError>(operation, "{} was made with other settings, so it cannot go on:{}", file, found);
}

}  // namespace espalier
