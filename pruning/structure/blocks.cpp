#include "pruning/structure/blocks.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "layers/activations.h"
#include "layers/modules_of_type.h"
#include "layers/residual.h"
#include "pruning/structure/probes.h"

namespace espalier {

namespace {
bool has_identity_shortcut(const Module& module) {
  const SkipConnection* skip = skip_connection(module);
  return skip != nullptr && !skip->shortcut();
}

const Module* body_end(const Module& block) { return &skip_connection(block)->body_end(); }

/// What stands in for a block without its body.
ModulePtr bypass(const ResidualBlock& block) {
  if (skip_connection(*block.module)->ends_in_relu()) return std::make_shared<ReLU>();
  return std::make_shared<Identity>();
}

/// While alive, a block is bypassed.
class Bypass {
 public:
  explicit Bypass(const ResidualBlock& block) : block_(block) { block.parent->replace(block.position, bypass(block)); }
  ~Bypass() { block_.parent->replace(block_.position, block_.module); }
  Bypass(const Bypass&) = delete;
  Bypass& operator=(const Bypass&) = delete;

 private:
  const ResidualBlock& block_;
};
}  // namespace

std::vector<ResidualBlock> residual_blocks(Module& net) {
  std::vector<ResidualBlock> blocks;
  for (const auto& [name, parent] : modules_of_type<Sequential>(net))
    for (size_t i = 0; i < parent->size(); ++i)
      if (has_identity_shortcut(*(*parent)[i]))
        blocks.push_back({(name.empty() ? "" : name + ".") + parent->children()[i].first, (*parent)[i], parent, i});
  return blocks;
}

std::vector<std::pair<std::string, Parameter>> body_parameters(const Module& block) {
  const SkipConnection* skip = skip_connection(block);
  check(skip != nullptr, "body_parameters",
        "expected a block with a skip connection, a BasicBlock or a Residual, got {}", block.label());
  std::unordered_set<const void*> of_shortcut;
  if (skip->shortcut())
    for (const Parameter& parameter : skip->shortcut()->parameters()) of_shortcut.insert(parameter.id());
  std::vector<std::pair<std::string, Parameter>> body;
  for (const auto& [name, parameter] : block.named_parameters())
    if (!of_shortcut.contains(parameter.id())) body.emplace_back(name, parameter);
  return body;
}

void mask_block(const ModulePtr& block, GradientFlow flow) {
  for (auto& [name, parameter] : body_parameters(*block)) {
    const Pattern pattern = Pattern::channel(0);
    const auto units = static_cast<size_t>(mask_layout(parameter.shape(), pattern).units());
    parameter.set_mask(Mask::from_units(parameter.shape(), pattern, std::vector<bool>(units, false)), flow);
  }
}

bool is_masked_block(const Module& block) {
  const auto body = body_parameters(block);
  return !body.empty() && std::all_of(body.begin(), body.end(), [](const auto& entry) {
    const Mask& mask = entry.second.mask();
    return mask.defined() && mask.count() == 0;
  });
}

std::vector<BlockImportance> block_importances(Module& net, const Dataset& data,
                                               const BlockImportanceOptions& options) {
  check(options.batches >= 0, "block_importances", "expected batches of at least 0, got {}", options.batches);
  const auto loss = [&] {
    int64_t batches = 0;
    const auto enough = [&] { return ++batches == options.batches; };
    return evaluate(net, data, {.batch_size = options.batch_size, .loss = options.loss, .stop = enough}).loss;
  };
  const double whole = loss();
  std::vector<BlockImportance> importances;
  for (const ResidualBlock& block : residual_blocks(net)) {
    const Bypass bypassed(block);
    const double without = loss();
    importances.push_back({block.name, without, without - whole});
  }
  return importances;
}

std::vector<BlockImportance> mask_least_important_blocks(Module& net, int64_t drop,
                                                         std::vector<BlockImportance> importances) {
  std::vector<ResidualBlock> blocks = residual_blocks(net);
  std::erase_if(blocks, [](const ResidualBlock& block) { return is_masked_block(*block.module); });
  check(drop >= 0 && drop <= static_cast<int64_t>(blocks.size()), "blocks",
        "expected to drop at most the {} residual blocks that this {} could do without, got {}", blocks.size(),
        net.type(), drop);
  if (importances.empty())
    for (const ResidualBlock& block : blocks) importances.push_back({.name = block.name});
  std::stable_sort(importances.begin(), importances.end(),
                   [](const BlockImportance& a, const BlockImportance& b) { return a.increase < b.increase; });
  std::vector<BlockImportance> masked;
  for (const BlockImportance& importance : importances) {
    const auto block = std::find_if(blocks.begin(), blocks.end(),
                                    [&](const ResidualBlock& other) { return other.name == importance.name; });
    if (static_cast<int64_t>(masked.size()) == drop || block == blocks.end()) continue;
    mask_block(block->module);
    masked.push_back(importance);
  }
  return masked;
}

std::vector<std::string> drop_blocks(Module& net, const Bundle& example) {
  std::vector<ResidualBlock> masked;
  for (ResidualBlock& block : residual_blocks(net))
    if (is_masked_block(*block.module)) masked.push_back(std::move(block));
  if (masked.empty()) return {};

  const std::vector<Bundle> probes = probes_like(DependencyGraph::trace(net, example), example, 2);
  struct Range {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    void add(const Tensor& x) {
      low = std::min(low, min(x).item());
      high = std::max(high, max(x).item());
    }
  };
  std::unordered_map<const Module*, Range> inputs, bodies;
  for (const ResidualBlock& block : masked) {
    inputs[block.module.get()];
    bodies[body_end(*block.module)];
  }
  {
    const EvalMode eval(net);
    const NoGrad no_grad;
    const ForwardObserver observer([&](Module& module, const Variable& input, const Variable& output) {
      if (const auto found = inputs.find(&module); found != inputs.end()) found->second.add(input.data());
      if (const auto found = bodies.find(&module); found != bodies.end()) found->second.add(output.data());
    });
    for (const Bundle& probe : probes) net.call(probe);
  }
  std::vector<std::string> dropped;
  for (const ResidualBlock& block : masked) {
    const Range &input = inputs[block.module.get()], &body = bodies[body_end(*block.module)];
    if (body.low != 0 || body.high != 0) continue;
    block.parent->replace(block.position, input.low >= 0 ? std::make_shared<Identity>() : bypass(block));
    dropped.push_back(block.name);
  }
  return dropped;
}

}  // namespace espalier
