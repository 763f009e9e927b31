// Ctrl-C as a request to stop in good order.
#pragma once

namespace espalier {

/// While alive, the first SIGINT, SIGTERM or SIGHUP only sets a flag; a second one ends the process as usual. Who sends
/// SIGTERM or SIGHUP isn't there to send it twice: when nobody asks requested() for ten seconds, it ends the process
/// all the same. Signals that are ignored (nohup) stay ignored. The handlers that were there before come back at the
/// end.
class InterruptGuard {
 public:
  /// With `active` false it does nothing.
  explicit InterruptGuard(bool active = true);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// Whether a signal came since the outermost guard was made. Whoever asks is expected to obey.
  static bool requested();

 private:
  bool active_;
};

}  // namespace espalier
