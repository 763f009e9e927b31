// FPGM: filters near the geometric median of their layer are replaceable.
#include <cmath>

#include "core/threads.h"
#include "pruning/criteria/units.h"

namespace espalier {
namespace {

/// Sums of distances between the filters that exist; a filter of an LSTM's unit is its rows, one after the other.
std::vector<double> sums_of_distances(const Parameter& weight, int64_t gates) {
  const int64_t units = weight.size(0) / gates, columns = weight.numel() / weight.size(0);
  const std::vector<double> w = weight.data().to_vector<double>();
  const std::vector<bool> exists = existing_weights(weight);
  std::vector<bool> alive(static_cast<size_t>(units), false);
  for (size_t i = 0; i < exists.size(); ++i)
    if (exists[i]) alive[i / static_cast<size_t>(columns) % static_cast<size_t>(units)] = true;

  std::vector<double> score(static_cast<size_t>(units), 0.0);
  parallel_for(units, 4, [&](int64_t first, int64_t last) {
    for (int64_t a = first; a < last; ++a) {
      if (!alive[static_cast<size_t>(a)]) continue;
      for (int64_t b = 0; b < units; ++b) {
        if (b == a || !alive[static_cast<size_t>(b)]) continue;
        double squares = 0;
        for (int64_t gate = 0; gate < gates; ++gate) {
          const double* x = w.data() + (gate * units + a) * columns;
          const double* y = w.data() + (gate * units + b) * columns;
          for (int64_t i = 0; i < columns; ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
        }
        score[static_cast<size_t>(a)] += std::sqrt(squares);
      }
    }
  });
  return score;
}

class Fpgm : public Criterion {
 public:
  std::string name() const override { return "fpgm"; }
  void check_fits(const Module&, const std::vector<Site>& sites) const override { check_whole_units(*this, sites); }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override {
    return spread_over_units(*this, parameters, input, sums_of_distances);
  }
};

}  // namespace

CriterionPtr fpgm_criterion() { return std::make_shared<Fpgm>(); }

}  // namespace espalier
