// LstmRows: an image read row by row.
#pragma once

#include <memory>

#include "layers/linear.h"
#include "layers/lstm.h"

namespace espalier {

struct LstmRowsOptions {
  int64_t hidden_size = 128;
  int64_t num_layers = 1;
  double dropout = 0;  ///< between layers, in training
};

/// An LSTM over the rows of an image, and a Linear on the last layer's last hidden state.
/// x (N,C,H,W) with C*W = row_size -> logits (N,classes): H steps. Throws on rows of another size.
/// The row-by-row MNIST task of Lee, Ajanthan & Torr 2019 (SNIP), table 3.
class LstmRows : public Module {
 public:
  LstmRows(int64_t row_size, int64_t classes, const LstmRowsOptions& options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "LstmRows"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  const std::shared_ptr<LSTM>& lstm() const { return lstm_; }
  const std::shared_ptr<Linear>& fc() const { return fc_; }

 private:
  LstmRows(LSTM lstm, std::shared_ptr<Linear> fc);

  std::shared_ptr<LSTM> lstm_;
  std::shared_ptr<Linear> fc_;
};

}  // namespace espalier
