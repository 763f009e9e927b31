// Heads: a network's outputs as several answers.
#pragma once

#include <memory>
#include <vector>

#include "layers/module.h"

namespace espalier {

/// Takes the outputs (N,K) of a body apart into one (N,size) for each head; the sizes add up to K. With a Linear at the
/// body's end that is a linear layer for each head on what they share.
class Heads : public Module {
 public:
  Heads(ModulePtr body, std::vector<int64_t> sizes);
  /// The first head's.
  Variable forward(const Variable& x) override { return forward_all(x).first(); }
  /// All heads'. What goes in goes to the body.
  Bundle forward_all(const Bundle& inputs) override;
  std::string type() const override { return "Heads"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  ModulePtr body_;
  std::vector<int64_t> sizes_;
};

}  // namespace espalier
