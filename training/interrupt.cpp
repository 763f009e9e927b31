#include "training/interrupt.h"

#include <array>
#include <csignal>
#include <ctime>

#include <unistd.h>

namespace espalier {

namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
constexpr time_t kPatience = 10;  // seconds that a process has to obey SIGTERM or SIGHUP

volatile std::sig_atomic_t g_requested = 0;
int g_guards = 0;
std::array<struct sigaction, kSignals.size()> g_before;

// Sends the second signal.
timer_t g_timer;
volatile std::sig_atomic_t g_has_timer = 0, g_timer_runs = 0;

void set_timer(time_t seconds) {
  struct itimerspec when = {};
  when.it_value.tv_sec = seconds;  // 0: off
  timer_settime(g_timer, 0, &when, nullptr);
  g_timer_runs = seconds > 0;
}

// Only what POSIX calls safe in a handler: write, timer_settime, signal, raise.
extern "C" void espalier_on_interrupt(int signal) {
  if (g_requested != 0) {
    std::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  g_requested = 1;
  if (signal != SIGINT && g_has_timer != 0) set_timer(kPatience);
  constexpr char kMessage[] = "\ninterrupted: finishing this step and saving; once more to stop at once\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
}

}  // namespace

InterruptGuard::InterruptGuard(bool active) : active_(active) {
  if (!active_ || g_guards++ > 0) return;
  g_requested = 0;
  struct sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGTERM;
  g_has_timer = timer_create(CLOCK_MONOTONIC, &event, &g_timer) == 0;
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
  if (g_has_timer != 0) timer_delete(g_timer);
  g_has_timer = g_timer_runs = 0;
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &g_before[i], nullptr);
  g_requested = 0;
}

bool InterruptGuard::requested() {
  if (g_timer_runs != 0) set_timer(0);
  return g_requested != 0;
}

}  // namespace espalier
