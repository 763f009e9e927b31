// The 1,797 digits that are part of the library, so that lessons and tests need no file.
#pragma once

#include "datasets/dataset.h"

namespace espalier {

/// All 1,797 images in UCI's order, u8 (1797,1,8,8): the original 0..16 scaled to 0..255.
Dataset all_digits();

/// The split of load_dataset("digits"): ordered by class, then by position, every 1797/360-th image is for testing:
/// 1,437 for training, 360 for testing, each class with its share to within one.
Splits load_digits();

}  // namespace espalier
