// LSTM: a stack of recurrent layers, one or two directions.
#pragma once

#include <vector>

#include "layers/module.h"

namespace espalier {

struct LstmOptions {
  int64_t num_layers = 1;  ///< 1 to 1024
  bool bidirectional = false;
  double dropout = 0;        ///< between layers, in training
  bool batch_first = false;  ///< x and output are (B,T,.) instead of (T,B,.)
  bool bias = true;
  /// Hidden size of every layer and direction (order of LstmInputs::h0) where they differ; empty: hidden_size.
  std::vector<int64_t> hidden_sizes = {};
};

/// Inputs beside x; what is undefined is zero (states) or T (lengths). L = num_layers, D = directions, H = hidden size.
/// States can be given only where all hidden sizes agree.
struct LstmInputs {
  Variable h0 = {}, c0 = {};  ///< (L*D,B,H): layer 0 forward, layer 0 backward, layer 1 forward, ...
  Tensor lengths = {};        ///< i64 (B), each from 1 to T: the steps of each sequence that count
};

struct LstmResult {
  Variable output;  ///< (T,B,D*H) or (B,T,D*H): the last layer's h; 0 past a sequence's length
  Variable h, c;    ///< (L*D,B,H): the states after each sequence's last step; undefined where hidden sizes differ
  Variables last_h, last_c;  ///< the same one by one, (B,H) each, whatever the sizes
};

/// Long short-term memory. x (T,B,I) or, batch_first, (B,T,I). Parameters as PyTorch names them: weight_ih_l0 (4H,I),
/// weight_hh_l0 (4H,H), bias_ih_l0, bias_hh_l0 (4H), gates in the order i, f, g, o; later layers read I = D*H;
/// "_reverse" ends the names of the backward direction. All uniform in +-1/sqrt(H) at first. Where layers and
/// directions have hidden sizes of their own, D*H is their sum over the directions. Throws on inputs and states of
/// other shapes and on lengths outside [1,T]. Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
class LSTM : public Module {
 public:
  LSTM(int64_t input_size, int64_t hidden_size, const LstmOptions& options = {});
  /// The output sequence, from zero states.
  Variable forward(const Variable& x) override { return forward(x, LstmInputs{}).output; }
  LstmResult forward(const Variable& x, const LstmInputs& inputs);
  using Module::operator();
  /// The same, seen by ForwardObservers.
  LstmResult operator()(const Variable& x, const LstmInputs& inputs);
  std::string type() const override { return "LSTM"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  int64_t macs(const Shape& input, const Shape& output) const override;
  ChannelAccount channels() const override;

  int64_t input_size() const { return directions_.front().w_ih->size(1); }
  /// Of the first layer and direction.
  int64_t hidden_size() const { return directions_.front().w_hh->size(1); }
  /// Of every layer and direction.
  std::vector<int64_t> hidden_sizes() const;
  const LstmOptions& options() const { return options_; }

 private:
  /// Parameters of one direction of one layer.
  struct Direction {
    Parameter *w_ih, *w_hh, *b_ih, *b_hh;
  };
  int64_t num_directions() const { return options_.bidirectional ? 2 : 1; }
  bool has_one_size() const;
  static std::string suffix(int64_t layer, int64_t direction);
  void observe_reads(int64_t slot, const Variable& x, const Variable& h0, const Variable& output);
  void check_input(const Variable& x, const LstmInputs& inputs) const;

  LstmOptions options_;
  std::vector<Direction> directions_;
};

}  // namespace espalier
