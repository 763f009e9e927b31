// Threads: OpenMP, the same pool as OpenBLAS, so that nothing is oversubscribed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#include <omp.h>

namespace espalier {

/// Threads that kernels use. Default: OMP_NUM_THREADS, else the cores this process may run on.
int num_threads();
/// At most OMP_THREAD_LIMIT of them.
void set_num_threads(int threads);

/// Takes what OpenBLAS needs to work with num_threads() threads: 128 MiB of address space for each of them. Matrix
/// products do it by themselves; called at the start of a program, it says there what can't work. Throws
/// UnavailableError under a limit (ulimit -v) that is too tight: OpenBLAS itself would ask for the memory for ever.
void reserve_matmul_memory();

/// Calls f(begin, end) on disjoint ranges covering [0, n), at least `grain` elements each, on several threads.
/// The ranges depend only on n, grain and the number of threads, so results are the same run after run.
/// Inside another parallel region it runs on the calling thread. An exception in f is rethrown here.
template <class F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int64_t wanted = std::min<int64_t>(num_threads(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (wanted <= 1 || omp_in_parallel()) {
    f(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(static_cast <int>(wanted))
  {
    // OpenMP may give fewer threads than asked for; split by what came.
    const int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t begin = n * me / threads, end = n * (me + 1) / threads;
    try {
      if (begin < end) f(begin, end);
    } catch (...) {
#pragma omp critical(espalier_parallel_for)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace espalier
