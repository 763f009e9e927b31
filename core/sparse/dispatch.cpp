#include "core/sparse/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/error.h"

namespace espalier {
namespace {

/// Of one thread: what the dense product and each sparse kernel reach, in operations a second, counted on the weights
/// that exist; and bytes a second of laying a batch in tiles and back.
struct Rates {
  double dense, product, at_entries, layout;
};
constexpr Rates kRates[] = {
    /* portable */ {30e9, 15e9, 8e9, 8e9},
    /* avx2 */ {95e9, 50e9, 20e9, 12e9},
    /* avx512 */ {95e9, 80e9, 28e9, 12e9},
};
/// Seconds that a call takes whatever its size.
constexpr double kDenseCall = 1e-6, kSparseCall = 3e-6;

bool allowed_by_environment() {
  const char* text = std::getenv("ESPALIER_SPARSE");
  if (text == nullptr || *text == '\0') return true;
  const std::string word = text;
  check(word == "on" || word == "off", "ESPALIER_SPARSE", "expected on or off, got '{}'", word);
  return word == "on";
}

std::atomic<bool>& enabled_flag() {
  static std::atomic<bool> flag = allowed_by_environment();
  return flag;
}

}  // namespace

KernelChoice choose_linear(WeightProduct product, int64_t outputs, int64_t inputs, int64_t nnz, int64_t n,
                           VectorIsa isa) {
  const Rates& rates = kRates[static_cast<size_t>(isa)];
  const auto real = [](int64_t x) { return static_cast<double>(x); };
  // A last tile that the batch doesn't fill counts whole; the weight's gradient sums 128 examples at a time.
  const int64_t width = product == WeightProduct::weight_gradient ? 128 : isa == VectorIsa::portable ? 32 : 16;
  const int64_t padded = (n + width - 1) / width * width;
  KernelChoice choice;
  choice.dense = kDenseCall + 2 * real(outputs) * real(inputs) * real(n) / rates.dense;
  const double rate = product == WeightProduct::weight_gradient ? rates.at_entries : rates.product;
  choice.sparse =
      kSparseCall + 2 * real(nnz) * real(padded) / rate + 8 * real(outputs + inputs) * real(padded) / rates.layout;
  // The gradient is given in the weight's shape: its zeros are written, and so are the dense one's, masked.
  if (product == WeightProduct::weight_gradient) choice.sparse += 4 * real(outputs) * real(inputs) / 20e9;
  return choice;
}

bool sparse_enabled() { return enabled_flag().load(std::memory_order_relaxed); }
void set_sparse_enabled(bool enabled) { enabled_flag().store(enabled, std::memory_order_relaxed); }

}  // namespace espalier
