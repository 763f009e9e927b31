#include "core/sparse/spmm.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/sparse/generated.h"
#include "core/sparse/place.h"
#include "core/sparse/tiles.h"
#include "core/threads.h"

namespace espalier {
namespace {

VectorIsa processor_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return VectorIsa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return VectorIsa::avx2;
#endif
  return VectorIsa::portable;
}

VectorIsa allowed_isa() {
  const char* text = std::getenv("ESPALIER_ISA");
  if (text == nullptr || *text == '\0') return VectorIsa::avx512;
  const std::string level = text;
  if (level == "v2") return VectorIsa::portable;
  if (level == "v3") return VectorIsa::avx2;
  if (level == "v4") return VectorIsa::avx512;
  fail("ESPALIER_ISA", "expected v2, v3 or v4, got '{}'", level);
}

}  // namespace

VectorIsa vector_isa() {
  static const VectorIsa isa = std::min(processor_isa(), allowed_isa());
  return isa;
}

const char* name_of(VectorIsa isa) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512"};
  return kNames[static_cast<size_t>(isa)];
}

struct SpmmPlan::Code {
  std::unique_ptr<GeneratedCode> generated;
  std::vector<PanelFunction> functions;
};

namespace {

constexpr int64_t kLoopLanes = 16;

int64_t lanes_of(VectorIsa isa) { return isa == VectorIsa::avx2 ? 8 : 16; }

/// What is left open is chosen: as many rows as the registers hold, so that a load of X serves many; and of wide
/// matrices ranges of columns whose tile stays in the first-level cache.
void complete(SpmmOptions& options, int64_t rows) {
  if (options.isa == VectorIsa::portable) options.generate = false;
  if (!options.generate) {
    if (options.tile_vectors == 0) options.tile_vectors = 2;
    if (options.panel_rows == 0) options.panel_rows = 32;
    check(options.tile_vectors == 1 || options.tile_vectors == 2 || options.tile_vectors == 4, "SpmmPlan",
          "expected tiles of 1, 2 or 4 vectors, got {}", options.tile_vectors);
  } else {
    if (options.tile_vectors == 0) options.tile_vectors = options.isa == VectorIsa::avx512 ? 1 : 2;
    int64_t most = 1;
    while (fits_registers(options.isa, most + 1, options.tile_vectors)) ++most;
    // As even as they come: a panel of few rows pays for its loads of X alone.
    const int64_t panels = std::max<int64_t>(1, (rows + most - 1) / most);
    if (options.panel_rows == 0) options.panel_rows = std::max<int64_t>(1, (rows + panels - 1) / panels);
    check(fits_registers(options.isa, options.panel_rows, options.tile_vectors), "SpmmPlan",
          "expected rows x vectors that {} has the registers for, got {} x {}", name_of(options.isa),
          options.panel_rows, options.tile_vectors);
  }
  if (options.block == 0) options.block = 1024;
  check(options.panel_rows > 0 && options.block > 0, "SpmmPlan", "expected a block above 0, got {}", options.block);
}

}  // namespace

SpmmPlan::SpmmPlan(const Csr& a, SpmmOptions options) : rows_(a.rows), columns_(a.columns), options_(options) {
  check_csr("SpmmPlan", a);
  complete(options_, rows_);
  width_ = options_.tile_vectors * (options_.generate ? lanes_of(options_.isa) : kLoopLanes);

  order_.reserve(a.column.size());
  const int64_t blocks = std::max<int64_t>(1, (columns_ + options_.block - 1) / options_.block);
  std::vector<int64_t> next(a.row_offsets.begin(), a.row_offsets.end() - 1);  // of each row, the first not yet planned
  std::vector<int64_t> first(static_cast<size_t>(options_.block) + 1);
  std::vector<PanelCode> codes;
  for (int64_t row = 0; row < rows_; row += options_.panel_rows) {
    const int64_t rows = std::min(options_.panel_rows, rows_ - row);
    for (int64_t b = 0; b < blocks; ++b) {
      Panel panel{row,   rows, b * options_.block, std::min(options_.block, columns_ - b * options_.block),
                  nnz(), 0,    row_offsets_.size()};
      const int64_t end_column = panel.first_column + panel.columns;
      if (!options_.generate) {
        for (int64_t r = row; r < row + rows; ++r) {
          row_offsets_.push_back(nnz());
          int64_t& e = next[static_cast<size_t>(r)];
          for (; e < a.row_offsets[static_cast<size_t>(r) + 1] && a.column[static_cast<size_t>(e)] < end_column; ++e) {
            order_.push_back(static_cast<int32_t>(e));
            column_.push_back(static_cast<int32_t>(a.column[static_cast<size_t>(e)] - panel.first_column));
          }
        }
      } else {
        // By column, then by row: a counting sort.
        std::fill(first.begin(), first.end(), 0);
        const std::vector<int64_t> begin(next.begin() + row, next.begin() + row + rows);
        for (int64_t r = row; r < row + rows; ++r) {
          int64_t& e = next[static_cast<size_t>(r)];
          for (; e < a.row_offsets[static_cast<size_t>(r) + 1] && a.column[static_cast<size_t>(e)] < end_column; ++e)
            ++first[static_cast<size_t>(a.column[static_cast<size_t>(e)] - panel.first_column) + 1];
        }
        for (size_t k = 0; k + 1 < first.size(); ++k) first[k + 1] += first[k];
        PanelCode code{.rows = rows, .adds = b > 0, .entries = {}};
        code.entries.resize(static_cast<size_t>(first.back()));
        order_.resize(order_.size() + code.entries.size());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t e = begin[static_cast<size_t>(r)]; e < next[static_cast<size_t>(row + r)]; ++e) {
            const auto column = static_cast<int32_t>(a.column[static_cast<size_t>(e)] - panel.first_column);
            const auto at = static_cast<size_t>(first[static_cast<size_t>(column)]++);
            code.entries[at] = {column, static_cast<int32_t>(r)};
            order_[static_cast<size_t>(panel.first_entry) + at] = static_cast<int32_t>(e);
          }
        }
        codes.push_back(std::move(code));
      }
      panel.entries = nnz() - panel.first_entry;
      panels_.push_back(panel);
    }
  }
  row_offsets_.push_back(nnz());
  values_.resize(order_.size());
  if (options_.generate) {
    auto generated = generate_panels(options_.isa, options_.panel_rows, options_.tile_vectors, codes.size(), nnz(),
                                     [&](size_t p) { return std::move(codes[p]); });
    if (generated == nullptr) {  // no memory may hold code
      options.generate = false;
      options.panel_rows = options.tile_vectors = 0;
      *this = SpmmPlan(a, options);
      return;
    }
    code_ = std::make_unique<Code>();
    for (size_t p = 0; p < panels_.size(); ++p) code_->functions.push_back(generated->function(p));
    code_->generated = std::move(generated);
  }
  if (a.value.empty())
    std::fill(values_.begin(), values_.end(), 1.0F);
  else
    set_values(a.value);
}

SpmmPlan::~SpmmPlan() = default;
SpmmPlan::SpmmPlan(SpmmPlan&&) noexcept = default;
SpmmPlan& SpmmPlan::operator=(SpmmPlan&&) noexcept = default;

int64_t SpmmPlan::code_bytes() const { return code_ ? code_->generated->bytes() : 0; }

void SpmmPlan::set_values(std::span<const float> values) {
  check(values.size() == order_.size(), "SpmmPlan::set_values", "expected {} values, got {}", order_.size(),
        values.size());
  parallel_for(nnz(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      values_[static_cast<size_t>(i)] = values[static_cast<size_t>(order_[static_cast<size_t>(i)])];
  });
}

void SpmmPlan::pack(const float* x, int64_t n, int64_t stride, float* packed) const {
  parallel_for(tiles(n), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      pack_tile(x + t * width_, columns_, std::min(width_, n - t * width_), stride, width_,
                packed + t * columns_ * width_);
  });
}

void SpmmPlan::pack_batch(const float* x, int64_t n, int64_t stride, float* packed) const {
  parallel_for(tiles(n), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      pack_tile_transposed(x + t * width_ * stride, columns_, std::min(width_, n - t * width_), stride, width_,
                           packed + t * columns_ * width_);
  });
}

namespace {

using Lanes = float __attribute__((vector_size(4 * kLoopLanes), aligned(4)));

/// A panel of rows by loops: offsets of its rows and their end; columns and values of the entries.
template <int kVectors>
void loop_over_rows(const int64_t* row_offsets, int64_t rows, const int32_t* column, const float* values, bool adds,
                    const float* x, float* y, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r, y += stride) {
    Lanes sum[kVectors];
    for (int j = 0; j < kVectors; ++j) sum[j] = adds ? reinterpret_cast<const Lanes*>(y)[j] : Lanes{};
    for (int64_t e = row_offsets[r]; e < row_offsets[r + 1]; ++e) {
      const auto* from = reinterpret_cast<const Lanes*>(x) + column[e] * int64_t{kVectors};
      for (int j = 0; j < kVectors; ++j) sum[j] += values[e] * from[j];
    }
    for (int j = 0; j < kVectors; ++j) reinterpret_cast<Lanes*>(y)[j] = sum[j];
  }
}

}  // namespace

void SpmmPlan::run_panel(size_t p, const float* tile, float* y, int64_t stride) const {
  const Panel& panel = panels_[p];
  const float* x = tile + panel.first_column * width_;
  if (code_) {
    code_->functions[p](x, values_.data() + panel.first_entry, y, stride * static_cast<int64_t>(sizeof(float)));
    return;
  }
  const auto loop = options_.tile_vectors == 1   ? loop_over_rows<1>
                    : options_.tile_vectors == 2 ? loop_over_rows<2>
                                                 : loop_over_rows<4>;
  loop(row_offsets_.data() + panel.first_offset, panel.rows, column_.data(), values_.data(), panel.first_column > 0, x,
       y, stride);
}

/// Panels first up to last of one tile, of whose columns the first `width` go to y, at the tile's first column.
void SpmmPlan::run_tile(const float* tile, int64_t width, size_t first, size_t last, float* y, int64_t stride) const {
  thread_local std::vector<float> place;  // of a tile that isn't full
  if (width < width_) place.resize(static_cast<size_t>(options_.panel_rows * width_));
  for (size_t p = first; p < last; ++p) {
    const Panel& panel = panels_[p];
    float* rows = y + panel.first_row * stride;
    if (width == width_) {
      run_panel(p, tile, rows, stride);
      continue;
    }
    run_panel(p, tile, place.data(), width_);
    if (panel.first_column + panel.columns < columns_) continue;  // the sums go on in the next panel
    for (int64_t r = 0; r < panel.rows; ++r)
      std::memcpy(rows + r * stride, place.data() + r * width_, static_cast<size_t>(width) * sizeof(float));
  }
}

bool SpmmPlan::is_panel_by_panel() const {
  // Code that the second-level cache holds beside the tile costs less to fetch again than the tiles do.
  constexpr int64_t kMostCode = 384 << 10;
  if (options_.order != SpmmOptions::Order::automatic) return options_.order == SpmmOptions::Order::panel_by_panel;
  return code_bytes() > kMostCode;
}

void SpmmPlan::run(const float* packed, int64_t n, float* y, int64_t stride) const {
  if (rows_ == 0 || n == 0) return;
  const auto width = [&](int64_t t) { return std::min(width_, n - t * width_); };
  if (!is_panel_by_panel()) {
    parallel_for(tiles(n), 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        run_tile(packed + t * columns_ * width_, width(t), 0, panels_.size(), y + t * width_, stride);
    });
    return;
  }
  // Panels of the same rows follow each other: they are cut between rows only.
  const int64_t groups = (rows_ + options_.panel_rows - 1) / options_.panel_rows;
  const auto blocks = panels_.size() / static_cast<size_t>(groups);
  parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      for (int64_t t = 0; t < tiles(n); ++t)
        run_tile(packed + t * columns_ * width_, width(t), static_cast<size_t>(g) * blocks,
                 static_cast<size_t>(g + 1) * blocks, y + t * width_, stride);
  });
}

void SpmmPlan::multiply(const float* x, int64_t n, int64_t x_stride, float* y, int64_t y_stride) const {
  if (is_panel_by_panel()) {
    float* packed = place_for(packed_floats(n));
    pack(x, n, x_stride, packed);
    run(packed, n, y, y_stride);
    return;
  }
  // A tile is used while it is in the cache.
  parallel_for(tiles(n), 1, [&](int64_t begin, int64_t end) {
    float* tile = place_for(columns_ * width_);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t width = std::min(width_, n - t * width_);
      pack_tile(x + t * width_, columns_, width, x_stride, width_, tile);
      run_tile(tile, width, 0, panels_.size(), y + t * width_, y_stride);
    }
  });
}

void SpmmPlan::run_batch(const float* packed, int64_t n, const float* bias, float* y, int64_t stride) const {
  parallel_for(tiles(n), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sums(static_cast<size_t>(rows_ * width_));
    for (int64_t t = begin; t < end; ++t) {
      run_tile(packed + t * columns_ * width_, width_, 0, panels_.size(), sums.data(), width_);
      unpack_tile_transposed(sums.data(), rows_, std::min(width_, n - t * width_), width_, bias,
                             y + t * width_ * stride, stride);
    }
  });
}

}  // namespace espalier
