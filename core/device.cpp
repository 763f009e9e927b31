#include "core/device.h"

#include <charconv>

#include "core/error.h"

namespace espalier {

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda();
  if (text.starts_with("cuda:")) {
    const std::string_view digits = text.substr(5);
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc{} && end == digits.data() + digits.size() && index >= 0 && index < 128) return cuda(index);
  }
  fail("device", "expected 'cpu', 'cuda' or 'cuda:INDEX', got '{}'", text);
}

std::string Device::name() const {
  if (is_cpu()) return "cpu";
  return index_ == 0 ? "cuda" : fmt::format("cuda:{}", index_);
}

}  // namespace espalier
