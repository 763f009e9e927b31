#include "pruning/distillation/terms.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "layers/conv.h"
#include "layers/linear.h"

namespace espalier {

nlohmann::json DistillationTerm::options() const { return {}; }

namespace {

/// sqrt(x), with the derivative 0 at 0: two networks that agree must not give NaN.
Variable safe_sqrt(const Variable& x) {
  const Tensor positive = x.data() > 0;
  const Variable one = Tensor::scalar(1, x.dtype(), x.device()), zero = Tensor::scalar(0, x.dtype(), x.device());
  return where(positive, sqrt(where(positive, x, one)), zero);
}

/// x / ||x||_2 along the last axis; a zero vector stays one.
Variable normalized(const Variable& x) {
  const Variable norm = safe_sqrt(sum(square(x), {-1}, true));
  const Variable one = Tensor::scalar(1, x.dtype(), x.device());
  return x / where(norm.data() > 0, norm, one);
}

/// Mean over all elements of which `count` can be other than 0.
Variable huber(const Variable& x, const Variable& y, double count) {
  const Variable d = abs(x - y);
  return sum(where(d.data() <= 1, 0.5 * square(d), d - 0.5)) / count;
}

class KnowledgeDistillation : public DistillationTerm {
 public:
  explicit KnowledgeDistillation(const KnowledgeDistillationOptions& options) : options_(options) {
    check(options_.temperature > 0, "knowledge_distillation", "expected a temperature > 0, got {}",
          options_.temperature);
    check(options_.alpha >= 0 && options_.alpha <= 1, "knowledge_distillation", "expected an alpha in [0,1], got {}",
          options_.alpha);
  }
  std::string name() const override { return "knowledge_distillation"; }
  nlohmann::json options() const override {
    return {{"temperature", options_.temperature},
            {"alpha", options_.alpha},
            {"label_smoothing", options_.label_smoothing}};
  }
  Variable loss(const DistillationInput& input) override {
    const double alpha = options_.alpha;
    Variable total;
    if (alpha > 0) {
      for (size_t head = 0; head < input.student.outputs.size(); ++head) {
        const Variable answer = answers_loss(input, head);
        total = total.defined() ? total + answer : answer;
      }
    }
    if (alpha < 1) {
      const Variable labels = batch_loss(input.student.outputs, input.batch, options_.label_smoothing);
      total = total.defined() ? total + labels * (1 - alpha) : labels;
    }
    return total;
  }

 private:
  /// Of one head, with its share of the loss.
  Variable answers_loss(const DistillationInput& input, size_t head) const {
    const double t = options_.temperature, alpha = options_.alpha;
    const Variable &student = input.student.outputs[head], &teacher = input.teacher.outputs[head];
    const auto& others = input.batch.targets;
    check(head <= others.size(), name(), "expected a target for each of the {} outputs, got {}",
          input.student.outputs.size(), others.size() + 1);
    const Tensor& targets = head == 0 ? input.batch.labels : others[head - 1].second;
    if (targets.dtype() != DType::i64) return mse_loss(student, teacher) * alpha;
    const auto rows = [&](const Variable& x) {
      return x.rank() == 2 ? x : reshape(x, {x.numel() / x.size(-1), x.size(-1)});
    };
    return kl_divergence(log_softmax(rows(student) / t), log_softmax(rows(teacher) / t)) * (alpha * t * t);
  }

  KnowledgeDistillationOptions options_;
};

class LabelLoss : public DistillationTerm {
 public:
  explicit LabelLoss(double smoothing) : smoothing_(smoothing) {}
  std::string name() const override { return "label_loss"; }
  nlohmann::json options() const override { return {{"label_smoothing", smoothing_}}; }
  Variable loss(const DistillationInput& input) override {
    return batch_loss(input.student.outputs, input.batch, smoothing_);
  }

 private:
  double smoothing_;
};

class Hint : public DistillationTerm {
 public:
  Hint(std::string student, std::string teacher) : student_(std::move(student)), teacher_(std::move(teacher)) {}
  std::string name() const override { return "hint"; }
  std::vector<std::string> student_layers() const override { return {student_}; }
  std::vector<std::string> teacher_layers() const override { return {teacher_}; }
  ModulePtr projection() const override { return projection_; }

  void prepare(const DistillationInput& example) override {
    check(projection_ == nullptr, "hint", "'{}' -> '{}' belongs to another Distillation already; make one for each",
          student_, teacher_);
    const Shape from = example.student.feature(student_).shape(), to = example.teacher.feature(teacher_).shape();
    const int channels = from.rank() == 4 ? 1 : from.rank() - 1;
    bool fits = from.rank() == to.rank() && from.rank() >= 2 && from.rank() <= 4;
    for (int axis = 0; fits && axis < from.rank(); ++axis) fits = axis == channels || from[axis] == to[axis];
    check(fits, "hint",
          "the student's '{}' {} cannot be projected onto the teacher's '{}' {}: all axes but the channels must agree; "
          "choose layers of the same height and width",
          student_, from, teacher_, to);
    if (from.rank() == 4)
      projection_ = share(Conv2d(from[1], to[1], {.kernel = 1}));
    else
      projection_ = share(Linear(from.back(), to.back()));
  }

  Variable loss(const DistillationInput& input) override {
    const Variable& from = input.student.feature(student_);
    check(projection_ != nullptr, "hint", "its projection is not there: it needs prepare()");
    const Parameter weight = projection_->parameters().front();
    const int64_t channels = from.size(from.rank() == 4 ? 1 : -1);
    check(weight.size(1) == channels, "hint",
          "the student's '{}' had {} channels and has {} now; after a compaction make a new Distillation", student_,
          weight.size(1), channels);
    return mse_loss((*projection_)(from), input.teacher.feature(teacher_));
  }

 private:
  std::string student_, teacher_;
  ModulePtr projection_;
};

class AttentionTransfer : public DistillationTerm {
 public:
  explicit AttentionTransfer(std::vector<LayerPair> layers) : layers_(std::move(layers)) {
    check(!layers_.empty(), "attention_transfer", "expected at least one pair of layers, got none");
  }
  std::string name() const override { return "attention_transfer"; }
  std::vector<std::string> student_layers() const override {
    std::vector<std::string> names;
    for (const auto& [student, teacher] : layers_) names.push_back(student);
    return names;
  }
  std::vector<std::string> teacher_layers() const override {
    std::vector<std::string> names;
    for (const auto& [student, teacher] : layers_) names.push_back(teacher);
    return names;
  }
  void prepare(const DistillationInput& example) override { loss(example); }

  Variable loss(const DistillationInput& input) override {
    Variable total;
    for (const auto& [student, teacher] : layers_) {
      const Variable &a = input.student.feature(student), &b = input.teacher.feature(teacher);
      check(a.rank() == 4 && b.rank() == 4 && a.size(2) == b.size(2) && a.size(3) == b.size(3), "attention_transfer",
            "expected feature maps of the same height and width, got the student's '{}' {} and the teacher's '{}' {}; "
            "choose layers of the same resolution",
            student, a.shape(), teacher, b.shape());
      const Variable distance = safe_sqrt(sum(square(attention(a) - attention(b)), {1}));  // (N)
      const Variable term = mean(distance) * 0.5;
      total = total.defined() ? total + term : term;
    }
    return total;
  }

 private:
  /// (N,C,H,W) -> (N,H*W)
  static Variable attention(const Variable& x) { return normalized(flatten(sum(square(x), {1}), 1)); }

  std::vector<LayerPair> layers_;
};

/// What both relational losses share.
class Relational : public DistillationTerm {
 public:
  explicit Relational(RelationalOptions options) : options_(std::move(options)) {}
  std::vector<std::string> student_layers() const override { return names(options_.student_layer); }
  std::vector<std::string> teacher_layers() const override { return names(options_.teacher_layer); }

  Variable loss(const DistillationInput& input) override {
    const Variable student = embedding(input.student, options_.student_layer);
    const Variable teacher = embedding(input.teacher, options_.teacher_layer);
    check(student.size(0) == teacher.size(0), name(), "expected as many rows from both, got {} and {}", student.shape(),
          teacher.shape());
    return relation_loss(student, teacher);
  }

 protected:
  /// Both (B,D), with a D of their own.
  virtual Variable relation_loss(const Variable& student, const Variable& teacher) const = 0;
  /// (B,D) -> (B,B): inner products of the examples, seen from their mean. Distances and angles follow from them
  /// without the (B,B,D) of all differences.
  static Variable inner_products(const Variable& x) {
    const Variable centred = x - mean(x, {0}, true);
    return matmul(centred, transpose(centred, 0, 1));
  }
  /// (B,B) -> (B): the examples' squared lengths.
  static Variable squared_lengths(const Variable& products) { return sum(products * identity(products), {1}); }
  /// ||x_i - x_j||^2 as (i,j), from inner products. What rounding leaves of two equal examples counts as 0.
  static Variable squared_distances(const Variable& products) {
    const Variable lengths = squared_lengths(products);
    const Variable both = unsqueeze(lengths, 0) + unsqueeze(lengths, 1);
    const Variable squared = both - 2 * products;
    const double rounding = 16 * epsilon_of(products.dtype());
    const Variable zero = Tensor::scalar(0, products.dtype(), products.device());
    return where(squared.data() > both.data() * rounding, squared, zero);
  }
  static Tensor identity(const Variable& products) {
    return Tensor::eye(products.size(0), products.dtype()).to(products.device());
  }

 private:
  static std::vector<std::string> names(const std::string& layer) {
    return layer.empty() ? std::vector<std::string>{} : std::vector<std::string>{layer};
  }
  static Variable embedding(const NetworkView& view, const std::string& layer) {
    const Variable& x = layer.empty() ? view.outputs.first() : view.feature(layer);
    return x.rank() == 2 ? x : flatten(x, 1);
  }

  RelationalOptions options_;
};

class RelationalDistance : public Relational {
 public:
  using Relational::Relational;
  std::string name() const override { return "relational_distance"; }

 protected:
  Variable relation_loss(const Variable& student, const Variable& teacher) const override {
    const auto n = static_cast<double>(student.size(0));
    if (n < 2) return sum(student) * 0.0;  // no pairs
    return huber(distances(student), distances(teacher), n * (n - 1));
  }

 private:
  /// (B,D) -> (B,B), of mean 1 over pairs of distinct examples.
  static Variable distances(const Variable& x) {
    const Variable distance = safe_sqrt(squared_distances(inner_products(x)));
    const auto n = static_cast<double>(x.size(0));
    const Variable average = sum(distance) / (n * (n - 1));
    const Variable one = Tensor::scalar(1, x.dtype(), x.device());
    return distance / where(average.data() > 0, average, one);
  }
};

class RelationalAngle : public Relational {
 public:
  using Relational::Relational;
  std::string name() const override { return "relational_angle"; }

 protected:
  Variable relation_loss(const Variable& student, const Variable& teacher) const override {
    const auto n = static_cast<double>(student.size(0));
    if (n < 3) return sum(student) * 0.0;  // no triples
    // The angle of an example with itself is 0 in both networks and does not count.
    const Variable ends = unsqueeze(1.0 - Variable(identity(student)), 0);
    return huber(cosines(student) * ends, cosines(teacher) * ends, n * (n - 1) * (n - 2));
  }

 private:
  /// (B,D) -> (B,B,B): the cosine at example j of the angle between i and k; 0 where i or k is j.
  static Variable cosines(const Variable& x) {
    const Variable g = inner_products(x), squared = squared_distances(g);
    const Tensor apart = squared.data() > 0;
    const Variable one = Tensor::scalar(1, x.dtype(), x.device()), zero = Tensor::scalar(0, x.dtype(), x.device());
    const Variable inverse = where(apart, 1.0 / sqrt(where(apart, squared, one)), zero);
    // (x_i - x_j) . (x_k - x_j)
    const Variable dot =
        unsqueeze(g, 0) - unsqueeze(g, 2) - unsqueeze(g, 1) + reshape(squared_lengths(g), {g.size(0), 1, 1});
    return dot * unsqueeze(inverse, 2) * unsqueeze(inverse, 1);
  }
};

}  // namespace

DistillationTermPtr knowledge_distillation(KnowledgeDistillationOptions options) {
  return std::make_shared<KnowledgeDistillation>(options);
}
DistillationTermPtr label_loss(double label_smoothing) { return std::make_shared<LabelLoss>(label_smoothing); }
DistillationTermPtr hint(std::string student_layer, std::string teacher_layer) {
  return std::make_shared<Hint>(std::move(student_layer), std::move(teacher_layer));
}
DistillationTermPtr attention_transfer(std::vector<LayerPair> layers) {
  return std::make_shared<AttentionTransfer>(std::move(layers));
}
DistillationTermPtr relational_distance(RelationalOptions options) {
  return std::make_shared<RelationalDistance>(std::move(options));
}
DistillationTermPtr relational_angle(RelationalOptions options) {
  return std::make_shared<RelationalAngle>(std::move(options));
}

}  // namespace espalier
