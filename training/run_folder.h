// How a run lives on disk: a folder that one process at a time works in, and files that are whole or not there.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace espalier {

/// What a training leaves in its folder.
inline constexpr const char* kCheckpointFile = "checkpoint.safetensors";  ///< where it stands
inline constexpr const char* kBestFile = "best.safetensors";              ///< the best epoch's network
inline constexpr const char* kMetricsFile = "metrics.jsonl";              ///< a line for every epoch
inline constexpr const char* kModelFile = "model.safetensors";            ///< the network that came of it

/// The contents of a whole file; nothing when it cannot be read.
std::optional<std::string> read_text(const std::string& path);

/// A folder in which a run lives, and the right to write there.
///
/// While a RunFolder of it is alive, no other process gets one: its lock is flock(2) on the file `.lock`, which the
/// kernel frees however a process ends, so that no lock is ever stale. All of one process's RunFolders of a folder
/// share the lock, as a command and the Trainer in it do. (On a file system without locks there is none.)
///
/// A run has an identity: JSON with everything that changes its result, kept in a file with what it belongs to. A
/// folder goes over from one run to the next in this order: take the lock, forget what the older run left, write the
/// new identity. However a process dies on the way, nothing that a run goes on from is ever found under the identity of
/// another. The exception is the older run's network, kModelFile: it stays, beside the new identity, until a new one
/// takes its place, and its metadata says how it was trained.
class RunFolder {
 public:
  /// No folder: is_used() is false, nothing is there, nothing is written.
  RunFolder() = default;
  /// Makes the folder if need be, takes its lock, and removes temporary files that dead processes left in it. "" is no
  /// folder. Throws FileError when it can't be made or written, and when another process works in it, saying which.
  explicit RunFolder(const std::string& path);
  /// The first of BASE, BASE-2, BASE-3, ... that is not there yet, made by this call and no other process's.
  static RunFolder make_new(const std::string& base);

  /// Which other process works in that folder: "process 4711 on laptop since ... (espalier train ...)"; "" when
  /// there is none.
  static std::string holder_of(const std::string& path);

  bool is_used() const { return lock_ != nullptr; }
  const std::string& path() const { return path_; }
  /// PATH/NAME; "" without a folder.
  std::string file(std::string_view name) const;
  bool has(std::string_view name) const;

  /// The JSON in a file, null when there is no such file. Throws FileError for anything else.
  nlohmann::json read_json(std::string_view name) const;
  /// Writes a file of JSON, atomically.
  void write_json(std::string_view name, const nlohmann::json& json) const;

  /// A step that is done is not done again: the mark is a file in the step's folder.
  bool is_done() const { return has(kDoneFile); }
  void mark_done(const std::string& what) const;

  /// Whether a training or a step began here: its checkpoint or its end is there.
  bool has_begun() const { return is_done() || has(kCheckpointFile); }

  /// Removes files or whole folders; those that aren't there don't matter. Throws FileError for what can't be removed.
  void forget(const std::vector<std::string>& names) const;
  /// Removes the folder itself, unless it holds anything.
  void remove_if_empty() const;
  /// What every run forgets of an older one: its training, and that it was done. The network stays until a new one
  /// takes its place.
  void forget_training() const { forget({kDoneFile, kCheckpointFile, kBestFile, kMetricsFile}); }

 private:
  class Lock;
  static constexpr const char* kDoneFile = "done";

  std::string path_;
  std::shared_ptr<const Lock> lock_;
};

/// "\n  KEY: was A, is B" for every value in which two JSON objects differ, "" when there is none. Keys inside of
/// others are joined by dots: "optimizer.lr".
std::string differences(const nlohmann::json& was, const nlohmann::json& is);

/// Throws FileError unless a run whose identity `was` stands in `file` may go on as `is`; lists the differences.
void check_same_run(std::string_view operation, const std::string& file, const nlohmann::json& was,
                    const nlohmann::json& is);

}  // namespace espalier
