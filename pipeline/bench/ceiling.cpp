#include "pipeline/bench/ceiling.h"

#include <algorithm>
#include <limits>

namespace espalier {
namespace {

/// Columns in which panels of `rows` rows have an entry, of all panels together.
int64_t columns_of_panels(const Csr& a, int64_t rows) {
  std::vector<int64_t> seen(static_cast<size_t>(a.columns), -1);
  int64_t count = 0;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e) {
      int64_t& panel = seen[static_cast<size_t>(a.column[static_cast<size_t>(e)])];
      if (panel == i / rows) continue;
      panel = i / rows;
      ++count;
    }
  }
  return count;
}

}  // namespace

Ceiling spmm_ceiling(const Csr& a, int64_t n, const Calibration& machine, VectorIsa isa) {
  const MachineRates& rates = machine.of(isa);
  const int64_t lanes = isa == VectorIsa::avx2 ? 8 : 16, registers = isa == VectorIsa::avx512 ? 32 : 16;
  const int64_t vectors = (n + lanes - 1) / lanes;
  const auto entries = static_cast<double>(a.nnz());
  Ceiling ceiling{entries * static_cast<double>(vectors * lanes) * 2 / rates.fma_flops, "multiply-adds"};
  const auto consider = [&](double seconds, const char* resource) {
    if (seconds > ceiling.seconds) ceiling = {seconds, resource};
  };
  double fewest = std::numeric_limits<double>::infinity();
  for (int64_t t = 1; t <= 4; ++t) {
    const int64_t rows = registers / t - 1;
    const auto passes = static_cast<double>((vectors + t - 1) / t);
    fewest = std::min(fewest, passes * (entries + static_cast<double>(t * columns_of_panels(a, rows))));
  }
  consider(fewest / rates.loads, "loads");
  const int64_t bytes = 4 * (a.nnz() + (a.columns + a.rows) * n);
  consider(static_cast<double>(bytes) / machine.bytes_rate(rates, bytes), "bytes");
  return ceiling;
}

}  // namespace espalier
