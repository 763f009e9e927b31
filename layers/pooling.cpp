#include "layers/pooling.h"

#include "layers/config_reader.h"

namespace espalier {

WindowPool2d::WindowPool2d(const char* type, const Pool2dOptions& options) : options_(options) {
  if (options_.stride == Size2d(0)) options_.stride = options_.kernel;
  const auto& [kernel, stride, padding] = options_;
  check(kernel.h > 0 && kernel.w > 0, type, "expected a positive kernel, got {}", kernel.to_string());
  check(stride.h > 0 && stride.w > 0, type, "expected a positive stride, got {}", stride.to_string());
  check(padding.h >= 0 && padding.w >= 0 && padding.h <= kernel.h / 2 && padding.w <= kernel.w / 2, type,
        "expected padding from 0 to half the kernel, got padding {} with kernel {}", padding.to_string(),
        kernel.to_string());
}

Pool2dShape WindowPool2d::shape_for(const Variable& x) const {
  const auto& [kernel, stride, padding] = options_;
  if (x.rank() != 4) fail(label(), "expected images (N,C,H,W), got {}", x.shape());
  if (x.size(2) + 2 * padding.h < kernel.h || x.size(3) + 2 * padding.w < kernel.w)
    fail(label(), "a window of {} does not fit the input {} with padding {}; use larger images or fewer poolings",
         kernel.to_string(), x.shape(), padding.to_string());
  return {.kernel_h = kernel.h,
          .kernel_w = kernel.w,
          .stride_h = stride.h,
          .stride_w = stride.w,
          .padding_h = padding.h,
          .padding_w = padding.w};
}

nlohmann::json WindowPool2d::config() const {
  return {{"type", type()},
          {"kernel", to_json(options_.kernel)},
          {"stride", to_json(options_.stride)},
          {"padding", to_json(options_.padding)}};
}

namespace {
template <class Pool>
ModulePtr pool_from(const nlohmann::json& config) {
  ConfigReader reader(config);
  const Pool2dOptions options{.kernel = reader.size2d("kernel", 2),
                              .stride = reader.size2d("stride", 0),
                              .padding = reader.size2d("padding", 0)};
  reader.finish();
  return std::make_shared<Pool>(options);
}
}  // namespace

ModulePtr MaxPool2d::from_config(const nlohmann::json& config) { return pool_from<MaxPool2d>(config); }
ModulePtr AvgPool2d::from_config(const nlohmann::json& config) { return pool_from<AvgPool2d>(config); }

AdaptiveAvgPool2d::AdaptiveAvgPool2d(AdaptiveAvgPool2dOptions options) : options_(options) {
  check(options.output.h > 0 && options.output.w > 0, "AdaptiveAvgPool2d", "expected a positive output size, got {}",
        options.output.to_string());
}

Variable AdaptiveAvgPool2d::forward(const Variable& x) {
  if (x.rank() != 4) fail(label(), "expected images (N,C,H,W), got {}", x.shape());
  return adaptive_avg_pool2d(x, options_.output.h, options_.output.w);
}

nlohmann::json AdaptiveAvgPool2d::config() const { return {{"type", type()}, {"output", to_json(options_.output)}}; }

ModulePtr AdaptiveAvgPool2d::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const AdaptiveAvgPool2dOptions options{.output = reader.size2d("output", 1)};
  reader.finish();
  return std::make_shared<AdaptiveAvgPool2d>(options);
}

}  // namespace espalier
