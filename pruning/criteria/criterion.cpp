#include "pruning/criteria/criterion.h"

#include <utility>

#include "core/json.h"
#include "pruning/learned/movement.h"

namespace espalier {

void Criterion::update() { fail(name(), "this criterion scores weights, and knows no update of those that are left"); }

void for_each_batch(const Criterion& criterion, const CriterionInput& input,
                    const std::function<void(const Batch&)>& f) {
  check(input.data != nullptr && input.data->size() > 0, criterion.name().c_str(),
        "this criterion looks at examples and got none; give it labelled data");
  check(input.batch_size > 0 && input.batches > 0, criterion.name().c_str(),
        "expected batch_size and batches above 0, got {} and {}", input.batch_size, input.batches);
  const DataLoader loader(*input.data, {.batch_size = std::min(input.batch_size, input.data->size()),
                                        .shuffle = true,
                                        .seed = input.seed,
                                        .prefetch = 0});
  BatchStream stream = loader.batches();
  for (int64_t i = 0; i < input.batches; ++i) {
    const std::optional<Batch> batch = stream.next();
    if (!batch) return;
    f(*batch);
  }
}

namespace {
Batch moved_to_network(const CriterionInput& input, const Batch& batch) {
  const std::vector<Parameter> parameters = input.module.parameters();
  if (parameters.empty()) return batch;
  const Tensor& like = parameters.front().data();
  Batch moved = to(batch, like.device());
  const auto convert = [&](Tensor& values) {
    if (is_floating(values.dtype())) values = values.to(like.dtype());
  };
  convert(moved.images);
  convert(moved.labels);
  for (auto& [name, values] : moved.inputs) convert(values);
  for (auto& [name, values] : moved.targets) convert(values);
  return moved;
}
}  // namespace

Bundle forward_of(const CriterionInput& input, const Batch& batch) {
  return outputs_of(input.module, moved_to_network(input, batch));
}

Variable loss_of(const CriterionInput& input, const Batch& batch) {
  const Batch moved = moved_to_network(input, batch);
  const Bundle outputs = outputs_of(input.module, moved);
  return input.loss ? input.loss(outputs, moved) : batch_loss(outputs, moved);
}

Registry<CriterionPtr()>& criterion_registry() {
  // In the order of a list for people.
  static Registry<CriterionPtr()> criteria(
      "criterion", {{"random", random_criterion},
                    {"magnitude", magnitude_criterion},
                    {"magnitude-l2", magnitude_l2_criterion},
                    {"energy", energy_criterion},
                    {"sigma", [] { return sigma_criterion(); }},
                    {"connections", connections_criterion},
                    {"lamp", lamp_criterion},
                    {"gradient", gradient_criterion},
                    {"taylor", [] { return taylor_criterion(); }},
                    {"taylor-abs", [] { return taylor_criterion({.squared = false}); }},
                    {"snip", snip_criterion},
                    {"grasp", grasp_criterion},
                    {"synflow", [] { return synflow_criterion(); }},
                    {"obd", [] { return obd_criterion(); }},
                    {"fisher", [] { return obd_criterion({.diagonal = HessianDiagonal::empirical_fisher}); }},
                    {"woodfisher", [] { return woodfisher_criterion(); }},
                    {"wanda", [] { return wanda_criterion(); }},
                    {"bn-scale", bn_scale_criterion},
                    {"fpgm", fpgm_criterion},
                    {"apoz", apoz_criterion},
                    {"hrank", [] { return hrank_criterion(); }},
                    {"unit-gradient", unit_gradient_criterion},
                    {"movement", [] { return std::make_shared<MovementCriterion>(); }}});
  return criteria;
}

CriterionPtr make_criterion(const std::string& name) { return criterion_registry().find("make_criterion", name)(); }

CriterionPtr make_criterion(const PartChoice& chosen) {
  CriterionPtr criterion = make_criterion(chosen.name);
  if (!chosen.options.empty())
    read_fields("make_criterion", parse_json(chosen.options), [&](FieldVisitor& f) { criterion->fields(f); });
  return criterion;
}

std::vector<std::string> criterion_names() { return criterion_registry().names(); }

void criterion_field(FieldVisitor& f, PartChoice& chosen) {
  const PartFields fields_of = [](const std::string& name) -> std::function<void(FieldVisitor&)> {
    return [criterion = make_criterion(name)](FieldVisitor& visitor) { criterion->fields(visitor); };
  };
  f.part("criterion", chosen, fields_of, "What a weight is worth");
}

}  // namespace espalier
