// Residual blocks as units.
#include "pruning/structure/blocks.h"

#include "layers/activations.h"
#include "layers/linear.h"
#include "layers/models/zoo.h"
#include "layers/residual.h"
#include "pruning/structure/compact.h"
#include "tests/pruning/structure/structure_testing.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

TEST(ResidualBlocks, OfResNet20) {
  const ModulePtr net = make_model("resnet20");
  std::vector<std::string> names;
  for (const ResidualBlock& block : residual_blocks(*net)) names.push_back(block.name);
  EXPECT_EQ(names, std::vector<std::string>(
                       {"stage1.0", "stage1.1", "stage1.2", "stage2.1", "stage2.2", "stage3.1", "stage3.2"}));
}

TEST(ResidualBlocks, MaskingTakesTheBodyOnly) {
  const auto block = share(BasicBlock(2, 4, {.stride = 2, .shortcut = Shortcut::projection}));
  EXPECT_FALSE(is_masked_block(*block));
  mask_block(block);
  EXPECT_TRUE(is_masked_block(*block));
  for (const auto& [name, parameter] : block->named_parameters())
    EXPECT_EQ(parameter.mask().defined(), !name.starts_with("shortcut.")) << name;
  expect_error([] { mask_block(share(ReLU())); }, {"BasicBlock or a Residual", "ReLU"});
}

TEST(ResidualBlocks, MaskedOnesAreDropped) {
  const ModulePtr net = make_model("resnet20");
  randomize(*net, 1);
  const Tensor x = noise({2, 3, 8, 8}, 2, DType::f32);
  mask_block(net->find("stage2.1"));
  mask_block(net->find("stage3.2"));
  const Tensor before = output_of(*net, x);
  const int64_t parameters = net->num_parameters();
  const CompactionReport report = compact(*net, x);
  EXPECT_EQ(report.dropped_blocks, std::vector<std::string>({"stage2.1", "stage3.2"}));
  EXPECT_EQ(net->find("stage2.1")->type(), "Identity");
  EXPECT_LT(relative_difference(before, output_of(*net, x)), 1e-6);
  EXPECT_EQ(parameters - net->num_parameters(), 2 * (32 * 32 * 9 + 2 * 32) + 2 * (64 * 64 * 9 + 2 * 64));
}

TEST(ResidualBlocks, TheReluOfABlockStaysWhereItCounts) {
  const auto net = share(Sequential(Linear(3, 4), Residual(share(Linear(4, 4))),
                                    Residual(share(Linear(4, 4)), nullptr, {.relu = false}),
                                    Residual(share(Sequential(Linear(4, 4), Sigmoid())))));
  const Tensor x = noise({5, 3}, 3, DType::f32);
  for (const char* name : {"1", "2", "3"}) mask_block(net->find(name));
  const Tensor before = output_of(*net, x);
  EXPECT_EQ(drop_blocks(*net, x), std::vector<std::string>({"1", "2"}));
  EXPECT_EQ(net->find("1")->type(), "ReLU");
  EXPECT_EQ(net->find("2")->type(), "Identity");
  EXPECT_EQ(net->find("3")->type(), "Residual");  // a sigmoid of nothing is 1/2
  EXPECT_EQ(max_difference(before, output_of(*net, x)), 0);
}

TEST(ResidualBlocks, Importances) {
  const Dataset data = testing_support::digits(60);
  const auto net =
      share(Sequential(Flatten(), Linear(data.height() * data.width(), 12), ReLU(), Residual(share(Linear(12, 12))),
                       Residual(share(Linear(12, 12))), Linear(12, data.num_classes())));
  for (Parameter& parameter : net->find("4")->parameters()) {
    Tensor values = parameter.data();
    values.zero_();
  }
  const NamedTensors before = state_of(*net->clone());
  const auto importances = block_importances(*net, data, {.batch_size = 20});
  ASSERT_EQ(importances.size(), 2u);
  EXPECT_EQ(importances[0].name, "3");
  const double whole = evaluate(*net, data).loss;
  EXPECT_NEAR(importances[1].increase, 0, 1e-6);  // a body of zeros is worth nothing
  EXPECT_NEAR(importances[1].loss, whole, 1e-6);
  const NamedTensors after = state_of(*net);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(identical(before[i].second, after[i].second));
  // By hand: the network without block 3.
  Tensor weight = net->find<Linear>("3.body")->weight().data(), bias = net->find<Linear>("3.body")->bias().data();
  weight.zero_();
  bias.zero_();
  EXPECT_NEAR(importances[0].loss, evaluate(*net, data).loss, 1e-6);
  EXPECT_NEAR(importances[0].increase, importances[0].loss - whole, 1e-6);
}

}  // namespace
}  // namespace espalier
