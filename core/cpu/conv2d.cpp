// 2-D convolution: f32 goes to the fast kernels (conv2d_f32.cpp); here are the plain loops that f64 takes, which
// are the reference for the others: they say the definition and nothing else.

#include <algorithm>
#include <type_traits>

#include "core/cpu/conv2d_f32.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

/// Calls f(oh, ow, ih, iw) for the output pixels whose input under kernel position (kh, kw) is inside the image.
template <class F>
void for_each_pixel(const Conv2dSizes& s, int64_t kh, int64_t kw, F&& f) {
  for (int64_t oh = 0; oh < s.oh; ++oh) {
    const int64_t ih = oh * s.shape.stride_h - s.shape.padding_h + kh * s.shape.dilation_h;
    if (ih < 0 || ih >= s.h) continue;
    for (int64_t ow = 0; ow < s.ow; ++ow) {
      const int64_t iw = ow * s.shape.stride_w - s.shape.padding_w + kw * s.shape.dilation_w;
      if (iw >= 0 && iw < s.w) f(oh, ow, ih, iw);
    }
  }
}

template <class T>
void conv2d_loops(const Conv2dSizes& s, const T* x, const T* w, const T* bias, T* y) {
  parallel_for(s.n * s.f, 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t n = plane / s.f, f = plane % s.f, first_c = f / s.group_f * s.group_c;
      T* to = y + plane * s.oh * s.ow;
      std::fill(to, to + s.oh * s.ow, bias ? bias[f] : T{0});
      for (int64_t c = 0; c < s.group_c; ++c) {
        const T* from = x + (n * s.c + first_c + c) * s.h * s.w;
        for (int64_t kh = 0; kh < s.kh; ++kh) {
          for (int64_t kw = 0; kw < s.kw; ++kw) {
            const T weight = w[((f * s.group_c + c) * s.kh + kh) * s.kw + kw];
            for_each_pixel(s, kh, kw, [&](int64_t oh, int64_t ow, int64_t ih, int64_t iw) {
              to[oh * s.ow + ow] += weight * from[ih * s.w + iw];
            });
          }
        }
      }
    }
  });
}

template <class T>
void input_grad_loops(const Conv2dSizes& s, const T* dy, const T* w, T* dx) {
  parallel_for(s.n * s.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t n = plane / s.c, c = plane % s.c, group = c / s.group_c;
      T* to = dx + plane * s.h * s.w;
      std::fill(to, to + s.h * s.w, T{0});
      for (int64_t f = group * s.group_f; f < (group + 1) * s.group_f; ++f) {
        const T* from = dy + (n * s.f + f) * s.oh * s.ow;
        for (int64_t kh = 0; kh < s.kh; ++kh) {
          for (int64_t kw = 0; kw < s.kw; ++kw) {
            const T weight = w[((f * s.group_c + c % s.group_c) * s.kh + kh) * s.kw + kw];
            for_each_pixel(s, kh, kw, [&](int64_t oh, int64_t ow, int64_t ih, int64_t iw) {
              to[ih * s.w + iw] += weight * from[oh * s.ow + ow];
            });
          }
        }
      }
    }
  });
}

template <class T>
void weight_grad_loops(const Conv2dSizes& s, const T* dy, const T* x, T* dw) {
  parallel_for(s.f * s.group_c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t f = plane / s.group_c, c = f / s.group_f * s.group_c + plane % s.group_c;
      for (int64_t kh = 0; kh < s.kh; ++kh) {
        for (int64_t kw = 0; kw < s.kw; ++kw) {
          T sum = 0;
          for (int64_t n = 0; n < s.n; ++n) {
            const T* from = x + (n * s.c + c) * s.h * s.w;
            const T* grad = dy + (n * s.f + f) * s.oh * s.ow;
            for_each_pixel(s, kh, kw, [&](int64_t oh, int64_t ow, int64_t ih, int64_t iw) {
              sum += grad[oh * s.ow + ow] * from[ih * s.w + iw];
            });
          }
          dw[(plane * s.kh + kh) * s.kw + kw] = sum;
        }
      }
    }
  });
}

}  // namespace

void conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dShape& shape, Tensor& y) {
  const Conv2dSizes sizes(x, w, y, shape);
  dispatch_floating(x.dtype(), "conv2d", [&]<class T>(T) {
    const T* b = bias.defined() ? bias.data<T>() : nullptr;
    if constexpr (std::is_same_v<T, float>) {
      conv2d_f32(sizes, x.data<T>(), w.data<T>(), b, y.data<T>());
    } else {
      conv2d_loops(sizes, x.data<T>(), w.data<T>(), b, y.data<T>());
    }
  });
}

void conv2d_input_grad(const Tensor& dy, const Tensor& w, const Conv2dShape& shape, Tensor& dx) {
  const Conv2dSizes sizes(dx, w, dy, shape);
  dispatch_floating(dy.dtype(), "conv2d_input_grad", [&]<class T>(T) {
    if constexpr (std::is_same_v<T, float>) {
      conv2d_input_grad_f32(sizes, dy.data<T>(), w.data<T>(), dx.data<T>());
    } else {
      input_grad_loops(sizes, dy.data<T>(), w.data<T>(), dx.data<T>());
    }
  });
}

void conv2d_weight_grad(const Tensor& dy, const Tensor& x, const Conv2dShape& shape, Tensor& dw) {
  const Conv2dSizes sizes(x, dw, dy, shape);
  dispatch_floating(dy.dtype(), "conv2d_weight_grad", [&]<class T>(T) {
    if constexpr (std::is_same_v<T, float>) {
      conv2d_weight_grad_f32(sizes, dy.data<T>(), x.data<T>(), dw.data<T>());
    } else {
      weight_grad_loops(sizes, dy.data<T>(), x.data<T>(), dw.data<T>());
    }
  });
}

}  // namespace espalier::cpu
