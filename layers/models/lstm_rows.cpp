#include "layers/models/lstm_rows.h"

#include "layers/config_reader.h"
#include "layers/models/builders.h"

namespace espalier {

LstmRows::LstmRows(int64_t row_size, int64_t classes, const LstmRowsOptions& options)
    : LstmRows(LSTM(row_size, options.hidden_size, {.num_layers = options.num_layers, .dropout = options.dropout}),
               share(Linear(options.hidden_size, classes)), options.every_step) {}

LstmRows::LstmRows(LSTM lstm, std::shared_ptr<Linear> fc, bool every_step)
    : lstm_(add_child("lstm", std::move(lstm))), fc_(add_child("fc", std::move(fc))), every_step_(every_step) {}

Bundle LstmRows::forward_all(const Bundle& inputs) {
  const Variable& x = inputs.first();
  const int64_t row_size = lstm_->input_size();
  const bool is_sequence = x.rank() == 3 && x.size(2) == row_size;
  if (!is_sequence && (x.rank() != 4 || x.size(1) * x.size(3) != row_size))
    fail("LstmRows", "expected images (N,C,H,W) with C*W = {}, or sequences (N,T,{}), got {}", row_size, row_size,
         x.shape());
  if (inputs.size() > 2) fail("LstmRows", "expected a sequence and its lengths, got {} inputs", inputs.size());
  // (N,C,H,W) -> (H,N,C*W): a row of all channels is one step.
  const Variable rows =
      is_sequence ? permute(x, {1, 0, 2}) : reshape(permute(x, {2, 0, 1, 3}), {x.size(2), x.size(0), row_size});
  LstmInputs with;
  if (inputs.size() == 2) with.lengths = inputs[1].data();
  const LstmResult result = (*lstm_)(rows, with);
  if (every_step_) return permute((*fc_)(result.output), {1, 0, 2});  // (T,N,C) -> (N,T,C)
  return (*fc_)(result.last_h.back());
}

nlohmann::json LstmRows::config() const {
  nlohmann::json result = {{"type", type()},
                           {"row_size", lstm_->input_size()},
                           {"classes", fc_->out_features()},
                           {"hidden_size", lstm_->hidden_size()},
                           {"num_layers", lstm_->options().num_layers},
                           {"dropout", lstm_->options().dropout}};
  if (every_step_) result["every_step"] = true;
  if (lstm_->config().contains("hidden_sizes")) result["hidden_sizes"] = lstm_->hidden_sizes();
  if (const nlohmann::json fc = fc_->config(); fc.contains("inputs")) result["fc_inputs"] = fc["inputs"];
  return result;
}

ModulePtr LstmRows::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t row_size = reader.integer("row_size"), classes = reader.integer("classes");
  const LstmRowsOptions options{.hidden_size = reader.integer("hidden_size", 128),
                                .num_layers = reader.integer("num_layers", 1),
                                .dropout = reader.number("dropout", 0),
                                .every_step = reader.boolean("every_step", false)};
  LstmOptions lstm{.num_layers = options.num_layers, .dropout = options.dropout};
  if (reader.has("hidden_sizes")) lstm.hidden_sizes = reader.integers("hidden_sizes");
  nlohmann::json fc = {{"type", "Linear"},
                       {"in_features", lstm.hidden_sizes.empty() ? options.hidden_size : lstm.hidden_sizes.back()},
                       {"out_features", classes}};
  if (reader.has("fc_inputs")) fc["inputs"] = reader.integers("fc_inputs");
  reader.finish();
  return ModulePtr(new LstmRows(LSTM(row_size, options.hidden_size, lstm),
                                std::dynamic_pointer_cast<Linear>(Linear::from_config(fc)), options.every_step));
}

ModulePtr build_lstm_rows(const Shape& image, int64_t classes, int64_t hidden, bool every_step) {
  return std::make_shared<LstmRows>(image.rank() == 2 ? image[1] : image[0] * image[2], classes,
                                    LstmRowsOptions{.hidden_size = hidden, .every_step = every_step});
}

}  // namespace espalier
