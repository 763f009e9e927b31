#include "core/cpu/conv2d_lowering.h"

namespace espalier::cpu {

namespace {

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }  // b > 0
int64_t ceil_div_any(int64_t a, int64_t b) { return -floor_div(-a, b); }                 // any a, b > 0

/// Decides whether the image itself serves as the source, and lays the source out.
void lay_out_source(Lowering& l) {
  l.in_place =
      l.depth() == 0 || (l.top == 0 && l.left == 0 && l.column_step == 1 && l.rows <= l.height && l.columns <= l.width);
  l.row_stride = l.in_place ? l.width : l.phases * l.columns;
  l.plane = l.in_place ? l.height * l.width : l.rows * l.row_stride;
}

/// One long row instead of many, where rows follow each other without a gap in source and output.
void join_rows(Lowering& l) {
  if (l.pixel_row_stride == l.out_width && l.out_row_stride == l.out_width && l.out_column_stride == 1) {
    l.out_width *= l.out_height;
    l.out_height = 1;
  }
}

/// One axis of the input gradient: the pixels i = first + n * stride with (i + padding) % stride == stride_class.
/// x[i] met dy[o] under kernel position k when i + padding = stride * o + dilation * k; with
/// i + padding = stride * q + stride_class this is o = q - shift(k), shift(k) = (dilation * k - stride_class) / stride,
/// for the k that make it whole.
struct GradAxis {
  int64_t first, count;            // pixels of dx
  int64_t before = 0, extent = 0;  // padding before dy, and size of the source
  struct Tap {
    int64_t position, offset;  // kernel position; where the source lies, from the pixel's own place
  };
  std::vector<Tap> taps;

  GradAxis(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, int64_t stride_class) {
    const int64_t q = ceil_div_any(padding - stride_class, stride);
    first = stride * q + stride_class - padding;
    count = first < size ? (size - 1 - first) / stride + 1 : 0;
    for (int64_t k = 0; k < kernel; ++k) {
      if (dilation * k % stride == stride_class) taps.push_back({k, (dilation * k - stride_class) / stride});
    }
    if (taps.empty()) return;
    const int64_t least = taps.front().offset, most = taps.back().offset;
    before = most - q;
    extent = count + most - least;
    for (Tap& tap : taps) tap.offset = most - tap.offset;
  }
};

/// One vector of from[0], from[2], ...; reads nothing after the last of them.
template <size_t... I>
Vector every_second(const float* from, std::index_sequence<I...>) {
  constexpr size_t kHalf = kLanes / 2;
  return __builtin_shufflevector(load(from), load(from + kLanes - 1), (I < kHalf ? 2 * I : 2 * I + 1)...);
}

void copy_every_second(const float* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, every_second(from + 2 * i, std::make_index_sequence<kLanes>{}));
  for (; i < n; ++i) to[i] = from[2 * i];
}

}  // namespace

Lowering lower_forward(const Conv2dSizes& s) {
  const Conv2dShape& g = s.shape;
  Lowering l{};
  l.channels = s.c, l.height = s.h, l.width = s.w;
  l.top = g.padding_h, l.left = g.padding_w;
  l.rows = (s.oh - 1) * g.stride_h + (s.kh - 1) * g.dilation_h + 1;
  l.phases = std::min(g.stride_w, (s.kw - 1) * g.dilation_w + 1);
  l.columns = s.ow + (s.kw - 1) * g.dilation_w / g.stride_w;
  l.column_step = g.stride_w;
  l.taps.resize(static_cast<size_t>(s.group_c * s.kh * s.kw));
  lay_out_source(l);
  l.out_height = s.oh, l.out_width = s.ow, l.pixel_row_stride = g.stride_h * l.row_stride;

  l.groups = g.groups, l.group_channels = s.group_c, l.outputs = s.group_f;
  l.weight_row_stride = l.depth(), l.weight_group_stride = s.group_f * l.depth();
  size_t k = 0;
  for (int64_t c = 0; c < s.group_c; ++c) {
    for (int64_t kh = 0; kh < s.kh; ++kh) {
      for (int64_t kw = 0; kw < s.kw; ++kw) {
        const int64_t column = kw * g.dilation_w;
        l.taps[k++] =
            c * l.plane + kh * g.dilation_h * l.row_stride + column % g.stride_w * l.columns + column / g.stride_w;
        l.weight_taps.push_back(static_cast<int64_t>(l.weight_taps.size()));
      }
    }
  }
  l.out_image_stride = s.f * s.oh * s.ow, l.out_channel_stride = s.oh * s.ow;
  l.out_row_stride = s.ow, l.out_column_stride = 1, l.out_offset = 0;
  join_rows(l);
  return l;
}

Lowering lower_input_grad(const Conv2dSizes& s, int64_t row_class, int64_t column_class) {
  const Conv2dShape& g = s.shape;
  const GradAxis vertical(s.h, s.kh, g.stride_h, g.padding_h, g.dilation_h, row_class);
  const GradAxis horizontal(s.w, s.kw, g.stride_w, g.padding_w, g.dilation_w, column_class);
  Lowering l{};
  l.channels = s.f, l.height = s.oh, l.width = s.ow;
  l.top = vertical.before, l.left = horizontal.before;
  l.rows = vertical.extent, l.phases = 1, l.columns = horizontal.extent;
  l.column_step = 1;
  l.taps.resize(static_cast<size_t>(s.group_f) * vertical.taps.size() * horizontal.taps.size());
  lay_out_source(l);
  l.out_height = vertical.count, l.out_width = horizontal.count, l.pixel_row_stride = l.row_stride;

  l.groups = g.groups, l.group_channels = s.group_f, l.outputs = s.group_c;
  const int64_t kernel = s.kh * s.kw;
  l.weight_row_stride = kernel, l.weight_group_stride = s.group_f * s.group_c * kernel;
  size_t k = 0;
  for (int64_t f = 0; f < s.group_f; ++f) {
    for (const GradAxis::Tap& v : vertical.taps) {
      for (const GradAxis::Tap& h : horizontal.taps) {
        l.taps[k++] = f * l.plane + v.offset * l.row_stride + h.offset;
        l.weight_taps.push_back(f * s.group_c * kernel + v.position * s.kw + h.position);
      }
    }
  }
  l.out_image_stride = s.c * s.h * s.w, l.out_channel_stride = s.h * s.w;
  l.out_row_stride = g.stride_h * s.w, l.out_column_stride = g.stride_w;
  l.out_offset = vertical.first * s.w + horizontal.first;
  join_rows(l);
  return l;
}

Lowering lower_columns(const Conv2dSizes& s) {
  const int64_t pixels = s.oh * s.ow, positions = s.group_c * s.kh * s.kw;
  Lowering l{};
  l.channels = s.f, l.height = 1, l.width = pixels;
  l.rows = 1, l.phases = 1, l.columns = pixels;
  l.column_step = 1;
  l.taps.resize(static_cast<size_t>(s.group_f));
  lay_out_source(l);
  l.out_height = 1, l.out_width = pixels, l.pixel_row_stride = pixels;

  l.groups = s.shape.groups, l.group_channels = s.group_f, l.outputs = positions;
  l.weight_row_stride = 1, l.weight_group_stride = s.group_f * positions;
  for (int64_t f = 0; f < s.group_f; ++f) {
    l.taps[static_cast<size_t>(f)] = f * pixels;
    l.weight_taps.push_back(f * positions);
  }
  l.out_image_stride = l.groups * positions * pixels, l.out_channel_stride = pixels;
  l.out_row_stride = pixels, l.out_column_stride = 1, l.out_offset = 0;
  return l;
}

void copy_source(const Lowering& l, const float* image, int64_t channels, float* source) {
  if (l.in_place) {
    std::copy(image, image + channels * l.plane, source);
    return;
  }
  const int64_t first_row = std::clamp<int64_t>(l.top, 0, l.rows);
  const int64_t end_row = std::clamp<int64_t>(l.height + l.top, first_row, l.rows);
  for (int64_t phase = 0; phase < l.phases; ++phase) {
    // Source column q holds image column q * column_step + shift.
    const int64_t shift = phase - l.left;
    const int64_t begin = std::clamp<int64_t>(ceil_div_any(-shift, l.column_step), 0, l.columns);
    const int64_t count = std::clamp<int64_t>(ceil_div_any(l.width - shift, l.column_step), begin, l.columns) - begin;
    const int64_t first_column = begin * l.column_step + shift;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t r = first_row; r < end_row; ++r) {
        const float* from = image + (c * l.height + r - l.top) * l.width + first_column;
        float* to = source + c * l.plane + r * l.row_stride + phase * l.columns + begin;
        if (l.column_step == 1) {
          copy_row(from, to, count);
        } else if (l.column_step == 2) {
          copy_every_second(from, to, count);
        } else {
          for (int64_t q = 0; q < count; ++q) to[q] = from[q * l.column_step];
        }
      }
    }
  }
}

Conv2dBuffers& conv2d_buffers() {
  thread_local Conv2dBuffers mine;
  return mine;
}

float* empty_source(int64_t n) {
  float* source = conv2d_buffers().source.get(n);
  std::fill(source, source + n, 0.0F);
  return source;
}

const float* fill_source(const Lowering& l, const float* images, int64_t first, int64_t count, int64_t c0, int64_t c1,
                         float* room) {
  const float* from = images + first * l.image_size() + c0 * l.height * l.width;
  if (l.in_place) return from;
  for (int64_t i = 0; i < count; ++i) {
    copy_source(l, from + i * l.image_size(), c1 - c0, room + i * (c1 - c0) * l.plane);
  }
  return room;
}

int64_t source_image_stride(const Lowering& l, int64_t channels) {
  return l.in_place ? l.image_size() : channels * l.plane;
}

PixelMap::PixelMap(const Lowering& l, int64_t images, int64_t source_image_stride) : pixels_(images * l.pixels()) {
  int64_t pixel = 0;
  for (int64_t image = 0; image < images; ++image) {
    for (int64_t i = 0; i < l.out_height; ++i) {
      for (int64_t j = 0; j < l.out_width;) {
        if (pixel % kPanelWidth == 0) first_.push_back(static_cast<int64_t>(pieces_.size()));
        const int64_t room = std::min(kPanelWidth - pixel % kPanelWidth, l.out_width - j);
        int width = kPanelWidth;
        while (width > room) width /= 2;
        pieces_.push_back(
            {.pixel = pixel,
             .source = image * source_image_stride + i * l.pixel_row_stride + j,
             .out = image * l.out_image_stride + l.out_offset + i * l.out_row_stride + j * l.out_column_stride,
             .width = width});
        pixel += width, j += width;
      }
    }
  }
  first_.push_back(static_cast<int64_t>(pieces_.size()));

  if (l.out_width % kLanes != 0) return;
  for (const Piece& piece : pieces_) {
    for (int lane = 0; lane < piece.width; lane += kLanes) vectors_.push_back(piece.source + lane);
  }
  // The last panel may have fewer; what is read in their place is not used.
  while (vectors_.size() % kPanelVectors != 0) vectors_.push_back(vectors_.back());
}

}  // namespace espalier::cpu
