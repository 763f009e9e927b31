// LstmRows: an image read row by row, or a sequence step by step.
#pragma once

#include <memory>

#include "layers/linear.h"
#include "layers/lstm.h"

namespace espalier {

struct LstmRowsOptions {
  int64_t hidden_size = 128;
  int64_t num_layers = 1;
  double dropout = 0;       ///< between layers, in training
  bool every_step = false;  ///< an answer to every step: (N,T,classes)
};

/// An LSTM over the rows of an image, or over the steps of a sequence, and a Linear on the last layer's last hidden
/// state: x (N,C,H,W) with C*W = row_size, or (N,T,row_size) -> logits (N,classes). A second input has the lengths of
/// sequences, i64 (N), each from 1 to T: the state after that many steps counts. Throws on rows of another size.
/// The row-by-row MNIST task of Lee, Ajanthan & Torr 2019 (SNIP), table 3.
class LstmRows : public Module {
 public:
  LstmRows(int64_t row_size, int64_t classes, const LstmRowsOptions& options = {});
  Variable forward(const Variable& x) override { return forward_all(x).first(); }
  Bundle forward_all(const Bundle& inputs) override;
  std::string type() const override { return "LstmRows"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  const std::shared_ptr<LSTM>& lstm() const { return lstm_; }
  const std::shared_ptr<Linear>& fc() const { return fc_; }

 private:
  LstmRows(LSTM lstm, std::shared_ptr<Linear> fc, bool every_step);

  std::shared_ptr<LSTM> lstm_;
  std::shared_ptr<Linear> fc_;
  bool every_step_;
};

}  // namespace espalier
