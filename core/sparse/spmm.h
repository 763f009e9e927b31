// SpMM: a sparse matrix times a dense one, by a plan that is made once for the sparse matrix's structure.
//
// Loads bound such products, so each load of X is shared by several rows of A. The dense matrix lies in tiles
// [tile][k][W]: of the X (K,N) that a product reads, the columns t*W .. t*W + W-1 of all rows k lie together, W floats
// each; a last tile that isn't full has zeros. A panel of up to R rows of A goes through a tile once, k by k, its sums
// (R,W) in registers. Each sum takes its terms in the order of k, one fused multiply-add after the other: the bits are
// the same for any number of threads and any R, W.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/sparse/csr.h"

namespace espalier {

/// Vector instructions that kernels use.
enum class VectorIsa : uint8_t {
  portable,  ///< what the compiler makes of plain loops
  avx2,      ///< with fused multiply-add: x86-64-v3
  avx512,    ///< x86-64-v4
};
/// The best that this processor has, no better than the environment's ESPALIER_ISA (v2, v3 or v4) allows. Throws
/// ArgumentError on another word in it.
VectorIsa vector_isa();
/// "portable", "avx2", "avx512".
const char* name_of(VectorIsa isa);

/// How a product is computed: a choice of speed alone.
struct SpmmOptions {
  VectorIsa isa = vector_isa();
  /// Code made for this matrix, with its indices in the instructions; false, or where no memory may hold such code:
  /// loops over indices.
  bool generate = true;
  int64_t panel_rows = 0;    ///< R; 0: what suits the instructions
  int64_t tile_vectors = 0;  ///< W in vectors; 0: what suits the instructions
  int64_t block = 0;         ///< columns of A after which a panel's sums wait in memory; 0: what suits the matrix
  /// Whether a panel goes through all tiles before the next one comes (its code stays in the cache), or a tile through
  /// all panels (its floats do).
  enum class Order : uint8_t { automatic, panel_by_panel, tile_by_tile } order = Order::automatic;
};

/// Y = A X. The plan keeps A's structure and values, not A.
class SpmmPlan {
 public:
  /// Throws as check_csr.
  explicit SpmmPlan(const Csr& a, SpmmOptions options = {});
  ~SpmmPlan();
  SpmmPlan(SpmmPlan&&) noexcept;
  SpmmPlan& operator=(SpmmPlan&&) noexcept;

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t nnz() const { return static_cast<int64_t>(order_.size()); }
  const SpmmOptions& options() const { return options_; }
  bool is_generated() const { return code_ != nullptr; }
  /// Bytes of generated code; 0 without.
  int64_t code_bytes() const;
  /// W.
  int64_t tile_width() const { return width_; }
  int64_t tiles(int64_t n) const { return (n + width_ - 1) / width_; }
  /// Floats of X (columns, n) in tiles.
  int64_t packed_floats(int64_t n) const { return tiles(n) * columns_ * width_; }

  /// New values for the same entries, in A's order.
  void set_values(std::span<const float> values);

  /// X (columns, n), rows `stride` floats apart -> tiles.
  void pack(const float* x, int64_t n, int64_t stride, float* packed) const;
  /// The same from X's transposed (n, columns): a batch of n examples.
  void pack_batch(const float* x, int64_t n, int64_t stride, float* packed) const;

  /// Y (rows, n), rows `stride` floats apart, is assigned.
  void run(const float* packed, int64_t n, float* y, int64_t stride) const;
  /// Y (rows, n) from X (columns, n) as it is: packs on its way.
  void multiply(const float* x, int64_t n, int64_t x_stride, float* y, int64_t y_stride) const;
  /// Y's transposed (n, rows) is assigned: a batch of n examples. bias: one for each row of A, or nullptr.
  void run_batch(const float* packed, int64_t n, const float* bias, float* y, int64_t stride) const;

 private:
  /// Rows of A and a range of its columns.
  struct Panel {
    int64_t first_row, rows;
    int64_t first_column, columns;
    int64_t first_entry, entries;  ///< in the plan's order
    size_t first_offset;           ///< loops only: of its rows in row_offsets_
  };
  struct Code;

  void run_panel(size_t p, const float* tile, float* y, int64_t stride) const;
  void run_tile(const float* tile, int64_t width, size_t first, size_t last, float* y, int64_t stride) const;
  bool is_panel_by_panel() const;

  int64_t rows_ = 0, columns_ = 0, width_ = 0;
  SpmmOptions options_;
  std::vector<Panel> panels_;         ///< by rows, then by columns
  std::vector<int32_t> order_;        ///< of each entry in the plan's order: which entry of A it is
  std::vector<float> values_;         ///< in the plan's order
  std::vector<int32_t> column_;       ///< loops only: of each entry, and
  std::vector<int64_t> row_offsets_;  ///< loops only: where each row of each panel begins
  std::unique_ptr<Code> code_;
};

}  // namespace espalier
