#include "core/threads.h"

#include <algorithm>
#include <atomic>

#include "core/error.h"

namespace espalier {
namespace {

/// Never more than OMP_THREAD_LIMIT: OpenBLAS waits forever for threads that OpenMP doesn't start.
int within_limit(int threads) { return std::min(threads, omp_get_thread_limit()); }

/// OpenMP reads OMP_NUM_THREADS, else counts the cores of the affinity mask. The first call keeps that number,
/// because omp_get_max_threads() answers for the calling thread only and changes inside parallel regions.
std::atomic<int>& thread_count() {
  static std::atomic<int> count = within_limit(omp_get_max_threads());
  return count;
}

/// Asks before main(), when no parallel region can be running yet.
[[maybe_unused]] const int kStartThreads = thread_count();

}  // namespace

int num_threads() { return thread_count().load(std::memory_order_relaxed); }

void set_num_threads(int threads) {
  check(threads >= 1, "set_num_threads", "expected at least 1 thread, got {}", threads);
  threads = within_limit(threads);
  thread_count().store(threads, std::memory_order_relaxed);
  omp_set_num_threads(threads);  // OpenBLAS shares the pool and takes this number
}

}  // namespace espalier
