// The losses by which a student learns from a teacher, to be weighted and added (distillation.h).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/distillation/teacher.h"

namespace espalier {

/// What a term looks at. The teacher's Variables have no history.
struct DistillationInput {
  const NetworkView& student;
  const NetworkView& teacher;
  const Batch& batch;  ///< with the labels
};

/// One loss. A term with a projection belongs to one Distillation.
class DistillationTerm {
 public:
  virtual ~DistillationTerm() = default;
  virtual std::string name() const = 0;
  /// Its options, but for the layers; null: none.
  virtual nlohmann::json options() const;
  /// Layers, by full module name, whose outputs it needs.
  virtual std::vector<std::string> student_layers() const { return {}; }
  virtual std::vector<std::string> teacher_layers() const { return {}; }
  /// Gets one forward pass of both networks before training: checks shapes and builds what is trained along.
  virtual void prepare(const DistillationInput& /*example*/) {}
  /// What is trained along with the student and thrown away afterwards; nullptr: nothing.
  virtual ModulePtr projection() const { return nullptr; }
  /// Mean over the examples, a scalar.
  virtual Variable loss(const DistillationInput& input) = 0;
};

using DistillationTermPtr = std::shared_ptr<DistillationTerm>;

struct KnowledgeDistillationOptions {
  double temperature = 4;
  double alpha = 0.7;          ///< share of the teacher; the labels have the rest
  double label_smoothing = 0;  ///< of the labels' cross-entropy
};
/// alpha*T^2*KL(softmax(teacher/T) || softmax(student/T)) + (1-alpha)*cross-entropy. Where the data asks for values and
/// not for classes, alpha*mean squared difference from the teacher's + (1-alpha)*the data's own loss; several heads add
/// up, and every step of a sequence counts.
/// Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network", section "Distillation".
DistillationTermPtr knowledge_distillation(KnowledgeDistillationOptions options = {});

/// The data's own loss, cross-entropy with the labels most of the time, to go with terms that only look at features.
DistillationTermPtr label_loss(double label_smoothing = 0);

/// Mean squared error between a teacher layer's output and a learned projection of a student layer's: a 1x1 convolution
/// of (N,C,H,W), a linear map of the last axis of (N,C) and (T,N,C). All other axes must agree.
/// Romero et al. 2015, "FitNets: hints for thin deep nets", hint-based training (there half the sum).
DistillationTermPtr hint(std::string student_layer, std::string teacher_layer);

/// A student's layer and the teacher's layer that it is compared with.
using LayerPair = std::pair<std::string, std::string>;

/// 1/2 * sum over the pairs of ||Q_s/||Q_s|| - Q_t/||Q_t||||_2, Q = the sum over channels of squared activations
/// (N,C,H,W) -> (N,H*W), averaged over the examples. Channels may differ, height and width not.
/// Zagoruyko & Komodakis 2017, "Paying more attention to attention", of activations, p = 2, without beta (the weight).
DistillationTermPtr attention_transfer(std::vector<LayerPair> layers);

/// Which layers' outputs are compared as embeddings of the examples; "": the networks' outputs.
struct RelationalOptions {
  std::string student_layer = {}, teacher_layer = {};
};
/// Huber loss between the distances of all pairs of examples, each network's divided by its mean distance; the mean
/// over pairs. Park et al. 2019, "Relational knowledge distillation", distance-wise loss (there the sum).
DistillationTermPtr relational_distance(RelationalOptions options = {});
/// Huber loss between the cosines of the angles that all triples of examples form; the mean over triples.
/// Park et al. 2019, angle-wise loss (there the sum).
DistillationTermPtr relational_angle(RelationalOptions options = {});

}  // namespace espalier
