#include "layers/models/lstm_rows.h"

#include "layers/config_reader.h"
#include "layers/models/builders.h"

namespace espalier {

LstmRows::LstmRows(int64_t row_size, int64_t classes, const LstmRowsOptions& options)
    : LstmRows(LSTM(row_size, options.hidden_size, {.num_layers = options.num_layers, .dropout = options.dropout}),
               share(Linear(options.hidden_size, classes))) {}

LstmRows::LstmRows(LSTM lstm, std::shared_ptr<Linear> fc)
    : lstm_(add_child("lstm", std::move(lstm))), fc_(add_child("fc", std::move(fc))) {}

Variable LstmRows::forward(const Variable& x) {
  const int64_t row_size = lstm_->input_size();
  if (x.rank() != 4 || x.size(1) * x.size(3) != row_size)
    fail("LstmRows", "expected images (N,C,H,W) with C*W = {}, got {}", row_size, x.shape());
  // (N,C,H,W) -> (H,N,C*W): a row of all channels is one step.
  const Variable rows = reshape(permute(x, {2, 0, 1, 3}), {x.size(2), x.size(0), row_size});
  const LstmResult result = (*lstm_)(rows, LstmInputs{});
  return (*fc_)(result.last_h.back());
}

nlohmann::json LstmRows::config() const {
  nlohmann::json result = {{"type", type()},
                           {"row_size", lstm_->input_size()},
                           {"classes", fc_->out_features()},
                           {"hidden_size", lstm_->hidden_size()},
                           {"num_layers", lstm_->options().num_layers},
                           {"dropout", lstm_->options().dropout}};
  if (lstm_->config().contains("hidden_sizes")) result["hidden_sizes"] = lstm_->hidden_sizes();
  if (const nlohmann::json fc = fc_->config(); fc.contains("inputs")) result["fc_inputs"] = fc["inputs"];
  return result;
}

ModulePtr LstmRows::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t row_size = reader.integer("row_size"), classes = reader.integer("classes");
  const LstmRowsOptions options{.hidden_size = reader.integer("hidden_size", 128),
                                .num_layers = reader.integer("num_layers", 1),
                                .dropout = reader.number("dropout", 0)};
  LstmOptions lstm{.num_layers = options.num_layers, .dropout = options.dropout};
  if (reader.has("hidden_sizes")) lstm.hidden_sizes = reader.integers("hidden_sizes");
  nlohmann::json fc = {{"type", "Linear"},
                       {"in_features", lstm.hidden_sizes.empty() ? options.hidden_size : lstm.hidden_sizes.back()},
                       {"out_features", classes}};
  if (reader.has("fc_inputs")) fc["inputs"] = reader.integers("fc_inputs");
  reader.finish();
  return ModulePtr(new LstmRows(LSTM(row_size, options.hidden_size, lstm),
                                std::dynamic_pointer_cast<Linear>(Linear::from_config(fc))));
}

ModulePtr build_lstm_rows(const Shape& image, int64_t classes, int64_t hidden) {
  return std::make_shared<LstmRows>(image[0] * image[2], classes, LstmRowsOptions{.hidden_size = hidden});
}

}  // namespace espalier
