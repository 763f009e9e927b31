// Convolution and its gradients in GFLOP/s (2 per multiply-add), beside im2col with OpenBLAS on the same threads,
// on the layers of ResNet-20 and VGG (CIFAR-10), LeNet-5 (MNIST) and MobileNet (depthwise).
//
//   conv2d_benchmark --benchmark_filter=resnet --benchmark_min_time=0.5

#include <algorithm>
#include <vector>

#include <benchmark/benchmark.h>
#include <cblas.h>
#include <fmt/format.h>

#include "core/kernels.h"
#include "core/tensor.h"
#include "core/threads.h"

namespace espalier {
namespace {

struct Layer {
  const char* name;
  int64_t n, c, size, f, kernel;
  Conv2dShape shape;

  int64_t out_size() const { return (size + 2 * shape.padding_h - kernel) / shape.stride_h + 1; }
  int64_t depth() const { return c / shape.groups * kernel * kernel; }
  double flops() const { return 2.0 * static_cast<double>(n * f * out_size() * out_size() * depth()); }
};

constexpr Conv2dShape same3(int64_t stride = 1, int64_t groups = 1) {
  return {.stride_h = stride, .stride_w = stride, .padding_h = 1, .padding_w = 1, .groups = groups};
}

const Layer kLayers[] = {
    {"resnet20_first_3x32_16", 128, 3, 32, 16, 3, same3()},
    {"resnet20_16x32_16", 128, 16, 32, 16, 3, same3()},
    {"resnet20_16x32_32_stride2", 128, 16, 32, 32, 3, same3(2)},
    {"resnet20_32x16_32", 128, 32, 16, 32, 3, same3()},
    {"resnet20_32x16_64_stride2", 128, 32, 16, 64, 3, same3(2)},
    {"resnet20_64x8_64", 128, 64, 8, 64, 3, same3()},
    {"lenet_1x28_20", 128, 1, 28, 20, 5, {}},
    {"lenet_20x12_50", 128, 20, 12, 50, 5, {}},
    {"vgg_64x32_64", 64, 64, 32, 64, 3, same3()},
    {"vgg_256x8_256", 64, 256, 8, 256, 3, same3()},
    {"vgg_512x4_512", 64, 512, 4, 512, 3, same3()},
    {"vgg_512x2_512", 64, 512, 2, 512, 3, same3()},
    {"pointwise_64x16_128", 64, 64, 16, 128, 1, {}},
    {"depthwise_64x16", 64, 64, 16, 64, 3, same3(1, 64)},
    {"batch1_64x32_64", 1, 64, 32, 64, 3, same3()},
};

enum class Pass { forward, input_grad, weight_grad };

struct Operands {
  explicit Operands(const Layer& l)
      : x(Tensor::full({l.n, l.c, l.size, l.size}, 0.5)),
        w(Tensor::full({l.f, l.c / l.shape.groups, l.kernel, l.kernel}, 0.25)),
        y(Tensor::full({l.n, l.f, l.out_size(), l.out_size()}, 0.125)) {}
  Tensor x, w, y;
};

void report(benchmark::State& state, const Layer& layer) {
  state.counters["GFLOP/s"] = benchmark::Counter(layer.flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void espalier_conv2d(benchmark::State& state, const Layer& layer, Pass pass) {
  Operands o(layer);
  const Kernels& k = kernels(Device::cpu());
  for (auto _ : state) {
    switch (pass) {
      case Pass::forward: k.conv2d(o.x, o.w, Tensor(), layer.shape, o.y); break;
      case Pass::input_grad: k.conv2d_input_grad(o.y, o.w, layer.shape, o.x); break;
      case Pass::weight_grad: k.conv2d_weight_grad(o.y, o.x, layer.shape, o.w); break;
    }
  }
  report(state, layer);
}

// --- the usual way: the gathered matrix of one image in memory, then one BLAS product -------------------------

/// Calls f(column of the matrix, image row and column) for each tap inside the image.
template <class F>
void for_each_tap(const Layer& l, int64_t kh, int64_t kw, F&& f) {
  const int64_t out = l.out_size();
  for (int64_t oh = 0; oh < out; ++oh) {
    const int64_t h = oh * l.shape.stride_h + kh - l.shape.padding_h;
    if (h < 0 || h >= l.size) continue;
    for (int64_t ow = 0; ow < out; ++ow) {
      const int64_t w = ow * l.shape.stride_w + kw - l.shape.padding_w;
      if (w >= 0 && w < l.size) f(oh * out + ow, h * l.size + w);
    }
  }
}

void im2col(const Layer& l, const float* image, float* columns) {
  const int64_t pixels = l.out_size() * l.out_size();
  std::fill(columns, columns + l.depth() * pixels, 0.0F);
  for (int64_t k = 0; k < l.depth(); ++k) {
    const float* plane = image + k / (l.kernel * l.kernel) * l.size * l.size;
    for_each_tap(l, k / l.kernel % l.kernel, k % l.kernel,
                 [&](int64_t column, int64_t pixel) { columns[k * pixels + column] = plane[pixel]; });
  }
}

void col2im(const Layer& l, const float* columns, float* image) {
  const int64_t pixels = l.out_size() * l.out_size();
  std::fill(image, image + l.c * l.size * l.size, 0.0F);
  for (int64_t k = 0; k < l.depth(); ++k) {
    float* plane = image + k / (l.kernel * l.kernel) * l.size * l.size;
    for_each_tap(l, k / l.kernel % l.kernel, k % l.kernel,
                 [&](int64_t column, int64_t pixel) { plane[pixel] += columns[k * pixels + column]; });
  }
}

/// Images in parallel; OpenBLAS then runs each product on the calling thread.
void openblas_conv2d(benchmark::State& state, const Layer& l, Pass pass) {
  Operands o(l);
  const int pixels = static_cast<int>(l.out_size() * l.out_size()), depth = static_cast<int>(l.depth());
  const int f = static_cast<int>(l.f);
  const int threads = num_threads();
  std::vector<std::vector<float>> columns(static_cast<size_t>(threads)), partial(static_cast<size_t>(threads));
  for (auto _ : state) {
    float *x = o.x.data<float>(), *w = o.w.data<float>(), *y = o.y.data<float>();
#pragma omp parallel num_threads(threads)
    {
      const size_t me = static_cast<size_t>(omp_get_thread_num());
      columns[me].resize(static_cast<size_t>(depth) * static_cast<size_t>(pixels));
      partial[me].assign(static_cast<size_t>(f) * static_cast<size_t>(depth), 0.0F);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < l.n; ++i) {
        float *image = x + i * l.c * l.size * l.size, *out = y + i * l.f * pixels, *matrix = columns[me].data();
        switch (pass) {
          case Pass::forward:  // (F,K)(K,P) -> (F,P)
            im2col(l, image, matrix);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, f, pixels, depth, 1, w, depth, matrix, pixels, 0,
                        out, pixels);
            break;
          case Pass::input_grad:  // (F,K)^T (F,P) -> (K,P)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, depth, pixels, f, 1, w, depth, out, pixels, 0, matrix,
                        pixels);
            col2im(l, matrix, image);
            break;
          case Pass::weight_grad:  // (F,P)(K,P)^T -> (F,K)
            im2col(l, image, matrix);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, f, depth, pixels, 1, out, pixels, matrix, pixels, 1,
                        partial[me].data(), depth);
            break;
        }
      }
    }
    if (pass == Pass::weight_grad) {
      for (int64_t i = 0; i < o.w.numel(); ++i) {
        w[i] = 0;
        for (const std::vector<float>& p : partial) w[i] += p.empty() ? 0 : p[static_cast<size_t>(i)];
      }
    }
  }
  report(state, l);
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  using namespace espalier;
  benchmark::Initialize(&argc, argv);
  const std::pair<const char*, Pass> passes[] = {
      {"forward", Pass::forward}, {"input_grad", Pass::input_grad}, {"weight_grad", Pass::weight_grad}};
  for (const Layer& layer : kLayers) {
    for (const auto& [name, pass] : passes) {
      benchmark::RegisterBenchmark(fmt::format("{}/{}/espalier", layer.name, name).c_str(), espalier_conv2d, layer,
                                   pass)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
      if (layer.shape.groups > 1) continue;  // one BLAS call does not do groups
      benchmark::RegisterBenchmark(fmt::format("{}/{}/openblas", layer.name, name).c_str(), openblas_conv2d, layer,
                                   pass)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
