// Under a tight limit of memory (ulimit -v) OpenBLAS asks for a buffer for each of its threads, for ever, while it is
// being loaded: before main() and before any constructor of ours. Only what stands in .preinit_array runs earlier. The
// first product needs one buffer more.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/matmul_memory.h"

namespace {

/// Threads that OpenBLAS will prepare for: what the first of its variables says, at most one for each processor.
int openblas_threads(char** environment) {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  const int most = sched_getaffinity(0, sizeof(processors), &processors) == 0 ? std::max(1, CPU_COUNT(&processors)) : 1;
  for (const std::string_view name : {"OPENBLAS_NUM_THREADS=", "GOTO_NUM_THREADS=", "OMP_NUM_THREADS="})
    for (char** entry = environment; *entry != nullptr; ++entry)
      if (std::string_view(*entry).starts_with(name))
        if (const int asked = std::atoi(*entry + name.size()); asked > 0) return std::min(asked, most);
  return most;
}

void check_room_for_openblas(int, char**, char** environment) {
  struct rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const int threads = openblas_threads(environment), buffers = threads + 1;
  const size_t bytes = static_cast<size_t>(buffers) * espalier::kMatmulBufferBytes;
  void* room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room != MAP_FAILED) {
    munmap(room, bytes);
    return;
  }
  char text[400];
  const int length = std::snprintf(
      text, sizeof(text),
      "espalier: [espalier] expected room for %d buffers of %zu MiB, which OpenBLAS needs for %d thread%s, found less: "
      "the limit of memory, %zu MiB, is too tight; raise it (ulimit -v), or take fewer threads (OMP_NUM_THREADS=1)\n",
      buffers, espalier::kMatmulBufferBytes >> 20, threads, threads == 1 ? "" : "s",
      static_cast<size_t>(limit.rlim_cur >> 20));
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(length));
  _exit(2);  // as when a device is missing: this machine can't do it
}

[[gnu::section(".preinit_array"), gnu::used]] void (*first_of_all)(int, char**, char**) = check_room_for_openblas;

}  // namespace
