// Signals: the first asks, the second ends the process, and SIGTERM that nobody obeys ends it too.
#include <chrono>
#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "training/interrupt.h"

namespace espalier {
namespace {

/// A process under a guard; it does its work and then idles without asking whether it should stop.
pid_t start(void (*work)()) {
  const pid_t child = fork();
  if (child != 0) return child;
  const InterruptGuard guard;
  work();
  for (;;) pause();
}

/// The signal that ended it; 0 when it is still running.
int ended_by(pid_t child, int options) {
  int status = 0;
  return waitpid(child, &status, options) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(Interrupt, ASecondSignalEndsTheProcess) {
  EXPECT_EQ(ended_by(start([] { raise(SIGTERM), raise(SIGTERM); }), 0), SIGTERM);
  EXPECT_EQ(ended_by(start([] { raise(SIGINT), raise(SIGINT); }), 0), SIGINT);
}

TEST(Interrupt, TerminationThatNobodyObeysEndsTheProcessAfterTenSeconds) {
  const auto begin = std::chrono::steady_clock::now();
  const pid_t deaf = start([] { raise(SIGTERM); }), hung_up = start([] { raise(SIGHUP); });
  const pid_t obeying = start([] { raise(SIGTERM), InterruptGuard::requested(); });
  const pid_t by_hand = start([] { raise(SIGINT); });  // whoever pressed Ctrl-C can press it again
  EXPECT_EQ(ended_by(deaf, 0), SIGTERM);
  EXPECT_EQ(ended_by(hung_up, 0), SIGTERM);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(seconds.count(), 9);
  EXPECT_LT(seconds.count(), 60);
  sleep(1);
  for (const pid_t child : {obeying, by_hand}) {
    EXPECT_EQ(ended_by(child, WNOHANG), 0);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
}

}  // namespace
}  // namespace espalier
