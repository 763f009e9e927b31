// What this machine can do at most, measured: the ceilings that benchmarks print beside their figures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/sparse/spmm.h"

namespace espalier {

/// Rates of one thread with one instruction set.
struct MachineRates {
  VectorIsa isa = VectorIsa::portable;
  double fma_flops = 0;     ///< floating-point operations a second, f32, a multiply-add counting two
  double loads = 0;         ///< vectors loaded from the first-level cache a second
  double l1_bytes = 0;      ///< bytes read a second from a working set that fits the first-level cache,
  double l2_bytes = 0;      ///< the second-level cache,
  double l3_bytes = 0;      ///< the third-level cache, where there is one,
  double memory_bytes = 0;  ///< or none
};

struct Calibration {
  std::string processor;                          ///< its name as the system tells it
  int64_t l1_size = 0, l2_size = 0, l3_size = 0;  ///< bytes of the data caches that a core uses; 0: it has none
  std::vector<MachineRates> rates;                ///< of each instruction set that the processor has
  int threads = 1;                                ///< of the measurement of scaling
  double scaling = 1;                             ///< how many times as many operations all threads together do

  /// Bytes read a second by one thread from a working set of that size: the rate of the smallest cache that holds it.
  double bytes_rate(const MachineRates& of_isa, int64_t working_set) const;
  /// Of an instruction set; of the best one below it that was measured.
  const MachineRates& of(VectorIsa isa) const;
};

/// What its file holds.
nlohmann::json to_json(const Calibration& calibration);

/// Measures this machine: about two seconds. The highest rates of several rounds count: a ceiling is what was reached.
Calibration calibrate();
/// Operations a second of a short run of multiply-adds on this thread, now: what drifts with the clock and with
/// neighbours.
double probe_flops(VectorIsa isa);

/// ESPALIER_CALIBRATION, else espalier/calibration.json in the user's cache folder.
std::string calibration_path();
void save_calibration(const std::string& path, const Calibration& calibration);
/// Throws FileError, saying what to do, when the file is damaged or was measured on another processor.
Calibration load_calibration(const std::string& path);
/// The saved one of this machine; where there is none, one that is measured now and not saved.
Calibration this_machine();

}  // namespace espalier
