#include "pruning/schedules/search_folder.h"

#include <filesystem>
#include <utility>

#include "core/json.h"
#include "training/checkpoint.h"

namespace espalier {

namespace {
constexpr std::string_view kRound = "round-", kNetwork = ".safetensors";
}  // namespace

bool SearchFolder::go_on(const nlohmann::json& identity, const std::vector<std::string>& others,
                         const std::function<void(const nlohmann::json&)>& read) {
  if (!is_used()) return false;
  identity_ = identity.dump();
  const nlohmann::json list = folder_.read_json(kList);
  if (list.is_null()) {
    folder_.forget(files_of_rounds());
    folder_.forget(others);
    return false;
  }
  try {
    check_same_run(operation_, file(kList), list.at("settings"), identity);
    read(list);
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>(operation_, "{} is not what a search writes: {}", file(kList), error.what());
  }
  return true;
}

void SearchFolder::save(nlohmann::json list) const {
  if (!is_used()) return;
  list["settings"] = nlohmann::json::parse(identity_);
  folder_.write_json(kList, list);
}

std::vector<std::string> SearchFolder::files_of_rounds() const {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(folder_.path(), error);
  for (const std::filesystem::directory_iterator end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    std::string_view number = name;
    if (!number.starts_with(kRound)) continue;
    number.remove_prefix(kRound.size());
    if (number.ends_with(kNetwork)) number.remove_suffix(kNetwork.size());
    if (!number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos) names.push_back(name);
  }
  if (error) fail<FileError>(operation_, "cannot read {}: {}", folder_.path(), error.message());
  return names;
}

std::string SearchFolder::training(int64_t round) const { return folder_.file(fmt::format("{}{}", kRound, round)); }

std::string SearchFolder::network(int64_t round) const {
  return folder_.file(fmt::format("{}{}{}", kRound, round, kNetwork));
}

void SearchFolder::save_network(int64_t round, const Module& network) const {
  if (is_used()) save_checkpoint(this->network(round), network);
}

void SearchFolder::load_network(int64_t round, Module& network) const {
  restore(load_checkpoint(this->network(round)), network);
}

}  // namespace espalier
