#include "training/interrupt.h"

#include <array>
#include <csignal>

#include <unistd.h>

namespace espalier {

namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
volatile std::sig_atomic_t g_requested = 0;
int g_guards = 0;
std::array<struct sigaction, kSignals.size()> g_before;

extern "C" void espalier_on_interrupt(int signal) {
  if (g_requested != 0) {
    std::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  g_requested = 1;
  // Only write(2) is safe here.
  constexpr char kMessage[] = "\ninterrupted: finishing this step and saving; once more to stop at once\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
}

}  // namespace

InterruptGuard::InterruptGuard(bool active) : active_(active) {
  if (!active_ || g_guards++ > 0) return;
  g_requested = 0;
  struct sigaction action {};
  action.sa_handler = espalier_on_interrupt;
  action.sa_flags = SA_RESTART;  // a read or write under way is not cut short
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &action, &g_before[i]);
    // What is ignored stays ignored: nohup, or a shell's background job.
    if (g_before[i].sa_handler == SIG_IGN) sigaction(kSignals[i], &g_before[i], nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  if (!active_ || --g_guards > 0) return;
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &g_before[i], nullptr);
  g_requested = 0;
}

bool InterruptGuard::requested() { return g_requested != 0; }

}  // namespace espalier
