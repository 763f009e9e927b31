// Lesson 9: distillation. A small network (the student) learns from what a large one (the teacher) says.
//
// A label says "4". A teacher says "4, and a little like a 9": it tells which wrong answers are nearly right, and says
// so about images without a label too. Divided by a temperature T the scores become softer, and the small probabilities
// count (Hinton, Vinyals & Dean 2015).
//
//   cmake --build build/release --target 09_distillation && build/release/examples/09_distillation
#include <espalier/espalier.h>

using namespace espalier;

constexpr int kSeeds = 5;

// Mean test accuracy of students with different initial weights. Without a teacher they learn from labels only; alpha
// is the teacher's share of the loss.
double train_students(const Dataset& train, const Dataset& test, const ModulePtr& teacher = nullptr, double alpha = 0) {
  Average accuracy;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    set_seed(seed);
    const ModulePtr student = share(Sequential(Flatten(), Linear(64, 12), ReLU(), Linear(12, 10)));
    NamedParameters parameters = student->named_parameters();
    TrainerOptions options{.epochs = 9000 / train.size() + 10, .batch_size = 32, .seed = seed};
    options.progress = ProgressMode::silent;
    if (teacher) {
      // The distillation computes the training loss, in place of cross-entropy. It runs the teacher once for each image
      // and remembers what it said. Terms that compare layers inside the networks bring parameters of their own, so
      // what is trained is what the distillation names.
      DistillationOptions terms;
      terms.terms = {{1.0, knowledge_distillation({.temperature = 4, .alpha = alpha})}};
      const auto distillation = std::make_shared<Distillation>(student, teacher, train, terms);
      parameters = distillation->parameters();
      options = with_distillation(options, distillation);
    }
    Trainer trainer(student, std::make_shared<Adam>(parameters, AdamOptions{.lr = 5e-3}), options);
    trainer.fit(train);
    accuracy.add(trainer.evaluate(test).accuracy(), 1);
  }
  return accuracy.value();
}

int lesson() {
  set_seed(0);
  const Splits digits = load_dataset("digits");

  // 1. The teacher, trained with all labels.
  const ModulePtr teacher =
      share(Sequential(Flatten(), Linear(64, 256), ReLU(), Linear(256, 256), ReLU(), Linear(256, 10)));
  Trainer trainer(teacher, std::make_shared<Sgd>(*teacher, SgdOptions{.lr = 0.05, .momentum = 0.9}),
                  {.epochs = 20, .batch_size = 32, .schedule = one_cycle_schedule(), .progress = ProgressMode::silent});
  trainer.fit(digits.train);
  fmt::print("teacher: {} parameters, test accuracy {:.2f} %\n", teacher->num_parameters(),
             100 * trainer.evaluate(digits.test).accuracy());

  // 2. What it says about the image that it is least sure of, at temperatures 1 and 4.
  {
    const EvalMode mode(*teacher);
    const NoGrad no_grad;
    const Tensor images = Transform(digits.train.mean, digits.train.stddev).normalize(digits.train.images);
    const Variable scores = (*teacher)(images);                  // (N,10)
    const Tensor confidence = max(softmax(scores).data(), {1});  // (N)
    const auto doubtful = static_cast<int64_t>(argmin(confidence, 0).item());
    fmt::print("a {} of which it is not sure:\n", digits.train.subset({doubtful}).labels.item());
    for (const double temperature : {1.0, 4.0}) {
      fmt::print("  T = {}:", temperature);
      for (const float p : softmax(slice(scores, 0, doubtful, doubtful + 1) / temperature).data().to_vector<float>())
        fmt::print(" {:.3f}", p);
      fmt::print("\n");
    }
  }

  // 3. Students with 12 hidden units. Of 200 images they get the label.
  const Dataset some = digits.train.subset(Generator(0).permutation(digits.train.size())).first(200);
  const double alone = train_students(some, digits.test);
  const double taught = train_students(some, digits.test, teacher, 0.9);
  // All images, and not one label: with alpha = 1 the teacher's word is all there is.
  const double without_labels = train_students(digits.train, digits.test, teacher, 1.0);
  fmt::print("students, mean of {}:\n", kSeeds);
  fmt::print("  200 images and their labels              {:.2f} %\n", 100 * alone);
  fmt::print("  200 images, their labels and the teacher {:.2f} %\n", 100 * taught);
  fmt::print("  {} images and the teacher, no labels   {:.2f} %\n", digits.train.size(), 100 * without_labels);

  // The claims of this lesson.
  if (taught < alone || without_labels < alone + 0.01) {
    fmt::print(stderr, "expected the teacher to help: {} with it, {} without labels, {} alone\n", taught,
               without_labels, alone);
    return 1;
  }
  fmt::print("\nA pruned network has the best teacher at hand: itself, before pruning (self_distillation)\n");
  fmt::print("Next: 10_lstm_pruning\n");
  return 0;
}

int main() {
  try {
    return lesson();
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
