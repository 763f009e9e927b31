#include "training/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace espalier {

namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr int kBarWidth = 30, kNarrowestBar = 8, kDefaultColumns = 80;

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

bool is_terminal() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && terminal != nullptr && std::string_view(terminal) != "dumb";
}

std::string with_thousands(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

/// Progress is worth no error: a stderr that is closed or full gets nothing.
void write(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(seconds, 0.0) + 0.5);
  const int64_t h = whole / 3600, m = whole / 60 % 60, s = whole % 60;
  return h > 0 ? fmt::format("{}:{:02}:{:02}", h, m, s) : fmt::format("{}:{:02}", m, s);
}

std::string render_progress(const std::string& label, int64_t done, int64_t total, int64_t skipped, double seconds,
                            const std::string& text, int width) {
  const double fraction = total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 1;
  const double rate = seconds > 0 ? static_cast<double>(done - skipped) / seconds : 0;
  std::string tail = fmt::format("{:4.0f}%  {} images/s", std::floor(fraction * 100), with_thousands(rate));
  if (rate > 0) tail += fmt::format("  {} left", format_duration(static_cast<double>(total - done) / rate));
  if (!text.empty()) tail += "  " + text;

  const int room = width - static_cast<int>(label.size() + tail.size()) - 4;  // two spaces, two brackets
  std::string bar;
  if (room >= kNarrowestBar) {
    const int cells = std::min(room, kBarWidth), full = static_cast<int>(fraction * cells);
    bar = fmt::format("  [{}{}{}]", std::string(static_cast<size_t>(full), '='), full < cells ? ">" : "",
                      std::string(static_cast<size_t>(std::max(cells - full - 1, 0)), ' '));
  }
  return (label + bar + tail).substr(0, static_cast<size_t>(std::max(width, 0)));
}

Progress::Progress(ProgressMode mode, std::function<void(const std::string&)> log)
    : bar_(mode == ProgressMode::bar || (mode == ProgressMode::automatic && !log && is_terminal())),
      silent_(mode == ProgressMode::silent),
      log_(std::move(log)) {}

Progress::~Progress() { end(); }

void Progress::begin(std::string label, int64_t total, int64_t skipped) {
  label_ = std::move(label);
  total_ = total;
  skipped_ = skipped;
  started_ = last_ = Clock::now();
}

void Progress::update(int64_t done, const std::function<std::string()>& text) {
  if (!bar_) return;
  const Clock::time_point now = Clock::now();
  if (now - last_ < kInterval) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  // One column stays free: a full last column wraps on some terminals.
  const std::string shown =
      render_progress(label_, done, total_, skipped_, seconds, text ? text() : "", terminal_width() - 1);
  write(fmt::format("\r{}\x1b[K", shown));
  drawn_ = true;
}

void Progress::end() {
  if (!drawn_) return;
  write("\r\x1b[K");
  drawn_ = false;
}

void Progress::line(const std::string& text) {
  end();
  if (silent_) return;
  if (log_) {
    log_(text);
  } else {
    write(text + "\n");
  }
}

}  // namespace espalier
