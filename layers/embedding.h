// Embedding: a table of vectors.
#pragma once

#include "layers/module.h"

namespace espalier {

/// Rows of a table. ids i64 of any shape (S...) -> (S...,dim); weight (count,dim), standard normal at first.
/// Throws on ids of another dtype or outside [0,count).
class Embedding : public Module {
 public:
  Embedding(int64_t count, int64_t dim);
  Variable forward(const Variable& ids) override;
  std::string type() const override { return "Embedding"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  ChannelAccount channels() const override { return {.axis = ChannelAxis::last}; }

  int64_t count() const { return weight_.size(0); }
  int64_t dim() const { return weight_.size(1); }
  const Parameter& weight() const { return weight_; }

 private:
  Parameter& weight_;
};

}  // namespace espalier
