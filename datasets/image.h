// PNG files and the u8 images (C,H,W) that networks are fed.
#pragma once

#include <string>

#include "core/tensor.h"

namespace espalier {

/// Reads a PNG as 8-bit RGB, u8 (3,H,W); transparency shows white. Nothing in the file is trusted: at most 64 MiB and
/// 40 million pixels. Throws FileError with the path and what is wrong.
Tensor read_png(const std::string& path);
/// Writes u8 (1,H,W) or (3,H,W). A PNG image that is there is replaced. Throws when anything else is there, such as a
/// network whose name was given by mistake, and FileError when the file can't be written.
void write_png(const std::string& path, const Tensor& image);

/// u8 (3,H,W) -> (1,H,W), luma 0.299 R + 0.587 G + 0.114 B (Rec. 601); or (1,H,W) -> (3,H,W), three equal channels.
Tensor to_channels(const Tensor& image, int64_t channels);
/// 255 - x.
Tensor inverted(const Tensor& image);
/// Mean of the outermost pixels of all channels, in [0,1].
double border_brightness(const Tensor& image);
/// u8 (C,H,W) -> (C,height,width): scaled to fit with the aspect ratio kept, centred on the mean colour of its border.
/// The filter is a triangle that widens when an image shrinks (bilinear, without aliasing).
Tensor fitted(const Tensor& image, int64_t height, int64_t width);

}  // namespace espalier
