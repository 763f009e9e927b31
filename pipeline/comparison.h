// Networks side by side, as `espalier compare` shows them: size, quality, time.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pipeline/model_report.h"

namespace espalier {

/// One network, or the same network of several seeds.
struct ComparedNetwork {
  std::string name;
  std::vector<std::string> files = {};
  std::vector<ModelReport> reports = {};     ///< of each file
  std::vector<Latency> one = {}, many = {};  ///< at batch 1 and 128
};
/// Means over the seeds under the names of a single network's figures; deviations as NAME_std; each seed in "seeds".
nlohmann::json to_json(const ComparedNetwork& network);

struct CompareOptions {
  std::string data = {}, data_dir = {};  ///< "": what each network was trained on
  int64_t rounds = 30;                   ///< timed passes at batch 128; ten times as many at batch 1
};

/// The networks of model files and runs; of a run the one before compression (if there is one) and the final one.
/// Nothing is measured. Throws FileError when there is none.
std::vector<ComparedNetwork> networks_of(const std::vector<std::string>& runs);
/// Measures them; all times in turns, so that all networks meet the same disturbances.
void measure_networks(std::vector<ComparedNetwork>& networks, const CompareOptions& options);

}  // namespace espalier
