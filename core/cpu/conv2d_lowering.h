// A convolution seen as a matrix product over gathered source values: where everything lies. conv2d_f32.cpp
// explains the scheme and computes with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/cpu/conv2d_f32.h"
#include "core/cpu/panel_gemm.h"

namespace espalier::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a >= 0, b > 0

/// Where share i of n things begins, when `shares` take nearly equal numbers.
inline int64_t share(int64_t n, int64_t shares, int64_t i) { return n * i / shares; }

struct Lowering {
  // The image, and the source made from it.
  int64_t channels, height, width;
  int64_t top, left;              // rows and columns of padding before the image; negative: cropped
  int64_t rows, phases, columns;  // of the source; `columns` for each phase
  int64_t column_step;            // image columns between source columns of one phase
  int64_t row_stride, plane;      // of the source, in elements
  bool in_place;                  // the image itself serves as the source

  // Output pixels: pixel (i, j) reads its source from i * pixel_row_stride + j on.
  int64_t out_height, out_width, pixel_row_stride;

  // The product, for one group. taps[k]: where in the group's source; weight_taps[k]: where in a row of weights.
  int64_t groups, group_channels, outputs;
  std::vector<int64_t> taps, weight_taps;
  int64_t weight_row_stride, weight_group_stride;

  // Where the result of (image, channel, i, j) goes.
  int64_t out_image_stride, out_channel_stride, out_row_stride, out_column_stride, out_offset;

  int64_t depth() const { return static_cast<int64_t>(taps.size()); }
  int64_t image_size() const { return channels * height * width; }
  int64_t pixels() const { return out_height * out_width; }
};

/// y as a product over x.
Lowering lower_forward(const Conv2dSizes& sizes);

/// The pixels of dx in the class (row_class, column_class) of the strides, as a product over dy.
Lowering lower_input_grad(const Conv2dSizes& sizes, int64_t row_class, int64_t column_class);

/// (N, groups * C/groups * KH * KW, OH * OW): what every pixel of dy gives to each channel and kernel position.
Lowering lower_columns(const Conv2dSizes& sizes);

/// Copies `channels` channels of one image into a source (channels, rows, phases, columns) whose padding is there.
void copy_source(const Lowering& lowering, const float* image, int64_t channels, float* source);

/// Neighbouring pixels of one row: a power of two of them, at most kPanelWidth.
struct Piece {
  int64_t pixel;   ///< number of the first pixel in its block of images
  int64_t source;  ///< its source offset
  int64_t out;     ///< its place in the output
  int width;
};
using Pieces = std::span<const Piece>;

/// The pixels of a block of images, cut into panels of kPanelWidth and these into pieces.
class PixelMap {
 public:
  PixelMap(const Lowering& lowering, int64_t images, int64_t source_image_stride);

  int64_t pixels() const { return pixels_; }
  int64_t panels() const { return static_cast<int64_t>(first_.size()) - 1; }
  Pieces all() const { return pieces_; }
  Pieces panel(int64_t i) const { return panels_between(i, i + 1); }
  /// Source offsets of the vectors, kPanelVectors for each panel. Empty unless all pixels come in whole vectors of
  /// neighbours: then the source must be gathered before it is multiplied.
  const std::vector<int64_t>& vectors() const { return vectors_; }
  Pieces panels_between(int64_t begin, int64_t end) const {
    return {pieces_.data() + first_[static_cast<size_t>(begin)], pieces_.data() + first_[static_cast<size_t>(end)]};
  }

 private:
  int64_t pixels_ = 0;
  std::vector<Piece> pieces_;
  std::vector<int64_t> first_;  // the first piece of each panel, and the number of pieces
  std::vector<int64_t> vectors_;
};

/// Calls f.template operator()<Width>() with the compile-time Width of a piece.
template <int Width = kPanelWidth, class F>
inline void with_piece_width(int width, F&& f) {
  if constexpr (Width > 1) {
    if (width < Width) return with_piece_width<Width / 2>(width, f);
  }
  f.template operator()<Width>();
}

/// Groups with up to so many outputs skip the panel.
inline constexpr int64_t kDirectRows = 3;

/// What a thread keeps from call to call.
struct Conv2dBuffers {
  Scratch weights, source, panels, gradient, columns;
};
Conv2dBuffers& conv2d_buffers();

/// Room for a source of n elements, and the padding in it: copy_source writes only what comes from the image.
float* empty_source(int64_t n);

/// The source of `count` images from `first` on, channels c0 <= c < c1, in `room`; or a pointer into the images.
const float* fill_source(const Lowering& lowering, const float* images, int64_t first, int64_t count, int64_t c0,
                         int64_t c1, float* room);

/// Elements from one image's source to the next, when `channels` of them were prepared.
int64_t source_image_stride(const Lowering& lowering, int64_t channels);

inline constexpr int64_t kGatherRows = 64;  // rows of the gathered matrix written together

/// Copies one piece of `count` rows of the gathered matrix.
template <int Width>
inline void gather_piece(const float* from, const int64_t* taps, int64_t count, float* to, int64_t to_stride) {
  for (int64_t k = 0; k < count; ++k) copy_floats<Width>(from + taps[k], to + k * to_stride);
}

/// to[k * to_stride + pixel - first_pixel] = from[offset(pixel) + taps[k]] for the pixels of `pieces`.
template <int64_t Piece::*Offset>
inline void gather(Pieces pieces, int64_t first_pixel, const float* from, const int64_t* taps, int64_t count, float* to,
                   int64_t to_stride) {
  // A piece writes to every row; few rows at a time stay in L1 until all pieces are there.
  for (int64_t k = 0; k < count; k += kGatherRows) {
    const int64_t rows = std::min(kGatherRows, count - k);
    for (const Piece& piece : pieces) {
      with_piece_width(piece.width, [&]<int Width>() {
        gather_piece<Width>(from + piece.*Offset, taps + k, rows, to + k * to_stride + piece.pixel - first_pixel,
                            to_stride);
      });
    }
  }
}

}  // namespace espalier::cpu
