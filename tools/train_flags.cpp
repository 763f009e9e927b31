#include "tools/train_flags.h"

#include <unistd.h>

#include "tools/commands.h"

namespace espalier::tools {

void add_train_flags(CLI::App& app, TrainFlags& f) {
  const auto add = [&](const std::string& name, auto& value, const std::string& type, const std::string& description) {
    return app.add_option(name, value, description)->type_name(type);
  };
  add("--model,-m", f.model, "NAME", "Network; espalier models list shows them")->group("What");
  add("--data,-d", f.data, "NAME",
      "Data set; espalier datasets list shows them; or\nKIND:PATH of your own: csv:cars.csv")
      ->group("What");
  add("--epochs,-e", f.epochs, "N", "Passes over the training images")->group("Training");
  add("--batch-size,-b", f.batch_size, "N", "Images in one update")->group("Training");
  add("--optimizer", f.optimizer, "NAME", "sgd, adam, adamw or rmsprop")->group("Training");
  add("--lr", f.lr, "X", "Learning rate; with onecycle the highest")->group("Training");
  add("--momentum", f.momentum, "X", "Momentum (beta1 of the Adams)")->group("Training");
  // Of bool only the callback leaves "not given" apart from "no".
  app.add_flag_callback(
         "--nesterov", [&f] { f.nesterov = true; }, "Nesterov momentum, sgd only")
      ->group("Training");
  app.add_flag_callback(
         "--no-nesterov", [&f] { f.nesterov = false; }, "Plain momentum")
      ->group("Training");
  add("--weight-decay", f.weight_decay, "X", "Not applied to biases and normalisation")->group("Training");
  add("--schedule", f.schedule, "TEXT",
      "constant, step:30,0.1, multistep:80,120,\ngamma=0.1, cosine, onecycle, plateau")
      ->group("Training");
  add("--warmup", f.warmup, "EPOCHS", "Linear warm-up before the schedule")->group("Training");
  add("--label-smoothing", f.label_smoothing, "X", "Of the training loss, 0 to below 1")->group("Training");
  add("--clip", f.clip, "NORM", "Largest norm of the gradients; 0: no clipping")->group("Training");
  add("--augment", f.augment, "TEXT", "none, or crop, shift, reflect, flip, affine, cutout\njoined by '-': crop-flip")
      ->group("Training");
  add("--loss", f.loss, "NAME", "cross-entropy, mse, l1 or bce (default: what the data\nasks for)")->group("Training");
  add("--metric", f.metric, "NAME",
      "Which one chooses the epoch: accuracy, mse, mae or\nr2 (default: the data's first)")
      ->group("Training");
  add("--validation", f.validation, "X",
      "Share of the training images set aside; the\nbest epoch on them is kept (default: 0, the\nlast epoch is kept)")
      ->group("Training");
  add("--patience", f.patience, "EPOCHS", "Stop when validation doesn't improve for so long")->group("Training");
  add("--seed", f.seed, "N", "Of weights, order, augmentation (default: 0)")->check(is_seed())->group("Training");
  add("--seeds", f.seeds, "N", "Train with N seeds from --seed on; report mean and\nstandard deviation")->group("Run");
  add("--data-dir", f.data_dir, "DIR", "Folder with data sets, looked into before\nESPALIER_DATA")->group("What");
  add("--checkpoint-every", f.checkpoint_every, "STEPS", "Save more often than after every epoch")->group("Run");
}

void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent) {
  if (output.quiet()) {
    trainer.progress = ProgressMode::silent;
  } else if (isatty(STDERR_FILENO) == 0) {
    trainer.progress = ProgressMode::lines;
    trainer.log = [&output, indent](const std::string& line) { output.say("{}{}", indent, line); };
  }
}

}  // namespace espalier::tools
