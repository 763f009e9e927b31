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
//                Without stride and padding, where that would multiply mostly zeros: scatter_input_grad.
//   weight grad  dw[m][k] = sum over p of dy[m][p] source[p,k], as long dot products over the pixels of many images
//                (conv2d_weight_grad_f32.cpp)
//
// Groups with few output channels (depthwise) skip the panel: each source value is used too seldom to be copied.
// Sums have an order that does not depend on the number of threads.

#include "core/cpu/conv2d_f32.h"

#include "core/cpu/conv2d_lowering.h"
#include "core/cpu/panel_gemm.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kBlockPixels = 256;         // pixels whose source is prepared together, at least
constexpr int64_t kMaxDepth = 256;            // rows of a panel, so that it stays in L1 (256 x 128 bytes)
constexpr int64_t kSmallWeights = 128 << 10;  // floats of weights that stay in L2 beside the rest
constexpr int64_t kInPlacePanels = 4;         // row panels up to which gathering first does not pay
constexpr int64_t kChunkPanels = 8;           // panels that share one pass over larger weights
constexpr int64_t kColumnFloats = 1 << 18;    // input grad: columns computed before they are added up
constexpr int kDirectVectors = 4;             // vectors of pixels in flight there

/// Weights as panel_product reads them: (groups, row panels, K, kPanelRows). Valid until the next call.
const float* pack_weights(const Lowering& l, const float* weights) {
  const int64_t depth = l.depth(), row_panels = ceil_div(l.outputs, kPanelRows);
  float* packed = conv2d_buffers().weights.get(l.groups * row_panels * depth * kPanelRows);
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
void panel_convolution(const Lowering& l, const float* images, const float* packed, const float* bias, int64_t count,
                       float* out) {
  const int64_t depth = l.depth(), row_panels = ceil_div(l.outputs, kPanelRows);

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
    float* panels =
        in_place ? nullptr : conv2d_buffers().panels.get(chunk_panels * std::min(depth, kMaxDepth) * kPanelWidth);
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

/// The same for groups of few outputs: the source is read where it lies.
void direct_convolution(const Lowering& l, const float* images, const float* packed, const float* bias, int64_t count,
                        float* out) {
  static_assert(kDirectRows <= kPanelRows, "a group is one row panel");
  const int64_t depth = l.depth();
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
  const float* packed = pack_weights(l, weights);
  if (l.outputs <= kDirectRows && count * l.groups > 1) {
    direct_convolution(l, images, packed, bias, count, out);
  } else {
    panel_convolution(l, images, packed, bias, count, out);
  }
}

/// Whether the input gradient as a convolution would mostly multiply padding: dx has many more pixels than dy.
bool scatters_input_grad(const Conv2dSizes& s) {
  const Conv2dShape& g = s.shape;
  const bool few_outputs = g.groups > 1 && s.group_c <= kDirectRows;
  return !few_outputs && g.stride_h == 1 && g.stride_w == 1 && g.padding_h == 0 && g.padding_w == 0 &&
         3 * s.h * s.w >= 4 * s.oh * s.ow;
}

/// Input gradient the other way round, for convolutions without stride and padding: what each pixel of dy gives to
/// every channel and kernel position, a 1x1 convolution of dy; then these columns are added where they belong in dx.
void scatter_input_grad(const Conv2dSizes& s, const float* dy, const float* w, float* dx) {
  const Lowering columns = lower_columns(s), place = lower_forward(s);
  const float* packed = pack_weights(columns, w);
  const PixelMap map(place, 1, 0);
  const int64_t pixels = s.oh * s.ow, image_size = s.c * s.h * s.w, depth = place.depth();
  const int64_t block_images = std::clamp<int64_t>(kColumnFloats / columns.out_image_stride, 1,
                                                   std::max<int64_t>(1, ceil_div(s.n, num_threads())));
  parallel_for(ceil_div(s.n, block_images), 1, [&](int64_t begin, int64_t end) {
    float* room = conv2d_buffers().columns.get(block_images * columns.out_image_stride);
    for (int64_t first = begin * block_images; first < std::min(end * block_images, s.n); first += block_images) {
      const int64_t here = std::min(block_images, s.n - first);
      panel_convolution(columns, dy + first * s.f * pixels, packed, nullptr, here, room);
      float* to = dx + first * image_size;
      std::fill(to, to + here * image_size, 0.0F);
      for (int64_t row = 0; row < here * s.shape.groups * depth; ++row) {
        const float* from = room + row * pixels;
        float* channel = to + row / depth * s.group_c * s.h * s.w + place.taps[static_cast<size_t>(row % depth)];
        for (const Piece& piece : map.all()) {
          with_piece_width(piece.width, [&]<int Width>() {
            for (int i = 0; i < Width; ++i) channel[piece.source + i] += from[piece.pixel + i];
          });
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
  if (scatters_input_grad(sizes)) return scatter_input_grad(sizes, dy, w, dx);
  for (int64_t a = 0; a < sizes.shape.stride_h; ++a) {
    for (int64_t b = 0; b < sizes.shape.stride_w; ++b) {
      convolve(lower_input_grad(sizes, a, b), dy, w, nullptr, sizes.n, dx);
    }
  }
}

}  // namespace espalier::cpu
