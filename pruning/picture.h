// Pictures of masks as PNG files.
#pragma once

#include <string>

#include "core/mask.h"

namespace espalier {

/// A mask as a grey picture, one square of `scale` pixels for each weight: dark where weights exist, light where they
/// are masked; rows are the weight's axis 0, columns all its other axes. A weight with more than `largest` rows or
/// columns is averaged down to that many: the darker, the denser. Writes atomically. Throws FileError when it cannot.
void save_mask_png(const std::string& path, const Mask& mask, int scale = 2, int largest = 1024);

}  // namespace espalier
