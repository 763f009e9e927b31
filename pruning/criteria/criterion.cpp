#include "pruning/criteria/criterion.h"

#include <utility>

namespace espalier {

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

Variable loss_of(const CriterionInput& input, const Batch& batch) {
  const Variable outputs = input.module(batch.images);
  return input.loss ? input.loss(outputs, batch) : cross_entropy(outputs, batch.labels);
}

namespace {
using Factory = CriterionPtr (*)();
struct Entry {
  const char* name;
  Factory make;
};
/// Every criterion, in the order of a list for people.
constexpr Entry kCriteria[] = {
    {"random", random_criterion},
    {"magnitude", magnitude_criterion},
    {"magnitude-l2", magnitude_l2_criterion},
};
}  // namespace

CriterionPtr make_criterion(const std::string& name) {
  for (const Entry& entry : kCriteria)
    if (name == entry.name) return entry.make();
  fail("make_criterion", "unknown criterion '{}'{}; known: {}", name, did_you_mean(name, criterion_names()),
       fmt::join(criterion_names(), ", "));
}

std::vector<std::string> criterion_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kCriteria) names.emplace_back(entry.name);
  return names;
}

}  // namespace espalier
