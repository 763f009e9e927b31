// What a network costs with some of its units gone, reckoned from the widths that are left: cheap enough for every
// pruning event.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pruning/site.h"

namespace espalier {

/// Elements of the parameter that its mask leaves; all of them without a mask.
int64_t count_existing(const Parameter& parameter);

/// By Parameter::id(): what one weight of the parameter costs. A parameter without an entry costs nothing.
using WeightPrices = std::unordered_map<const void*, double>;

/// Multiply-accumulates that each weight takes part in, for one example-like input: the MACs of a layer divided by its
/// weights, summed over its calls.
WeightPrices mac_prices(Module& net, const Bundle& example);

/// The cost of a network as a function of which units of its sites exist: the sum over its weights of their prices.
///
/// A parameter whose sites are rows and columns (channels, hidden units, input features) has as many weights as rows
/// times columns are left; conv2 (50,20,5,5) with 30 filters left that read 12 channels: 30*12*25 = 9,000. Other units
/// (single weights, blocks, kernels) cost their own weights. What compaction takes out beyond that (a unit whose last
/// weight goes) isn't seen: count_costs counts it.
class CostModel {
 public:
  /// Which units exist: by site, by unit.
  using Units = std::vector<std::vector<bool>>;

  /// `readers_go`: the weights that read a removed channel go with it, as at compaction; in a file of the masked
  /// network they stay. Masks of single weights inside of units are taken as they are now.
  CostModel(const Module& net, const std::vector<Site>& sites, const WeightPrices& prices, bool readers_go = true);

  double cost(const Units& exists) const;
  /// Whether a unit frees the same whichever others exist: single weights, blocks, kernels.
  bool is_a_sum() const { return matrices_.empty(); }
  /// What a unit of each site costs, where that is the same for all of a site's, whichever others exist: pieces of
  /// weights without finer masks. Else empty.
  std::vector<double> piece_costs() const;
  /// The cost with so many units of each site, where piece_costs() says what they cost.
  double cost_of_pieces(const std::vector<int64_t>& existing) const;
  /// For each unit what the network would cost less without it (of a unit that is gone: more with it), when exactly
  /// these units exist.
  std::vector<std::vector<double>> unit_costs(const Units& exists) const;
  /// The most that one of the units that exist would free.
  double dearest(const Units& exists) const;

 private:
  /// The unit that an index of an axis belongs to; site -1: to none.
  struct UnitRef {
    int64_t site = -1, unit = -1;
    bool exists(const Units& units) const {
      return site < 0 || units[static_cast<size_t>(site)][static_cast<size_t>(unit)];
    }
  };
  /// A parameter whose rows and columns belong to units.
  struct Matrix {
    double price = 0;
    double each = 0;             ///< weights of a row and column, where all exist
    std::vector<double> counts;  ///< the same for each row and column; empty: `each` everywhere
    std::vector<UnitRef> rows, columns;
  };
  /// Units made of weights of their own.
  struct Loose {
    size_t site = 0;
    double price = 0;
    double each = 0;             ///< weights of a unit
    std::vector<double> counts;  ///< the same for each unit; empty: `each`
  };

  void add_matrix(const Parameter& parameter, double price, bool readers_go, const std::vector<Site>& sites);
  void add_loose(size_t site, const SiteMember& member, double price);

  std::vector<size_t> units_;  ///< of each site
  std::vector<Matrix> matrices_;
  std::vector<Loose> loose_;
  double constant_ = 0;  ///< of what belongs to no site
};

}  // namespace espalier
