// Tiles of a dense matrix, as SpMM reads and writes them: [row][W]. Internal to core/sparse.
#pragma once

#include <cstdint>

namespace espalier {

/// x (rows, width), rows `stride` apart -> tile (rows, W), zeros right of `width`.
void pack_tile(const float* x, int64_t rows, int64_t width, int64_t stride, int64_t tile_width, float* tile);
/// x (width, rows), rows `stride` apart -> tile (rows, W), zeros right of `width`.
void pack_tile_transposed(const float* x, int64_t rows, int64_t width, int64_t stride, int64_t tile_width, float* tile);
/// tile (rows, W) -> y (width, rows), rows `stride` apart; plus bias (rows), unless it is nullptr.
void unpack_tile_transposed(const float* tile, int64_t rows, int64_t width, int64_t tile_width, const float* bias,
                            float* y, int64_t stride);

}  // namespace espalier
