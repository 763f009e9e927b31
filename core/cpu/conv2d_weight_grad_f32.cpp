// Weight gradient of the fast convolution; conv2d_f32.cpp explains the scheme.

#include "core/cpu/conv2d_f32.h"
#include "core/cpu/conv2d_lowering.h"
#include "core/cpu/panel_gemm.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kDotPixels = 1024;    // length of the dot products
constexpr int64_t kTasksPerThread = 4;  // so many keep the threads' shares nearly equal
constexpr int kDirectTaps = 6;          // kernel positions in flight where the source is read directly

/// One thread's share of the weight gradient: outputs m0 <= m < m1 and kernel positions k0 <= k < k1 of a group.
struct WeightPart {
  int64_t group, m0, m1, k0, k1;
};

/// dw[m][k] = sum over the pixels of all images of dy[m][p] source[p,k], for the m and k of `part`.
void weight_grad_part(const Lowering& l, const WeightPart& part, const float* dy, const float* images, int64_t count,
                      float* dw) {
  const int64_t positions = l.depth() / l.group_channels;
  const int64_t c0 = part.k0 / positions, c1 = ceil_div(part.k1, positions);
  const int64_t block_images = std::clamp<int64_t>(kDotPixels / l.pixels(), 1, count);
  const int64_t rows = part.m1 - part.m0, row_tiles = ceil_div(rows, kDotRows);
  const int64_t column_tiles = ceil_div(part.k1 - part.k0, kDotColumns);

  // Rows of pixels, with a vector's gap so that their starts do not share a cache set.
  const int64_t stride = kDotPixels + kLanes;
  float* room = l.in_place ? nullptr : empty_source(block_images * (c1 - c0) * l.plane);
  float* gradient = conv2d_buffers().gradient.get(rows * stride);
  float* gathered = conv2d_buffers().panels.get(kDotColumns * stride);
  std::vector<int64_t> taps, gradient_taps;
  for (int64_t k = part.k0; k < part.k1; ++k) taps.push_back(l.taps[static_cast<size_t>(k)] - c0 * l.plane);
  for (int64_t m = part.m0; m < part.m1; ++m) {
    gradient_taps.push_back((part.group * l.outputs + m) * l.out_channel_stride);
  }
  const auto clear_tail = [&](float* to, int64_t n_rows, int64_t pixels, int64_t padded) {
    for (int64_t i = 0; i < n_rows; ++i) std::fill(to + i * stride + pixels, to + i * stride + padded, 0.0F);
  };

  PixelMap map(l, block_images, source_image_stride(l, c1 - c0));
  bool accumulate = false;
  for (int64_t first = 0; first < count; first += block_images) {
    const int64_t here = std::min(block_images, count - first);
    if (here < block_images) map = PixelMap(l, here, source_image_stride(l, c1 - c0));
    const int64_t group_c = part.group * l.group_channels;
    const float* source = fill_source(l, images, first, here, group_c + c0, group_c + c1, room);
    for (int64_t pixel = 0; pixel < map.pixels(); pixel += kDotPixels) {
      const int64_t pixels = std::min(kDotPixels, map.pixels() - pixel), padded = ceil_div(pixels, kLanes) * kLanes;
      const Pieces pieces = map.panels_between(pixel / kPanelWidth, ceil_div(pixel + pixels, kPanelWidth));
      gather<&Piece::out>(pieces, pixel, dy + first * l.out_image_stride, gradient_taps.data(), rows, gradient, stride);
      clear_tail(gradient, rows, pixels, padded);
      for (int64_t tile = 0; tile < column_tiles; ++tile) {
        const int64_t k = share(part.k1 - part.k0, column_tiles, tile);
        const int64_t columns = share(part.k1 - part.k0, column_tiles, tile + 1) - k;
        gather<&Piece::source>(pieces, pixel, source, taps.data() + k, columns, gathered, stride);
        clear_tail(gathered, columns, pixels, padded);
        with_count<kDotColumns>(columns, [&]<int Columns>() {
          for (int64_t r = 0; r < row_tiles; ++r) {
            const int64_t m = share(rows, row_tiles, r);
            float* to = dw + (part.group * l.outputs + part.m0 + m) * l.depth() + part.k0 + k;
            with_count<kDotRows>(share(rows, row_tiles, r + 1) - m, [&]<int Rows>() {
              dot_tile<Rows, Columns>(padded, gradient + m * stride, stride, gathered, stride, accumulate, to,
                                      l.depth());
            });
          }
        });
      }
      accumulate = true;
    }
  }
}

/// The threads share the entries of dw; each sums over all images, so no partial sums need adding.
void panel_weight_grad(const Lowering& l, const float* dy, const float* images, int64_t count, float* dw) {
  const int64_t column_tiles = ceil_div(l.depth(), kDotColumns), row_tiles = ceil_div(l.outputs, kDotRows);
  const int64_t wanted = num_threads() == 1 ? 1 : kTasksPerThread * num_threads();
  const int64_t row_parts = std::clamp<int64_t>(ceil_div(wanted, l.groups * column_tiles), 1, row_tiles);
  // Task (group, row part, column tile), in this order: a thread gets few parts of many adjacent column tiles.
  parallel_for(l.groups * row_parts * column_tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end;) {
      const int64_t tile = task % column_tiles, row_part = task / column_tiles % row_parts;
      const int64_t tiles = std::min(column_tiles - tile, end - task);
      weight_grad_part(l,
                       {.group = task / column_tiles / row_parts,
                        .m0 = share(l.outputs, row_parts, row_part),
                        .m1 = share(l.outputs, row_parts, row_part + 1),
                        .k0 = share(l.depth(), column_tiles, tile),
                        .k1 = share(l.depth(), column_tiles, tile + tiles)},
                       dy, images, count, dw);
      task += tiles;
    }
  });
}

/// The same for groups of few outputs: the dot products read the source where it lies, row by row.
void direct_weight_grad(const Lowering& l, const float* dy, const float* images, int64_t count, float* dw) {
  const int64_t depth = l.depth();
  parallel_for(l.groups, 1, [&](int64_t begin, int64_t end) {
    // Rows of dy, filled up with zeros to whole vectors; the source may be read past a row's end there.
    const int64_t padded = ceil_div(l.out_width, kLanes) * kLanes;
    float* source = empty_source(l.group_channels * l.plane + kLanes);
    float* gradient = conv2d_buffers().gradient.get(l.out_height * padded);
    for (int64_t group = begin; group < end; ++group) {
      float* group_dw = dw + group * l.outputs * depth;
      std::fill(group_dw, group_dw + l.outputs * depth, 0.0F);
      for (int64_t image = 0; image < count; ++image) {
        copy_source(l, images + image * l.image_size() + group * l.group_channels * l.height * l.width,
                    l.group_channels, source);
        for (int64_t m = 0; m < l.outputs; ++m) {
          const float* from = dy + image * l.out_image_stride + (group * l.outputs + m) * l.out_channel_stride;
          for (int64_t i = 0; i < l.out_height; ++i) {
            copy_row(from + i * l.out_width, gradient + i * padded, l.out_width);
            std::fill(gradient + i * padded + l.out_width, gradient + (i + 1) * padded, 0.0F);
          }
          for (int64_t k = 0; k < depth; k += kDirectTaps) {
            const int64_t* taps = l.taps.data() + k;
            with_count<kDirectTaps>(std::min<int64_t>(kDirectTaps, depth - k), [&]<int Taps>() {
              Vector sum[Taps] = {};
              for (int64_t i = 0; i < l.out_height; ++i) {
                for (int64_t j = 0; j < padded; j += kLanes) {
                  const Vector g = load(gradient + i * padded + j);
                  const float* at = source + i * l.pixel_row_stride + j;
                  for (int t = 0; t < Taps; ++t) sum[t] += g * load(at + taps[t]);
                }
              }
              float total[Taps];
              sum_lanes<Taps>(sum, total);
              for (int t = 0; t < Taps; ++t) group_dw[m * depth + k + t] += total[t];
            });
          }
        }
      }
    }
  });
}

}  // namespace

void conv2d_weight_grad_f32(const Conv2dSizes& sizes, const float* dy, const float* x, float* dw) {
  const Lowering l = lower_forward(sizes);
  if (sizes.n == 0) {
    std::fill(dw, dw + sizes.f * l.depth(), 0.0F);
  } else if (l.groups > 1 && l.outputs <= kDirectRows) {
    direct_weight_grad(l, dy, x, sizes.n, dw);
  } else {
    panel_weight_grad(l, dy, x, sizes.n, dw);
  }
}

}  // namespace espalier::cpu
