// What a person sees while a training runs: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace espalier {

enum class ProgressMode : uint8_t {
  automatic,  ///< a bar if stderr is a terminal, else lines
  bar,
  lines,  ///< only the line at the end of each epoch
  silent,
};

/// "epoch 3/10  [=========>          ]  47%  12,345 images/s  0:42 left  loss 0.1234", at most `width` columns: the bar
/// shrinks first, then the text is cut. `done` of `total` images after `seconds`, of which `skipped` were done before.
std::string render_progress(const std::string& label, int64_t done, int64_t total, int64_t skipped, double seconds,
                            const std::string& text, int width);

/// "0:42", "12:05", "1:02:03".
std::string format_duration(double seconds);

/// Progress of one pass after another; written to stderr, or as lines to `log`.
class Progress {
 public:
  explicit Progress(ProgressMode mode = ProgressMode::automatic, std::function<void(const std::string&)> log = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Starts a pass over `total` images, of which `skipped` were done in an earlier run.
  void begin(std::string label, int64_t total, int64_t skipped = 0);
  /// `text` is only called when something is drawn: at most ten times a second.
  void update(int64_t done, const std::function<std::string()>& text);
  /// Removes the bar.
  void end();
  /// Removes the bar and writes a line that stays.
  void line(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  bool bar_ = false, silent_ = false, drawn_ = false;
  std::function<void(const std::string&)> log_;
  std::string label_;
  int64_t total_ = 0, skipped_ = 0;
  Clock::time_point started_, last_;
};

}  // namespace espalier
