// Sparse matrices times dense ones: our kernels, the dense product and anybody's kernel, in turns.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/calibration.h"
#include "core/sparse/csr.h"

namespace espalier {

struct SpmmBenchmarkOptions {
  std::vector<int64_t> n = {128};  ///< columns of the dense matrix
  int64_t threads = 1;
  int64_t rounds = 11;   ///< in each of which every candidate has its turn
  double turn = 200e-6;  ///< seconds of a turn at least: short calls are repeated
  bool cold = false;     ///< caches are emptied before each call
  uint64_t seed = 0;     ///< of the values where a matrix has none, and of the dense matrix
};

/// A matrix and its name.
struct BenchmarkMatrix {
  std::string name;
  Csr matrix;  ///< without values: random ones
};

/// The matrices of files *.smtx and *.mtx; folders stand for all such files in them, sorted. Throws FileError.
std::vector<BenchmarkMatrix> read_matrices(const std::vector<std::string>& paths);

/// One candidate on one matrix and n.
struct SpmmMeasurement {
  std::string matrix;
  int64_t rows = 0, columns = 0, nnz = 0, n = 0;
  double sparsity = 0;
  std::string kernel;   ///< "dense", "generated", "loops", or a library's name
  std::string problem;  ///< why it wasn't timed; "" when it was
  double error = 0;     ///< the largest difference from float64, in units of what rounding a sum of that length allows
  /// Seconds of a call: the least and the median of the rounds. `packed`: from an X laid out before.
  struct Times {
    double least = 0, median = 0;
  };
  Times whole, packed;
  double dense = 0;      ///< the dense product's median in the same rounds
  double plan = 0;       ///< seconds of making the plan, code included
  double ceiling = 0;    ///< the least seconds that the machine allows, and
  std::string resource;  ///< what sets them
  bool drifted = false;  ///< the machine's speed changed by more than 3 % while it was measured, each time

  bool is_timed() const { return problem.empty(); }
  double speed_up() const { return whole.median > 0 ? dense / whole.median : 0; }
  double packed_speed_up() const { return packed.median > 0 ? dense / packed.median : 0; }
  double share_of_ceiling() const { return packed.median > 0 ? ceiling / packed.median : 0; }
  /// Calls after which the plan has paid for itself; nothing where it never does.
  std::optional<double> break_even() const;
  nlohmann::json to_json() const;
};

/// Of the matrices of one kernel and n: geometric mean, tenth percentile and worst of the speed-ups.
struct SpmmSummary {
  std::string kernel;
  int64_t n = 0;
  int64_t matrices = 0, losses = 0;  ///< losses: slower than the dense product
  struct Speed {
    double mean = 0, low = 0, worst = 0;
    std::string worst_matrix;
  };
  Speed whole, packed, share;
  nlohmann::json to_json() const;
};
std::vector<SpmmSummary> summarize(const std::vector<SpmmMeasurement>& all);

class ForeignKernel;

/// Measures all kernels on all matrices; tells of each measurement. Every candidate's result is compared with a product
/// in float64 first: what is wrong is named and not timed. `stop` is asked between matrices.
std::vector<SpmmMeasurement> benchmark_spmm(const std::vector<BenchmarkMatrix>& matrices,
                                            const SpmmBenchmarkOptions& options, const Calibration& machine,
                                            const std::vector<ForeignKernel*>& foreign,
                                            const std::function<void(const SpmmMeasurement&)>& tell,
                                            const std::function<bool()>& stop);

}  // namespace espalier
