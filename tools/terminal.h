// Pictures and bars made of characters.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.h"

namespace espalier::tools {

enum class Palette {
  ascii,      ///< a ramp of characters, for anything
  colour256,  ///< half blocks in xterm's 256 colours
  truecolour  ///< half blocks in 24-bit colour
};

/// What a stream can show: colours only on a terminal that announces them (COLORTERM, TERM), unless NO_COLOR is set.
Palette palette_of(std::FILE* stream);
/// "auto", "ascii" or "colour". Throws on anything else.
Palette parse_palette(const std::string& text, std::FILE* stream);

/// Columns of a terminal, 80 elsewhere.
int columns_of(std::FILE* stream);

/// An image u8 (1,H,W) or (3,H,W) as lines of W characters, two rows of pixels a line.
std::vector<std::string> draw(const Tensor& image, Palette palette);

/// A space and `fraction` of `width` characters filled; nothing for next to nothing.
std::string bar(double fraction, int width, Palette palette);

}  // namespace espalier::tools
