// A network that is a list of steps, so that a random one can be written down, cloned, saved and loaded.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "layers/module.h"

namespace espalier::topology {

/// One operation. Its results are appended to the values, the first of which is the network's input.
struct Step {
  std::string operation;            ///< a name of the table in program_network.cpp
  std::vector<size_t> operands;     ///< positions among the values
  std::string layer = {};           ///< whose forward, or whose weight, the operation uses
  std::vector<int64_t> sizes = {};  ///< axes and counts, none of which is a number of channels

  size_t results() const;
};

/// Layers by name, the weights that two of them share, and the steps. The output is the last value.
struct Program {
  std::vector<std::pair<std::string, ModulePtr>> layers;
  std::vector<std::pair<std::string, std::string>> ties;  ///< the second layer uses the weight of the first
  std::vector<Step> steps;

  /// Leaves out the steps and layers that the output doesn't need, in training neither.
  void remove_unused();
  /// The layer of that name.
  const ModulePtr& layer(const std::string& name) const;
};

class ProgramNetwork : public Module {
 public:
  explicit ProgramNetwork(Program program);
  Variable forward(const Variable& x) override;
  std::string type() const override { return "ProgramNetwork"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  const Program& program() const { return program_; }

 private:
  Program program_;
};

}  // namespace espalier::topology
