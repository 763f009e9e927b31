// A kernel from somebody's library, run in a process of its own: what crashes, hangs or reads out of bounds there is
// named and doesn't end the benchmark.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "core/sparse/csr.h"

namespace espalier {

class ForeignKernel {
 public:
  /// Starts the process and loads the library there. Make it before this process has run kernels on several threads: an
  /// OpenMP pool doesn't survive a fork. Throws UnavailableError when the library lacks the interface of
  /// core/sparse/spmm_api.h.
  explicit ForeignKernel(const std::string& library);
  ~ForeignKernel();
  ForeignKernel(const ForeignKernel&) = delete;
  ForeignKernel& operator=(const ForeignKernel&) = delete;

  /// Makes a plan for A times X (columns, n). Its inputs end where no memory is: reading past them is a crash. Returns
  /// the seconds that the plan took; nothing when the library doesn't support it. From here on all calls throw
  /// UnavailableError when the process crashed or did not answer within a minute.
  std::optional<double> prepare(const Csr& a, const std::vector<float>& x, int64_t n, int threads);
  /// Y (rows, n) of one call.
  std::vector<float> output(bool packed);
  /// Seconds of one call, the mean over `calls`.
  double time(bool packed, int64_t calls);

  const std::string& name() const { return name_; }

 private:
  template <class T>
  void send(const std::vector<T>& values);
  template <class T>
  void send(const T& value);
  template <class T>
  T receive();
  void write_all(const void* data, size_t bytes);
  void read_all(void* data, size_t bytes);
  [[noreturn]] void fail_dead();
  /// Ends the process.
  void stop();

  std::string name_;
  pid_t process_ = -1;
  int to_ = -1, from_ = -1;
  int64_t outputs_ = 0;
};

}  // namespace espalier
