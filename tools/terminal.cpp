#include "tools/terminal.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <sys/ioctl.h>
#include <unistd.h>

#include "core/error.h"

namespace espalier::tools {

namespace {

constexpr std::string_view kRamp = " .:-=+*#%@";
constexpr const char *kUpperHalf = "\u2580", *kFull = "\u2588", *kReset = "\x1b[0m";
constexpr std::array<const char*, 8> kEighths = {"",       "\u258f", "\u258e", "\u258d",
                                                 "\u258c", "\u258b", "\u258a", "\u2589"};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

using Rgb = std::array<int, 3>;

/// The nearest of xterm's 6x6x6 cube and 24 greys.
int xterm_colour(const Rgb& c) {
  if (c[0] == c[1] && c[1] == c[2]) {
    if (c[0] < 4) return 16;
    if (c[0] > 246) return 231;
    return 232 + std::min((c[0] - 3) / 10, 23);
  }
  const auto level = [](int v) { return v < 48 ? 0 : v < 115 ? 1 : (v - 35) / 40; };
  return 16 + 36 * level(c[0]) + 6 * level(c[1]) + level(c[2]);
}

std::string colour_code(const Rgb& c, bool foreground, Palette palette) {
  const int kind = foreground ? 38 : 48;
  return palette == Palette::truecolour ? fmt::format("\x1b[{};2;{};{};{}m", kind, c[0], c[1], c[2])
                                        : fmt::format("\x1b[{};5;{}m", kind, xterm_colour(c));
}

}  // namespace

Palette palette_of(std::FILE* stream) {
  if (isatty(fileno(stream)) == 0 || !environment("NO_COLOR").empty()) return Palette::ascii;
  const std::string colour = environment("COLORTERM"), terminal = environment("TERM");
  if (colour == "truecolor" || colour == "24bit") return Palette::truecolour;
  return terminal.find("256color") != std::string::npos ? Palette::colour256 : Palette::ascii;
}

Palette parse_palette(const std::string& text, std::FILE* stream) {
  const Palette found = palette_of(stream);
  if (text == "auto") return found;
  if (text == "ascii") return Palette::ascii;
  check(text == "colour", "style", "expected auto, ascii or colour, got '{}'{}", text,
        did_you_mean(text, {"auto", "ascii", "colour"}));
  return found == Palette::ascii ? Palette::colour256 : found;
}

int columns_of(std::FILE* stream) {
  constexpr int kDefault = 80;
  winsize size{};
  return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefault;
}

std::vector<std::string> draw(const Tensor& image, Palette palette) {
  check(image.rank() == 3 && image.dtype() == DType::u8 && (image.size(0) == 1 || image.size(0) == 3), "draw",
        "expected u8 (1,H,W) or (3,H,W), got {}", describe(image));
  const Tensor source = image.contiguous();
  const auto* pixels = source.data<uint8_t>();
  const int64_t c = image.size(0), h = image.size(1), w = image.size(2);
  const auto at = [&](int64_t y, int64_t x) -> Rgb {
    if (y >= h) return {0, 0, 0};
    const auto channel = [&](int64_t k) { return int{pixels[((c == 3 ? k : 0) * h + y) * w + x]}; };
    return {channel(0), channel(1), channel(2)};
  };
  const auto luma = [](const Rgb& p) { return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]; };

  std::vector<std::string> lines;
  for (int64_t y = 0; y < h; y += 2) {
    std::string line, current;
    for (int64_t x = 0; x < w; ++x) {
      const Rgb upper = at(y, x), lower = at(y + 1, x);
      if (palette == Palette::ascii) {
        const double level = y + 1 < h ? (luma(upper) + luma(lower)) / 2 : luma(upper);
        line += kRamp[static_cast<size_t>(std::lround(level / 255 * static_cast<double>(kRamp.size() - 1)))];
        continue;
      }
      const std::string code = colour_code(upper, true, palette) + colour_code(lower, false, palette);
      if (code != current) line += current = code;
      line += kUpperHalf;
    }
    if (palette != Palette::ascii) line += kReset;
    lines.push_back(line);
  }
  return lines;
}

std::string bar(double fraction, int width, Palette palette) {
  const double filled = std::clamp(std::isfinite(fraction) ? fraction : 0.0, 0.0, 1.0) * width;
  if (std::lround(filled * 8) == 0) return "";
  if (palette == Palette::ascii)
    return std::string(1, ' ').append(static_cast<size_t>(std::max(1L, std::lround(filled))), '#');
  const auto eighths = static_cast<int>(std::lround(filled * 8));
  std::string text = " ";
  for (int i = 0; i < eighths / 8; ++i) text += kFull;
  return text + kEighths[static_cast<size_t>(eighths % 8)];
}

}  // namespace espalier::tools
