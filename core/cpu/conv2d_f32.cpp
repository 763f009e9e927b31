// Fast convolution for f32. One scheme serves the forward pass and both gradients, every stride, padding,
// dilation and group count.
//
// The *source* is the image, padded (or cropped), with the columns of each phase of stride_w side by side:
// (C, rows, phases, columns). In it, the value under output pixel p and kernel position k is
//     source[offset(p) + tap(k)],
// and neighbouring pixels of a row are neighbours in memory, whatever the stride. A convolution is then a
// matrix product (M,K)(K,P): weights by gathered source values. The gathered matrix is never stored as a whole:
// pieces of it are copied, as vectors, into a panel that stays in cache, and multiplied there (panel_gemm.h).
//
//   forward      y[m][p]  = sum over k of w[m][k] source[p,k], with M = F/groups, K = C/groups * KH * KW
//   input grad   the same product, with dy as the image and w transposed. With a stride, the pixels of dx fall
//                into stride_h * stride_w classes; each sees its own subset of the kernel, and is one product.
//   weight grad  dw[m][k] = sum over p of dy[m][p] source[p,k], as long dot products over the pixels of many images
//
// Groups with few output channels (depthwise) skip the panel: each source value is used too seldom to be copied.
// Sums have an order that does not depend on the number of threads.

#include "core/cpu/conv2d_f32.h"

#include "core/cpu/conv2d_lowering.h"
#include "core/cpu/panel_gemm.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kBlockPixels = 256;         // forward: pixels whose source is prepared together, at least
constexpr int64_t kMaxDepth = 256;            // forward: rows of a panel, so that it stays in L1 (256 x 128 bytes)
constexpr int64_t kGatherRows = 64;           // rows of the gathered matrix written together
constexpr int64_t kSmallWeights = 128 << 10;  // forward: floats of weights that stay in L2 beside the rest
constexpr int64_t kInPlacePanels = 4;         // forward: row panels up to which gathering first does not pay
constexpr int64_t kChunkPanels = 8;           // forward: panels that share one pass over larger weights
constexpr int64_t kDotPixels = 1024;          // weight grad: length of the dot products
constexpr int64_t kTasksPerThread = 4;        // weight grad: so many keep the threads' shares nearly equal
constexpr int64_t kDirectRows = 3;            // groups with up to so many outputs skip the panel
constexpr int kDirectVectors = 4;             // vectors of pixels in flight there
constexpr int kDirectTaps = 6;                // kernel positions in flight in their weight gradient

/// What a thread keeps from call to call.
struct Buffers {
  Scratch weights, source, panels, gradient;
};

Buffers& buffers() {
  thread_local Buffers mine;
  return mine;
}

/// Room for a source of n elements, and the padding in it: copy_source writes only what comes from the image.
float* empty_source(int64_t n) {
  float* source = buffers().source.get(n);
  std::fill(source, source + n, 0.0F);
  return source;
}

/// The source of `count` images from `first` on, channels c0 <= c < c1, in `room`; or a pointer into the images.
const float* fill_source(const Lowering& l, const float* images, int64_t first, int64_t count, int64_t c0, int64_t c1,
                         float* room) {
  const float* from = images + first * l.image_size() + c0 * l.height * l.width;
  if (l.in_place) return from;
  for (int64_t i = 0; i < count; ++i) {
    copy_source(l, from + i * l.image_size(), c1 - c0, room + i * (c1 - c0) * l.plane);
  }
  return room;
}

/// Elements from one image's source to the next, when `channels` of them were prepared.
int64_t source_image_stride(const Lowering& l, int64_t channels) {
  return l.in_place ? l.image_size() : channels * l.plane;
}

/// Copies one piece of `count` rows of the gathered matrix.
template <int Width>
void gather_piece(const float* from, const int64_t* taps, int64_t count, float* to, int64_t to_stride) {
  for (int64_t k = 0; k < count; ++k) copy_floats<Width>(from + taps[k], to + k * to_stride);
}

/// to[k * to_stride + pixel - first_pixel] = from[offset(pixel) + taps[k]] for the pixels of `pieces`.
template <int64_t Piece::*Offset>
void gather(Pieces pieces, int64_t first_pixel, const float* from, const int64_t* taps, int64_t count, float* to,
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

// --- forward product ---------------------------------------------------------------------------------------------

/// Weights as panel_product reads them: (groups, row panels, K, kPanelRows). Valid until the next call.
const float* pack_weights(const Lowering& l, const float* weights) {
  const int64_t depth = l.depth(), row_panels = ceil_div(l.outputs, kPanelRows);
  float* packed = buffers().weights.get(l.groups * row_panels * depth * kPanelRows);
  parallel_for(l.groups * row_panels, std::max<int64_t>(1, 4096 / std::max<int64_t>(depth, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t panel = begin; panel < end; ++panel) {
                   const int64_t group = panel / row_panels, r = panel % row_panels;
                   const int64_t m0 = share(l.outputs, row_panels, r), rows = share(l.outputs, row_panels, r + 1) - m0;
                   const float* from = weights + group * l.weight_group_stride + m0 * l.weight_row_stride;
                   float* to = packed + panel * depth * kPanelRows;
                   for (int64_t k = 0; k < depth; ++k) {
                     for (int64_t i = 0; i < rows; ++i) {
                       to[k * kPanelRows + i] = from[i * l.weight_row_stride + l.weight_taps[static_cast<size_t>(k)]];
                     }
                   }
                 }
               });
  return packed;
}

/// Writes `width` values to out, or adds them.
template <int Width>
void store_piece(const float* from, bool accumulate, float bias, float* out, int64_t column_stride) {
  if (column_stride != 1) {
    for (int i = 0; i < Width; ++i) out[i * column_stride] = from[i] + (accumulate ? out[i * column_stride] : bias);
  } else {
    for (int i = 0; i < Width; ++i) out[i] = from[i] + (accumulate ? out[i] : bias);
  }
}

/// Writes a tile (rows, kPanelWidth) to the output channels that start at `out`, or adds it to them.
void store_tile(const Lowering& l, const float* tile, int64_t rows, Pieces pieces, int64_t first_pixel,
                const float* bias, bool accumulate, float* out) {
  for (const Piece& piece : pieces) {
    with_piece_width(piece.width, [&]<int Width>() {
      for (int64_t i = 0; i < rows; ++i) {
        store_piece<Width>(tile + i * kPanelWidth + piece.pixel - first_pixel, accumulate, bias ? bias[i] : 0.0F,
                           out + piece.out + i * l.out_channel_stride, l.out_column_stride);
      }
    });
  }
}

/// Offsets 0, step, 2 step, ... of a packed operand.
std::vector<int64_t> multiples(int64_t step, int64_t count) {
  std::vector<int64_t> offsets(static_cast<size_t>(count));
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<int64_t>(i) * step;
  return offsets;
}

/// The panels p0 <= p < p1 of one group in one block of images.
struct PanelTask {
  const PixelMap& map;
  int64_t p0, p1;
  const float* source;  // of the group
  const float* packed;  // weights of the group
  const float* bias;    // of the group, or null
  float* out;           // of the group's first channel in the block's first image
};

/// Where the image has whole vectors, they are multiplied as they lie: one pass over all of K.
void multiply_in_place(const Lowering& l, const PanelTask& task) {
  alignas(64) float tile[kPanelRows * kPanelWidth];
  const int64_t row_panels = ceil_div(l.outputs, kPanelRows);
  for (int64_t p = task.p0; p < task.p1; ++p) {
    const int64_t* vectors = task.map.vectors().data() + p * kPanelVectors;
    for (int64_t r = 0; r < row_panels; ++r) {
      const int64_t m = share(l.outputs, row_panels, r), rows = share(l.outputs, row_panels, r + 1) - m;
      with_count<kPanelRows>(rows, [&]<int Rows>() {
        panel_product<Rows>(l.depth(), task.packed + r * l.depth() * kPanelRows, task.source, vectors, l.taps.data(),
                            tile);
      });
      store_tile(l, tile, rows, task.map.panel(p), p * kPanelWidth, task.bias ? task.bias + m : nullptr, false,
                 task.out + m * l.out_channel_stride);
    }
  }
}

/// Elsewhere pieces of the source are gathered into `panels`, kMaxDepth rows at a time; `taps` and `vectors` are
/// the offsets in a panel.
void multiply_gathered(const Lowering& l, const PanelTask& task, const int64_t* vectors, const int64_t* taps,
                       float* panels) {
  alignas(64) float tile[kPanelRows * kPanelWidth];
  const int64_t depth = l.depth(), row_panels = ceil_div(l.outputs, kPanelRows);
  const int64_t steps = std::max<int64_t>(1, ceil_div(depth, kMaxDepth));
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t k = share(depth, steps, step), size = share(depth, steps, step + 1) - k;
    for (int64_t p = task.p0; p < task.p1; ++p) {
      gather<&Piece::source>(task.map.panel(p), p * kPanelWidth, task.source, l.taps.data() + k, size,
                             panels + (p - task.p0) * size * kPanelWidth, kPanelWidth);
    }
    for (int64_t r = 0; r < row_panels; ++r) {
      const int64_t m = share(l.outputs, row_panels, r), rows = share(l.outputs, row_panels, r + 1) - m;
      for (int64_t p = task.p0; p < task.p1; ++p) {
        with_count<kPanelRows>(rows, [&]<int Rows>() {
          panel_product<Rows>(size, task.packed + (r * depth + k) * kPanelRows,
                              panels + (p - task.p0) * size * kPanelWidth, vectors, taps, tile);
        });
        store_tile(l, tile, rows, task.map.panel(p), p * kPanelWidth, task.bias ? task.bias + m : nullptr, step > 0,
                   task.out + m * l.out_channel_stride);
      }
    }
  }
}

/// out[m][p] = bias[m] + sum over k of weights[m][k] source[p,k], for all groups and images.
void panel_convolution(const Lowering& l, const float* images, const float* weights, const float* bias, int64_t count,
                       float* out) {
  const int64_t depth = l.depth(), row_panels = ceil_div(l.outputs, kPanelRows);
  const float* packed = pack_weights(l, weights);

  // Images go in blocks; the pixels of a block in panels; panels, where the weights are large, in chunks.
  const int64_t block_images =
      std::clamp<int64_t>(ceil_div(kBlockPixels, l.pixels()), 1, std::max<int64_t>(1, ceil_div(count, num_threads())));
  const int64_t blocks = ceil_div(count, block_images);
  const int64_t image_stride = source_image_stride(l, l.channels);
  const PixelMap full(l, block_images, image_stride), last(l, count - (blocks - 1) * block_images, image_stride);
  const int64_t chunk_panels = l.outputs * depth <= kSmallWeights ? 1 : kChunkPanels;
  const int64_t chunks = ceil_div(full.panels(), chunk_panels);
  const bool in_place = row_panels <= kInPlacePanels && !full.vectors().empty();
  const std::vector<int64_t> vectors = multiples(kLanes, kPanelVectors), taps = multiples(kPanelWidth, kMaxDepth);

  parallel_for(blocks * chunks, 1, [&](int64_t begin, int64_t end) {
    float* panels = in_place ? nullptr : buffers().panels.get(chunk_panels * std::min(depth, kMaxDepth) * kPanelWidth);
    float* room = l.in_place ? nullptr : empty_source(block_images * l.channels * l.plane);
    const float* source = nullptr;
    int64_t prepared = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task / chunks, first = block * block_images;
      const PixelMap& map = block == blocks - 1 ? last : full;
      const int64_t p0 = task % chunks * chunk_panels, p1 = std::min(p0 + chunk_panels, map.panels());
      if (p0 >= p1) continue;
      if (block != prepared) {
        source = fill_source(l, images, first, std::min(block_images, count - first), 0, l.channels, room);
        prepared = block;
      }
      for (int64_t group = 0; group < l.groups; ++group) {
        const PanelTask part{.map = map,
                             .p0 = p0,
                             .p1 = p1,
                             .source = source + group * l.group_channels * l.plane,
                             .packed = packed + group * row_panels * depth * kPanelRows,
                             .bias = bias ? bias + group * l.outputs : nullptr,
                             .out = out + first * l.out_image_stride + group * l.outputs * l.out_channel_stride};
        if (in_place) {
          multiply_in_place(l, part);
        } else {
          multiply_gathered(l, part, vectors.data(), taps.data(), panels);
        }
      }
    }
  });
}

/// The same for groups of few outputs: the source is read where it lies. Weights packed as for the panels.
void direct_convolution(const Lowering& l, const float* images, const float* weights, const float* bias, int64_t count,
                        float* out) {
  static_assert(kDirectRows <= kPanelRows, "a group is one row panel");
  const int64_t depth = l.depth();
  const float* packed = pack_weights(l, weights);
  parallel_for(count * l.groups, 1, [&](int64_t begin, int64_t end) {
    constexpr int64_t kStep = kDirectVectors * kLanes;
    // Vectors may read past the last pixel; what they find there is not stored.
    float* source = empty_source(l.group_channels * l.plane + kStep);
    alignas(64) float line[kStep];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t image = item / l.groups, group = item % l.groups;
      copy_source(l, images + image * l.image_size() + group * l.group_channels * l.height * l.width, l.group_channels,
                  source);
      for (int64_t m = 0; m < l.outputs; ++m) {
        const int64_t channel = group * l.outputs + m;
        const float* w = packed + group * depth * kPanelRows + m;
        float* to = out + image * l.out_image_stride + channel * l.out_channel_stride + l.out_offset;
        for (int64_t i = 0; i < l.out_height; ++i) {
          for (int64_t j = 0; j < l.out_width; j += kStep) {
            const float* from = source + i * l.pixel_row_stride + j;
            const int64_t width = std::min(kStep, l.out_width - j);
            with_count<kDirectVectors>(ceil_div(width, kLanes), [&]<int Vectors>() {
              Vector sum[Vectors];
              for (int v = 0; v < Vectors; ++v) sum[v] = broadcast(bias ? bias[channel] : 0.0F);
              for (int64_t k = 0; k < depth; ++k) {
                const Vector weight = broadcast(w[k * kPanelRows]);
                const float* tap = from + l.taps[static_cast<size_t>(k)];
                for (int v = 0; v < Vectors; ++v) sum[v] += weight * load(tap + v * kLanes);
              }
              for (int v = 0; v < Vectors; ++v) store(line + v * kLanes, sum[v]);
            });
            float* row = to + i * l.out_row_stride + j * l.out_column_stride;
            if (l.out_column_stride == 1) {
              copy_row(line, row, width);
            } else {
              for (int64_t p = 0; p < width; ++p) row[p * l.out_column_stride] = line[p];
            }
          }
        }
      }
    }
  });
}

void convolve(const Lowering& l, const float* images, const float* weights, const float* bias, int64_t count,
              float* out) {
  if (count == 0 || l.pixels() == 0) return;
  if (l.outputs <= kDirectRows && count * l.groups >= num_threads()) {
    direct_convolution(l, images, weights, bias, count, out);
  } else {
    panel_convolution(l, images, weights, bias, count, out);
  }
}

// --- weight gradient ---------------------------------------------------------------------------------------------

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
  float* gradient = buffers().gradient.get(rows * stride);
  float* gathered = buffers().panels.get(kDotColumns * stride);
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
    float* gradient = buffers().gradient.get(l.out_height * padded);
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

void conv2d_f32(const Conv2dSizes& sizes, const float* x, const float* w, const float* bias, float* y) {
  convolve(lower_forward(sizes), x, w, bias, sizes.n, y);
}

void conv2d_input_grad_f32(const Conv2dSizes& sizes, const float* dy, const float* w, float* dx) {
  for (int64_t a = 0; a < sizes.shape.stride_h; ++a) {
    for (int64_t b = 0; b < sizes.shape.stride_w; ++b) {
      convolve(lower_input_grad(sizes, a, b), dy, w, nullptr, sizes.n, dx);
    }
  }
}

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
