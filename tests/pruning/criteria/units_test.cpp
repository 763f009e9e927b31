// Criteria of whole units: FPGM and BatchNorm scales by hand, and how their scores add up in sites.
#include "layers/lstm.h"
#include "pruning/pruner.h"
#include "pruning/structure/graph.h"
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;
using testing_support::expect_contains;
using testing_support::message_of;

/// Filters (0,0), (3,4) and (0,8): distances 5, 8 and 5, so sums 13, 10 and 13.
ModulePtr three_filters() {
  const ModulePtr net = double_network(Flatten(), Linear(2, 3), BatchNorm1d(3), ReLU(), Linear(3, 2));
  net->parameters()[0].set_data(Tensor::from<double>({0, 0, 3, 4, 0, 8}, {3, 2}));
  return net;
}

Site hidden_units(const Module& net, bool with_vectors) {
  const std::vector<Parameter> p = net.parameters();  // weight, bias, scale, shift, weight, bias
  Site site{.name = "hidden", .units = 3, .members = {{.parameter = p[0], .pattern = Pattern::channel(0)}}};
  if (with_vectors)
    for (size_t i : {1, 2, 3}) site.members.push_back({.parameter = p[i], .pattern = Pattern::channel(0)});
  site.members.push_back({.parameter = p[4], .pattern = Pattern::channel(1), .masked = false});
  return site;
}

TEST(Fpgm, SumsTheDistancesToTheOtherFilters) {
  const ModulePtr net = three_filters();
  const Parameter weight = net->parameters()[0];
  const Saliencies s = fpgm_criterion()->score({weight}, {.module = *net});
  expect_near(s.at(weight.id()).to_vector<double>(), {6.5, 6.5, 5, 5, 6.5, 6.5}, 1e-12);
  EXPECT_EQ(unit_scores(site_of("w", weight, Pattern::channel(0)), s), (Values{13, 10, 13}));
}

TEST(Fpgm, RemovedFiltersAndWeightsDoNotCount) {
  const ModulePtr net = three_filters();
  Parameter weight = net->parameters()[0];
  // Filter 2 is gone, and one weight of filter 1: what is left are (0,0) and (3,0).
  weight.set_mask(Mask::from_units(weight.shape(), Pattern::element(), {true, true, true, false, false, false}));
  const Saliencies s = fpgm_criterion()->score({weight}, {.module = *net});
  expect_near(s.at(weight.id()).to_vector<double>(), {1.5, 1.5, 3, 0, 0, 0}, 1e-12);
}

TEST(Fpgm, AnLstmsUnitIsItsRowsOfAllGates) {
  set_seed(1);
  LSTM lstm(2, 3);
  std::vector<Parameter> p = lstm.parameters();  // w_ih, w_hh, b_ih, b_hh
  const Site site{.name = "lstm",
                  .units = 3,
                  .members = {{.parameter = p[0], .pattern = Pattern::channel(0, 4)},
                              {.parameter = p[1], .pattern = Pattern::recurrent()},
                              {.parameter = p[2], .pattern = Pattern::channel(0, 4)},
                              {.parameter = p[3], .pattern = Pattern::channel(0, 4)}}};
  const std::vector<Site> sites{site};
  const Values scores = unit_scores(site, fpgm_criterion()->score(p, {.module = lstm, .sites = &sites}));
  const Values w = p[0].data().to_vector<double>();
  for (size_t a = 0; a < 3; ++a) {
    double expected = 0;
    for (size_t b = 0; b < 3; ++b) {
      double squares = 0;
      for (size_t gate = 0; gate < 4; ++gate)
        for (size_t i = 0; i < 2; ++i)
          squares += std::pow(w[((gate * 3) + a) * 2 + i] - w[((gate * 3) + b) * 2 + i], 2);
      expected += std::sqrt(squares);
    }
    EXPECT_NEAR(scores[a], expected, 1e-6 * expected);
  }
}

TEST(UnitGradient, SumsOverExamplesAndPositionsHowTheLossReacts) {
  // h = W x with rows (1,0), (0,1), (1,1); the output is 2*relu(h0) - 3*relu(h1) + h2's 0.5; L = (y - t)^2 / 2.
  const ModulePtr net = double_network(Flatten(), Linear(2, 3), ReLU(), Linear(3, 1));
  const std::vector<Parameter> p = net->parameters();
  Parameter(p[0]).set_data(Tensor::from<double>({1, 0, 0, 1, 1, 1}, {3, 2}));
  Parameter(p[1]).set_data(Tensor::zeros({3}, DType::f64));
  Parameter(p[2]).set_data(Tensor::from<double>({2, -3, 0.5}, {1, 3}));
  Parameter(p[3]).set_data(Tensor::zeros({1}, DType::f64));
  const Dataset data = images_of({{1, 2}, {-2, 1}, {2, -1}}, {1, 1, 2});
  // y: 2 - 6 + 1.5 = -2.5; -3; 4 + 0.5 = 4.5. With targets 0.5, -2, 4 the residuals y - t are -3, -1, 0.5.
  const CriterionInput input{
      .module = *net, .data = &data, .loss = squared_error({0.5, -2, 4}), .batch_size = 2, .batches = 2};
  const Saliencies s = unit_gradient_criterion()->score({p[0], p[2]}, input);
  // Unit 0 is above 0 for examples 0 and 2: 2*3 + 2*0.5; unit 1 for 0 and 1: 3*3 + 3*1; unit 2 for 0 and 2: 0.5*3 +
  // 0.5*0.5. The output itself: 3 + 1 + 0.5. Pixels are loaded to the rounding of f32.
  expect_near(unit_scores(site_of("w", p[0], Pattern::channel(0)), s), {7, 12, 1.75}, 1e-5);
  expect_near(unit_scores(site_of("y", p[2], Pattern::channel(0)), s), {4.5}, 1e-5);
}

TEST(UnitGradient, AddsUpThePositionsOfAMap) {
  // One filter of one weight 2 over two pixels, added up: dL/dz is the residual at both.
  const ModulePtr net = double_network(Conv2d(1, 1, {.kernel = 1, .bias = false}), Flatten(), Linear(2, 1));
  const std::vector<Parameter> p = net->parameters();
  Parameter(p[0]).set_data(Tensor::full({1, 1, 1, 1}, 2, DType::f64));
  Parameter(p[1]).set_data(Tensor::from<double>({1, -4}, {1, 2}));
  Parameter(p[2]).set_data(Tensor::zeros({1}, DType::f64));
  const Dataset data = images_of({{3, 1}}, {1, 1, 2});  // y = 6 - 8 = -2
  const CriterionInput input{.module = *net, .data = &data, .loss = squared_error({1}), .batch_size = 1, .batches = 1};
  const Saliencies s = unit_gradient_criterion()->score({p[0]}, input);
  expect_near(unit_scores(site_of("w", p[0], Pattern::channel(0)), s), {3 * 1 + 3 * 4}, 1e-5);
}

TEST(WholeUnits, LieOnABiasOrScaleSoThatReadersDoNotCount) {
  const ModulePtr net = three_filters();
  const std::vector<Parameter> p = net->parameters();
  // The second layer's rows are judged too, and are the first one's readers.
  const std::vector<Site> sites{hidden_units(*net, true),
                                {.name = "outputs",
                                 .units = 2,
                                 .members = {{.parameter = p[4], .pattern = Pattern::channel(0)},
                                             {.parameter = p[5], .pattern = Pattern::channel(0)}}}};
  const Saliencies s = fpgm_criterion()->score(p, {.module = *net, .sites = &sites});
  EXPECT_EQ(unit_scores(sites[0], s), (Values{13, 10, 13}));
  const Values w = p[4].data().to_vector<double>();
  const double distance = std::hypot(w[0] - w[3], w[1] - w[4], w[2] - w[5]);
  expect_near(unit_scores(sites[1], s), {distance, distance}, 1e-12);
}

TEST(WholeUnits, LieOnTheRowsWhereThereIsNothingElse) {
  const ModulePtr net = three_filters();
  const std::vector<Site> sites{hidden_units(*net, false)};
  const Saliencies s = fpgm_criterion()->score(net->parameters(), {.module = *net, .sites = &sites});
  EXPECT_EQ(unit_scores(sites[0], s), (Values{13, 10, 13}));
}

TEST(WholeUnits, OfSeveralProducersAddUp) {
  // Two layers whose outputs are added: unit u is row u of the first and row 2-u of the second.
  const ModulePtr net = share(Sequential(Linear(2, 3, {.bias = false}), Linear(2, 3)));
  std::vector<Parameter> p = net->parameters();
  p[0].set_data(Tensor::from<float>({0, 0, 3, 4, 0, 8}, {3, 2}));
  p[1].set_data(Tensor::from<float>({0, 0, 0, 1, 0, 3}, {3, 2}));  // sums 4, 3 and 5
  const std::vector<Site> sites{
      {.name = "sum",
       .units = 3,
       .members = {{.parameter = p[0], .pattern = Pattern::channel(0)},
                   {.parameter = p[1], .pattern = Pattern::channel(0), .site_units = {2, 1, 0}},
                   {.parameter = p[2], .pattern = Pattern::channel(0), .site_units = {2, 1, 0}}}}};
  const Saliencies s = fpgm_criterion()->score(p, {.module = *net, .sites = &sites});
  EXPECT_EQ(unit_scores(sites[0], s), (Values{13 + 5, 10 + 3, 13 + 4}));
}

TEST(WholeUnits, PartsOfFiltersAreAnErrorThatSaysWhatToUse) {
  const ModulePtr net = three_filters();
  const Dataset data = testing_support::digits(10);
  for (const char* name : {"fpgm", "hrank", "apoz"})
    for (const Pattern& pattern : {Pattern::element(), Pattern::block(1, 2), Pattern::n_of_m(1, 2)}) {
      SCOPED_TRACE(std::string(name) + " " + pattern.to_string());
      const std::vector<Site> sites{site_of("0.weight", net->parameters()[0], pattern)};
      const CriterionPtr criterion = make_criterion(name);
      for (const std::string& message :
           {message_of<ArgumentError>([&] { Pruner(net, sites, {.criterion = criterion, .data = data}); }),
            message_of<ArgumentError>(
                [&] { criterion->score({net->parameters()[0]}, {.module = *net, .data = &data, .sites = &sites}); })}) {
        expect_contains(message, std::string("[") + name + "]");
        expect_contains(message, "'0.weight'");
        expect_contains(message, "'channel 0'");
        expect_contains(message, "magnitude");
      }
    }
}

TEST(Connections, SingleWeightsAreAnErrorThatSaysWhatToUse) {
  const ModulePtr net = three_filters();
  for (const Pattern& pattern : {Pattern::element(), Pattern::n_of_m(1, 2)})
    expect_contains(message_of<ArgumentError>([&] {
                      Pruner(net, {site_of("0.weight", net->parameters()[0], pattern)},
                             {.criterion = connections_criterion()});
                    }),
                    "'channel 0'");
  // Rows have numbers of connections that differ once weights are masked.
  Parameter weight = net->parameters()[0];
  weight.set_mask(Mask::from_units({3, 2}, Pattern::element(), {true, true, true, false, true, true}));
  Pruner rows(net, {site_of("0.weight", weight, Pattern::channel(0))}, {.criterion = connections_criterion()});
  EXPECT_EQ(rows.scores()[0], (Values{2, 1, 2}));
}

TEST(WholeUnits, ASiteThatProducesNothingIsAnError) {
  const ModulePtr net = three_filters();
  const std::vector<Site> sites{site_of("inputs", net->parameters()[0], Pattern::channel(1))};
  expect_contains(
      message_of<ArgumentError>([&] { fpgm_criterion()->score(net->parameters(), {.module = *net, .sites = &sites}); }),
      "'inputs'");
}

TEST(BatchNormScale, IsTheScaleOfTheUnit) {
  const ModulePtr net = three_filters();
  std::vector<Parameter> p = net->parameters();
  p[2].set_data(Tensor::from<double>({0.5, -2, 0}, {3}));
  const std::vector<Site> sites{hidden_units(*net, true)};
  const CriterionPtr criterion = bn_scale_criterion();
  EXPECT_EQ(unit_scores(sites[0], criterion->score(p, {.module = *net, .sites = &sites})), (Values{0.5, 2, 0}));
  EXPECT_EQ(criterion->score(p, {.module = *net}).at(p[2].id()).to_vector<double>(), (Values{0.5, 2, 0}));

  const std::vector<Site> without{site_of("0.weight", p[0], Pattern::channel(0))};
  expect_contains(message_of<ArgumentError>([&] { criterion->score(p, {.module = *net, .sites = &without}); }),
                  "0.weight");
  EXPECT_THROW(criterion->score({p[0]}, {.module = *net}), ArgumentError);
}

TEST(WholeUnits, OfATracedNetworkAddUpToWhatItsProducersAreWorth) {
  set_seed(6);
  const ModulePtr net = double_network(Conv2d(1, 4, {.padding = 1}), BatchNorm2d(4), ReLU(),
                                       Conv2d(4, 3, {.padding = 1}), BatchNorm2d(3), ReLU(), Flatten(), Linear(48, 2));
  const std::vector<Site> sites = channel_sites(DependencyGraph::trace(*net, Tensor::zeros({1, 1, 4, 4}, DType::f64)));
  ASSERT_EQ(sites.size(), 2u);
  const std::vector<Parameter> all = net->parameters();
  const CriterionPtr fpgm = fpgm_criterion();
  const Saliencies grouped = fpgm->score(all, {.module = *net, .sites = &sites}), alone = fpgm->score(all, {*net});
  const Saliencies scales = bn_scale_criterion()->score(all, {.module = *net, .sites = &sites});
  for (size_t i = 0; i < 2; ++i) {
    const Parameter& weight = net->find<Conv2d>(i == 0 ? "0" : "3")->weight();
    expect_near(unit_scores(sites[i], grouped), unit_scores(site_of("w", weight, Pattern::channel(0)), alone), 1e-12);
    expect_near(unit_scores(sites[i], scales), Values(static_cast<size_t>(weight.size(0)), 1.0), 0);
  }
}

}  // namespace
}  // namespace espalier
