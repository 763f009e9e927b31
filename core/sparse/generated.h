// Machine code for one sparse matrix. Internal to core/sparse.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/sparse/spmm.h"

namespace espalier {

/// A panel's product with one tile: x at the tile's row of the panel's first column, values in the plan's order, y at
/// the panel's first row, whose rows lie `stride` bytes apart. The first range of columns assigns y, later ones add.
using PanelFunction = void (*)(const float* x, const float* values, float* y, int64_t stride);

/// What a panel's function is made of.
struct PanelCode {
  struct Entry {
    int32_t column, row;  ///< within the panel
  };
  int64_t rows = 0;
  bool adds = false;
  std::vector<Entry> entries;  ///< by column, then by row: the plan's order
};

/// Rows of a panel, and vectors of a tile, for which an instruction set has the registers.
bool fits_registers(VectorIsa isa, int64_t rows, int64_t vectors);

class GeneratedCode {
 public:
  virtual ~GeneratedCode() = default;
  virtual PanelFunction function(size_t panel) const = 0;
  virtual int64_t bytes() const = 0;
};

/// One function for each panel, of at most `rows` rows, and `vectors` vectors a tile. nullptr where the processor or
/// the build can't, or where the system gives no memory for code. `panel(p)` is asked for panels 0 up to `count` in
/// order.
std::unique_ptr<GeneratedCode> generate_panels(VectorIsa isa, int64_t rows, int64_t vectors, size_t count,
                                               int64_t entries, const std::function<PanelCode(size_t)>& panel);

}  // namespace espalier
