// The embedded digits: a generated file, see scripts/make-digits.
#pragma once

#include <string_view>

namespace espalier {

/// Base64 of a zlib stream of 65 columns of 1,797 bytes: pixel 0 (0..16) of every image, ..., pixel 63, then the label.
extern const std::string_view kDigitsBase64;

}  // namespace espalier
