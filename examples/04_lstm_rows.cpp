// Lesson 4: a layer of your own, and a network that remembers.
//
// An image can be read like a text: row by row, from top to bottom. A recurrent network sees one row at a time and
// keeps what matters in a state. LSTM (Hochreiter & Schmidhuber 1997) has gates that decide what is kept, what is
// forgotten and what is shown.
//
//   build/release/examples/04_lstm_rows [DATA [IMAGES]]     as in lesson 3
#include <cstdlib>
#include <string>

#include <espalier/espalier.h>
#include <nlohmann/json.hpp>

using namespace espalier;

// A module of your own says what it consists of, in the constructor, and what it computes, in forward(). Gradients,
// checkpoints, moving between devices and the optimiser need nothing more. (The library has this network as
// "lstm-rows".)
class RowReader : public Module {
 public:
  RowReader(int64_t columns, int64_t hidden, int64_t classes)
      : hidden_(hidden),
        lstm_(add_child("lstm", LSTM(columns, hidden))),
        head_(add_child("head", Linear(hidden, classes))) {}

  // images (N,1,H,W) -> scores (N,classes)
  Variable forward(const Variable& images) override {
    // An LSTM takes (time, batch, features): H rows are H steps, the W pixels of a row its features.
    const Variable rows = permute(squeeze(images, 1), {1, 0, 2});  // (N,H,W) -> (H,N,W)
    const LstmResult read = (*lstm_)(rows, {});                    // h: the state after the last row, (1,N,hidden)
    return (*head_)(select(read.h, 0, 0));
  }

  std::string type() const override { return "RowReader"; }
  // What rebuilds it, for checkpoints and clone().
  nlohmann::json config() const override {
    return {
        {"type", type()}, {"columns", lstm_->input_size()}, {"hidden", hidden_}, {"classes", head_->out_features()}};
  }
  static ModulePtr from_config(const nlohmann::json& config) {
    return std::make_shared<RowReader>(config.at("columns"), config.at("hidden"), config.at("classes"));
  }

 private:
  int64_t hidden_;
  std::shared_ptr<LSTM> lstm_;
  std::shared_ptr<Linear> head_;
};

// A callback takes part in the training. This one watches how large the gradients get: through 28 steps of time they
// are products of many factors, which is why recurrent networks are trained with their norm limited.
class LargestNorm : public Callback {
 public:
  void on_step_end(Trainer&, const StepRecord& step) override {
    largest = std::max(largest, step.grad_norm.value_or(0));
  }
  double largest = 0;
};

std::string find_data() {
  for (const char* name : {"mnist", "fashion-mnist"}) {
    if (!locate_dataset(name).empty()) return name;
    fmt::print("{} isn't on this machine (espalier datasets download {} gets it)\n", name, name);
  }
  return "digits";
}

int lesson(const std::string& name, int64_t limit) {
  module_registry().add("RowReader", RowReader::from_config);
  Splits data = load_dataset(name);
  if (limit > 0) data.train = data.train.subset(Generator(0).permutation(data.train.size())).first(limit);
  fmt::print("{}: {} images, read as {} rows of {} pixels\n\n", name, data.train.size(), data.train.height(),
             data.train.width());

  set_seed(0);
  const auto network = std::make_shared<RowReader>(data.train.width(), 64, data.train.num_classes());
  for (const auto& [full_name, parameter] : network->named_parameters())
    fmt::print("  {:<20} {}\n", full_name, parameter.shape());

  // Adam adapts the step to each weight, which suits the LSTM's gates.
  const auto optimizer = std::make_shared<Adam>(*network, AdamOptions{.lr = 5e-3});
  const auto norms = std::make_shared<LargestNorm>();
  TrainerOptions options;
  options.epochs = name == "digits" ? 20 : limit > 0 ? 5 : 2;
  options.batch_size = 64;
  options.schedule = one_cycle_schedule();
  options.clip_norm = 1;
  options.callbacks = {norms};
  fmt::print("\n");
  Trainer trainer(network, optimizer, options);
  if (trainer.fit(data.train).stop == StopReason::interrupted) return 130;

  const Evaluation result = trainer.evaluate(data.test);
  fmt::print("\ntest accuracy {:.2f} %; the largest gradient norm was {:.2f} and was cut to {}\n",
             100 * result.accuracy(), norms->largest, options.clip_norm);

  // clone() went through config() and from_config(): an independent network that says the same.
  const ModulePtr copy = network->clone();
  const Tensor some = Transform(data.test.mean, data.test.stddev).normalize(data.test.first(10).images);
  const NoGrad no_grad;
  copy->eval();
  network->eval();
  const bool same = identical((*copy)(some).data(), (*network)(some).data());

  const double expected = name == "mnist"    ? (limit > 0 ? 0.85 : 0.95)
                          : name == "digits" ? 0.85
                                             : (limit > 0 ? 0.65 : 0.80);
  if (result.accuracy() < expected || !same) {
    fmt::print(stderr, "expected an accuracy of at least {} and an equal copy; got {} and {}\n", expected,
               result.accuracy(), same ? "an equal one" : "another one");
    return 1;
  }
  fmt::print("\nWith 128 units, from the command line: espalier train --model lstm-rows:128 --data {}\n", name);
  fmt::print("Next: 05_masks, where weights are removed\n");
  return 0;
}

int main(int argc, char** argv) {
  try {
    const std::string data = argc > 1 ? argv[1] : "auto";
    return lesson(data == "auto" ? find_data() : data, argc > 2 ? std::atoll(argv[2]) : 0);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
