// The record of removed units that `espalier diff` reads.
#include "pruning/removals.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "removals";
void (*const kRepair)(std::string&, const std::string&) = repair_safetensors;

std::vector<std::string> seeds() {
  const std::string path = scratch_file();
  std::vector<std::string> files;
  for (Scope scope : {Scope::global, Scope::layer}) {
    RemovalRecord record("magnitude", scope,
                         {{.name = "a", .units = 4, .members = {}}, {.name = "b", .units = 2, .members = {}}});
    record.add(0.5, {{5, 1, 6, 3}, {2, 9}}, {{true, true, true, true}, {true, true}},
               {{true, false, true, false}, {false, true}});
    record.save(path);
    files.push_back(contents_of(path));
  }
  return files;
}

void read(const std::string&, const std::string& path) {
  const RemovalRecord record = RemovalRecord::load(path);
  for (size_t site = 0; site < record.sites().size(); ++site) record.removed(site);
}

}  // namespace espalier::fuzz
