#include <algorithm>
#include <limits>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

struct Window {
  std::string variant;
  Shape x;
  Pool2dShape pool;

  Shape y() const {
    return {x[0], x[1], (x[2] + 2 * pool.padding_h - pool.kernel_h) / pool.stride_h + 1,
            (x[3] + 2 * pool.padding_w - pool.kernel_w) / pool.stride_w + 1};
  }
};

const std::vector<Window> kWindows = {
    {"plain", {2, 3, 4, 6}, {2, 2, 2, 2, 0, 0}},   {"rest", {1, 2, 5, 7}, {2, 2, 2, 2, 0, 0}},
    {"overlap", {1, 2, 7, 7}, {3, 3, 2, 2, 0, 0}}, {"padding", {1, 2, 6, 5}, {3, 3, 2, 2, 1, 1}},
    {"dense", {1, 1, 4, 4}, {3, 3, 1, 1, 1, 1}},   {"oblong", {2, 1, 5, 6}, {2, 3, 1, 2, 1, 0}},
    {"gaps", {1, 1, 7, 7}, {2, 2, 3, 3, 0, 0}},    {"whole", {2, 3, 4, 4}, {4, 4, 4, 4, 0, 0}},
    {"wide", {1, 3, 12, 37}, {2, 2, 2, 2, 0, 0}},
};

/// f(row, column) for every place of the window of output y, padding included.
void for_each_place(const Window& w, const Index& y, const std::function<void(int64_t, int64_t)>& f) {
  for (int64_t i = 0; i < w.pool.kernel_h; ++i)
    for (int64_t j = 0; j < w.pool.kernel_w; ++j)
      f(y[2] * w.pool.stride_h - w.pool.padding_h + i, y[3] * w.pool.stride_w - w.pool.padding_w + j);
}

bool inside(const Window& w, int64_t row, int64_t column) {
  return row >= 0 && row < w.x[2] && column >= 0 && column < w.x[3];
}

void add_adaptive(std::vector<OpCase>& cases, const std::string& variant, const Shape& x, int64_t out_h,
                  int64_t out_w) {
  cases.push_back({.name = "adaptive_avg_pool2d." + variant,
                   .inputs = {{x}},
                   .run = [=](const Variables& v) { return Variables{adaptive_avg_pool2d(v[0], out_h, out_w)}; },
                   .reference =
                       [=](const Arrays& a) {
                         return Arrays{fill({x[0], x[1], out_h, out_w}, [&](const Index& y) {
                           // From floor(i H / O) up to ceil((i + 1) H / O).
                           const int64_t top = y[2] * x[2] / out_h, bottom = ((y[2] + 1) * x[2] + out_h - 1) / out_h;
                           const int64_t left = y[3] * x[3] / out_w, right = ((y[3] + 1) * x[3] + out_w - 1) / out_w;
                           double sum = 0;
                           for (int64_t i = top; i < bottom; ++i)
                             for (int64_t j = left; j < right; ++j) sum += a[0]({y[0], y[1], i, j});
                           return sum / static_cast<double>((bottom - top) * (right - left));
                         })};
                       },
                   .terms = x[2] * x[3],
                   .scale = 2});
}

}  // namespace

void add_pooling(std::vector<OpCase>& cases) {
  for (const Window& w : kWindows) {
    cases.push_back({.name = "max_pool2d." + w.variant,
                     // Negative values too: padding must never win.
                     .inputs = {{.shape = w.x, .low = -3, .high = 1, .distinct = true}},
                     .run = [=](const Variables& v) { return Variables{max_pool2d(v[0], w.pool)}; },
                     .reference =
                         [=](const Arrays& a) {
                           return Arrays{fill(w.y(), [&](const Index& y) {
                             double best = -std::numeric_limits<double>::infinity();
                             for_each_place(w, y, [&](int64_t i, int64_t j) {
                               if (inside(w, i, j)) best = std::max(best, a[0]({y[0], y[1], i, j}));
                             });
                             return best;
                           })};
                         }});
    cases.push_back({.name = "avg_pool2d." + w.variant,
                     .inputs = {{w.x}},
                     .run = [=](const Variables& v) { return Variables{avg_pool2d(v[0], w.pool)}; },
                     .reference =
                         [=](const Arrays& a) {
                           return Arrays{fill(w.y(), [&](const Index& y) {
                             double sum = 0;
                             for_each_place(w, y, [&](int64_t i, int64_t j) {
                               if (inside(w, i, j)) sum += a[0]({y[0], y[1], i, j});
                             });
                             return sum / static_cast<double>(w.pool.kernel_h * w.pool.kernel_w);
                           })};
                         },
                     .terms = w.pool.kernel_h * w.pool.kernel_w,
                     .scale = 2});
  }
  add_adaptive(cases, "divides", {2, 3, 4, 6}, 2, 3);
  add_adaptive(cases, "overlaps", {1, 2, 7, 5}, 3, 2);
  add_adaptive(cases, "one", {2, 3, 5, 4}, 1, 1);
  add_adaptive(cases, "same", {1, 2, 3, 4}, 3, 4);
  add_adaptive(cases, "grows", {1, 2, 2, 3}, 4, 5);
}

}  // namespace espalier::op_cases
