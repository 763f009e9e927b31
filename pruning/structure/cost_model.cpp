#include "pruning/structure/cost_model.h"

#include <algorithm>
#include <unordered_set>

namespace espalier {

namespace {

/// Rows or columns of a matrix.
bool is_line(const SiteMember& member) {
  const Pattern& pattern = member.pattern;
  return pattern.kind() == Pattern::Kind::recurrent ||
         (pattern.kind() == Pattern::Kind::channel && pattern.first() <= 1);
}

/// Whether the mask says more than which of these units exist.
bool is_finer(const Mask& mask, const SiteMember& member) { return mask.defined() && mask.pattern() != member.pattern; }

}  // namespace

int64_t count_existing(const Parameter& parameter) {
  return parameter.mask().defined() ? parameter.mask().count_elements() : parameter.numel();
}

WeightPrices mac_prices(Module& net, const Bundle& example) {
  WeightPrices prices;
  const ForwardObserver observer([&](Module& module, const Variable& input, const Variable& output) {
    std::vector<Parameter> weights;
    for (const auto& [name, parameter] : module.named_parameters())
      if (name.find('.') == std::string::npos && parameter.shape().rank() >= 2) weights.push_back(parameter);
    double all = 0;
    for (const Parameter& weight : weights) all += static_cast<double>(weight.numel());
    if (all == 0) return;
    const double each = static_cast<double>(module.macs(input.shape(), output.shape())) / all;
    for (const Parameter& weight : weights) prices[weight.id()] += each;
  });
  const EvalMode eval(net);
  const NoGrad no_grad;
  net.call(example);
  net.named_parameters();  // full names again
  return prices;
}

CostModel::CostModel(const Module& net, const std::vector<Site>& sites, const WeightPrices& prices, bool readers_go) {
  std::unordered_set<const void*> loose, lines;
  for (size_t s = 0; s < sites.size(); ++s) {
    units_.push_back(static_cast<size_t>(sites[s].units));
    for (const SiteMember& member : sites[s].members) {
      if (!readers_go && !member.masked) continue;
      (is_line(member) ? lines : loose).insert(member.parameter.id());
    }
  }
  const auto price_of = [&](const Parameter& parameter) {
    const auto price = prices.find(parameter.id());
    return price == prices.end() ? 0.0 : price->second;
  };
  for (size_t s = 0; s < sites.size(); ++s)
    for (const SiteMember& member : sites[s].members)
      if (loose.contains(member.parameter.id()) && member.masked) add_loose(s, member, price_of(member.parameter));
  for (const Parameter& parameter : net.parameters()) {
    if (price_of(parameter) == 0 || loose.contains(parameter.id())) continue;
    if (lines.contains(parameter.id()))
      add_matrix(parameter, price_of(parameter), readers_go, sites);
    else
      constant_ += price_of(parameter) * static_cast<double>(count_existing(parameter));
  }
}

void CostModel::add_loose(size_t site, const SiteMember& member, double price) {
  const Parameter& parameter = member.parameter;
  const int64_t units = mask_layout(parameter.shape(), member.pattern).units();
  Loose loose{.site = site, .price = price, .each = 0, .counts = {}};
  if (!is_finer(parameter.mask(), member) && member.site_units.empty()) {
    loose.each = static_cast<double>(parameter.numel()) / static_cast<double>(std::max<int64_t>(units, 1));
  } else {
    const Tensor exists = is_finer(parameter.mask(), member) ? parameter.mask().to(Device::cpu()).expand(DType::f32)
                                                             : Tensor::ones(parameter.shape());
    const std::vector<double> sums = Mask::sum_over_units(exists, member.pattern).to_vector<double>();
    loose.counts.assign(units_[site], 0.0);
    for (int64_t unit = 0; unit < units; ++unit)
      if (const int64_t to = member.site_unit(unit); to >= 0)
        loose.counts[static_cast<size_t>(to)] += sums[static_cast<size_t>(unit)];
  }
  loose_.push_back(std::move(loose));
}

void CostModel::add_matrix(const Parameter& parameter, double price, bool readers_go, const std::vector<Site>& sites) {
  const Shape& shape = parameter.shape();
  Matrix matrix{.price = price, .each = 0, .counts = {}, .rows = {}, .columns = {}};
  matrix.rows.resize(static_cast<size_t>(shape.rank() > 0 ? shape[0] : 1));
  matrix.columns.resize(static_cast<size_t>(shape.rank() > 1 ? shape[1] : 1));
  bool finer = false;
  for (size_t s = 0; s < sites.size(); ++s)
    for (const SiteMember& member : sites[s].members) {
      if (member.parameter.id() != parameter.id() || (!readers_go && !member.masked)) continue;
      if (member.masked) finer = finer || is_finer(parameter.mask(), member);
      const bool recurrent = member.pattern.kind() == Pattern::Kind::recurrent;
      const auto fill = [&](std::vector<UnitRef>& axis, int64_t gates) {
        const int64_t each = static_cast<int64_t>(axis.size()) / gates;
        for (size_t i = 0; i < axis.size(); ++i)
          if (const int64_t unit = member.site_unit(static_cast<int64_t>(i) % each); unit >= 0)
            axis[i] = {static_cast<int64_t>(s), unit};
      };
      if (recurrent) {
        fill(matrix.rows, shape[0] / shape[1]);
        fill(matrix.columns, 1);
      } else {
        fill(member.pattern.first() == 0 ? matrix.rows : matrix.columns,
             member.pattern.first() == 0 ? member.pattern.second() : 1);
      }
    }
  const size_t cells = matrix.rows.size() * matrix.columns.size();
  matrix.each = static_cast<double>(parameter.numel()) / static_cast<double>(std::max<size_t>(cells, 1));
  // Only readers here: the mask is somebody else's.
  const bool read_only = std::none_of(sites.begin(), sites.end(), [&](const Site& site) {
    return std::any_of(site.members.begin(), site.members.end(), [&](const SiteMember& member) {
      return member.masked && member.parameter.id() == parameter.id();
    });
  });
  if (finer || (read_only && parameter.mask().defined())) {
    const std::vector<float> exists = parameter.mask().to(Device::cpu()).expand(DType::f32).to_vector<float>();
    matrix.counts.assign(cells, 0.0);
    const size_t each = exists.size() / std::max<size_t>(cells, 1);
    for (size_t i = 0; i < exists.size(); ++i) matrix.counts[i / each] += static_cast<double>(exists[i]);
  }
  matrices_.push_back(std::move(matrix));
}

double CostModel::cost(const Units& exists) const {
  double cost = constant_;
  for (const Loose& loose : loose_) {
    const std::vector<bool>& units = exists[loose.site];
    double weights = 0;
    if (loose.counts.empty())
      weights = loose.each * static_cast<double>(std::count(units.begin(), units.end(), true));
    else
      for (size_t unit = 0; unit < units.size(); ++unit) weights += units[unit] ? loose.counts[unit] : 0.0;
    cost += loose.price * weights;
  }
  const auto alive = [&](const std::vector<UnitRef>& axis) {
    return static_cast<double>(
        std::count_if(axis.begin(), axis.end(), [&](const UnitRef& ref) { return ref.exists(exists); }));
  };
  for (const Matrix& matrix : matrices_) {
    double weights = 0;
    if (matrix.counts.empty()) {
      weights = alive(matrix.rows) * alive(matrix.columns) * matrix.each;
    } else {
      for (size_t r = 0; r < matrix.rows.size(); ++r) {
        if (!matrix.rows[r].exists(exists)) continue;
        for (size_t c = 0; c < matrix.columns.size(); ++c)
          if (matrix.columns[c].exists(exists)) weights += matrix.counts[r * matrix.columns.size() + c];
      }
    }
    cost += matrix.price * weights;
  }
  return cost;
}

std::vector<double> CostModel::piece_costs() const {
  std::vector<double> costs(units_.size(), 0.0);
  for (const Loose& loose : loose_) {
    if (!loose.counts.empty()) return {};
    costs[loose.site] += loose.price * loose.each;
  }
  return is_a_sum() ? costs : std::vector<double>();
}

double CostModel::cost_of_pieces(const std::vector<int64_t>& existing) const {
  double cost = constant_;
  for (const Loose& loose : loose_) cost += loose.price * (loose.each * static_cast<double>(existing[loose.site]));
  return cost;
}

std::vector<std::vector<double>> CostModel::unit_costs(const Units& exists) const {
  std::vector<std::vector<double>> costs;
  for (const size_t units : units_) costs.emplace_back(units, 0.0);
  for (const Loose& loose : loose_)
    for (size_t unit = 0; unit < units_[loose.site]; ++unit)
      costs[loose.site][unit] += loose.price * (loose.counts.empty() ? loose.each : loose.counts[unit]);
  const auto add = [&](const UnitRef& ref, double cost) {
    if (ref.site >= 0) costs[static_cast<size_t>(ref.site)][static_cast<size_t>(ref.unit)] += cost;
  };
  for (const Matrix& matrix : matrices_) {
    const size_t columns = matrix.columns.size();
    const auto count = [&](size_t r, size_t c) {
      return matrix.counts.empty() ? matrix.each : matrix.counts[r * columns + c];
    };
    std::vector<double> row(matrix.rows.size(), 0.0), column(columns, 0.0);  // weights in lines that exist
    if (matrix.counts.empty()) {
      const auto alive = [&](const std::vector<UnitRef>& axis) {
        return static_cast<double>(
            std::count_if(axis.begin(), axis.end(), [&](const UnitRef& ref) { return ref.exists(exists); }));
      };
      row.assign(row.size(), alive(matrix.columns) * matrix.each);
      column.assign(columns, alive(matrix.rows) * matrix.each);
    } else {
      for (size_t r = 0; r < row.size(); ++r)
        for (size_t c = 0; c < columns; ++c) {
          if (matrix.columns[c].exists(exists)) row[r] += count(r, c);
          if (matrix.rows[r].exists(exists)) column[c] += count(r, c);
        }
    }
    for (size_t r = 0; r < row.size(); ++r) add(matrix.rows[r], matrix.price * row[r]);
    for (size_t c = 0; c < columns; ++c) add(matrix.columns[c], matrix.price * column[c]);
    // A unit with a row and a column of the same weights loses those where they cross once. Where it is gone, its own
    // crossing comes with it.
    bool crosses = false;
    for (const UnitRef& ref : matrix.columns)
      crosses = crosses || (ref.site >= 0 && std::any_of(matrix.rows.begin(), matrix.rows.end(),
                                                         [&](const UnitRef& r) { return r.site == ref.site; }));
    if (!crosses) continue;
    for (size_t r = 0; r < row.size(); ++r)
      for (size_t c = 0; c < columns; ++c) {
        const UnitRef &a = matrix.rows[r], &b = matrix.columns[c];
        if (a.site < 0 || a.site != b.site || a.unit != b.unit) continue;
        add(a, (a.exists(exists) ? -1 : 1) * matrix.price * count(r, c));
      }
  }
  return costs;
}

double CostModel::dearest(const Units& exists) const {
  const std::vector<std::vector<double>> costs = unit_costs(exists);
  double most = 0;
  for (size_t s = 0; s < costs.size(); ++s)
    for (size_t unit = 0; unit < costs[s].size(); ++unit)
      if (exists[s][unit]) most = std::max(most, costs[s][unit]);
  return most;
}

}  // namespace espalier
