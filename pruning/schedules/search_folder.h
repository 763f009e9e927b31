// A search on disk: rounds of trainings, and what they gave so far.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "layers/module.h"
#include "training/run_folder.h"

namespace espalier {

/// The folder of a search that trains many times: a list of its rounds, the networks that they left, and a folder in
/// which each of them trains. A search that was stopped goes on from its list. Without a list the folder holds no
/// search to go on with: trainings and networks that an older one left there are removed, however many rounds it had,
/// since a round would take the training of its own number up.
class SearchFolder {
 public:
  static constexpr const char* kList = "rounds.json";

  /// "" is no folder: nothing is written, and nothing found. `operation` begins the messages of errors.
  SearchFolder(const char* operation, const std::string& path) : operation_(operation), folder_(path) {}

  bool is_used() const { return folder_.is_used(); }
  /// Gives `read` the list that save() wrote last. False when there is none; files of the search besides those of its
  /// rounds, `others`, are then removed too. `identity`: all that decides the search's result. Throws FileError when
  /// the list is another search's, naming the differences, and when it is none.
  bool go_on(const nlohmann::json& identity, const std::vector<std::string>& others,
             const std::function<void(const nlohmann::json&)>& read);
  /// Writes the list, an object, with the identity that go_on() was given.
  void save(nlohmann::json list) const;

  /// Where a round trains; "" without a folder.
  std::string training(int64_t round) const;
  /// FOLDER/NAME; "" without a folder.
  std::string file(const std::string& name) const { return folder_.file(name); }
  bool has(const std::string& name) const { return folder_.has(name); }
  /// The network that a round left, masks included.
  void save_network(int64_t round, const Module& network) const;
  void load_network(int64_t round, Module& network) const;

 private:
  std::vector<std::string> files_of_rounds() const;
  std::string network(int64_t round) const;

  const char* operation_;
  RunFolder folder_;
  std::string identity_;  ///< as JSON
};

}  // namespace espalier
