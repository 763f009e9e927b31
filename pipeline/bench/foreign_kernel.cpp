#include "pipeline/bench/foreign_kernel.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/sparse/spmm_api.h"
#include "pipeline/bench/clock.h"

namespace espalier {
namespace {

constexpr int kMostMilliseconds = 60'000;  // for one answer

/// Requests that the process answers.
enum class Request : char { prepare, output, output_packed, time, time_packed };

/// The library's functions; plans and packing may be all it has.
struct Library {
  decltype(&espalier_spmm_create) create = nullptr;
  decltype(&espalier_spmm_run) run = nullptr;
  decltype(&espalier_spmm_packed_floats) packed_floats = nullptr;
  decltype(&espalier_spmm_pack) pack = nullptr;
  decltype(&espalier_spmm_run_packed) run_packed = nullptr;
  decltype(&espalier_spmm_destroy) destroy = nullptr;
};

/// Elements that end where a page begins that nobody may read.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = count * sizeof(T);
    mapped_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + mapped_ - page, page, PROT_NONE) != 0) _exit(3);
    data_ = reinterpret_cast<T*>(base_ + mapped_ - page - bytes);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() const { return data_; }

 private:
  char* base_;
  size_t mapped_;
  T* data_;
};

void write_fully(int file, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = write(file, at, bytes);
    if (done <= 0) _exit(0);
    at += done;
    bytes -= static_cast<size_t>(done);
  }
}
void read_fully(int file, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t done = read(file, at, bytes);
    if (done <= 0) _exit(0);  // the benchmark is over
    at += done;
    bytes -= static_cast<size_t>(done);
  }
}
template <class T>
T read_value(int file) {
  T value;
  read_fully(file, &value, sizeof value);
  return value;
}
template <class T>
std::unique_ptr<Guarded<T>> read_guarded(int file) {
  const auto count = read_value<int64_t>(file);
  auto values = std::make_unique<Guarded<T>>(static_cast<size_t>(count));
  read_fully(file, values->data(), static_cast<size_t>(count) * sizeof(T));
  return values;
}

/// Its functions; `problem` says what is missing.
Library load(const std::string& path, std::string& problem) {
  Library library;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* error = dlerror();
    problem = error != nullptr ? error : "it can't be loaded";
    return library;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr && problem.empty()) problem = std::string("it has no function ") + name;
  };
  find(library.create, "espalier_spmm_create");
  find(library.run, "espalier_spmm_run");
  find(library.packed_floats, "espalier_spmm_packed_floats");
  find(library.pack, "espalier_spmm_pack");
  find(library.run_packed, "espalier_spmm_run_packed");
  find(library.destroy, "espalier_spmm_destroy");
  return library;
}

/// The other process: loads the library, says whether that went well, answers requests until the pipe closes.
[[noreturn]] void serve(const std::string& path, int in, int out) {
  // A crash ends this process by its signal, whatever handlers it has from us.
  for (const int crash : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) signal(crash, SIG_DFL);
  std::string problem;
  const Library library = load(path, problem);
  const auto length = static_cast<int64_t>(problem.size());
  write_fully(out, &length, sizeof length);
  write_fully(out, problem.data(), problem.size());
  if (!problem.empty()) _exit(0);

  espalier_spmm_plan* plan = nullptr;
  std::unique_ptr<Guarded<float>> x, y, packed;
  int64_t outputs = 0;
  while (true) {
    const auto request = read_value<Request>(in);
    if (request == Request::prepare) {
      if (plan != nullptr) library.destroy(plan);
      const auto rows = read_value<int64_t>(in), columns = read_value<int64_t>(in), n = read_value<int64_t>(in);
      const auto threads = read_value<int>(in);
      const auto offsets = read_guarded<int64_t>(in);
      const auto column = read_guarded<int32_t>(in);
      const auto value = read_guarded<float>(in);
      x = read_guarded<float>(in);
      outputs = rows * n;
      y = std::make_unique<Guarded<float>>(static_cast<size_t>(outputs));
      const espalier_csr a{rows, columns, offsets->data(), column->data(), value->data()};
      const double start = clock_seconds();
      plan = library.create(&a, n, threads);
      const double seconds = plan != nullptr ? clock_seconds() - start : -1;
      if (plan != nullptr) {
        packed = std::make_unique<Guarded<float>>(static_cast<size_t>(library.packed_floats(plan)));
        library.pack(plan, x->data(), packed->data());
      }
      write_fully(out, &seconds, sizeof seconds);
      continue;
    }
    const bool is_packed = request == Request::output_packed || request == Request::time_packed;
    const auto once = [&] {
      if (is_packed)
        library.run_packed(plan, packed->data(), y->data());
      else
        library.run(plan, x->data(), y->data());
    };
    if (request == Request::time || request == Request::time_packed) {
      const auto calls = read_value<int64_t>(in);
      const double seconds = time_calls(calls, once);
      write_fully(out, &seconds, sizeof seconds);
    } else {
      std::memset(y->data(), 0xff, static_cast<size_t>(outputs) * sizeof(float));  // NaN: what isn't written shows
      once();
      write_fully(out, y->data(), static_cast<size_t>(outputs) * sizeof(float));
    }
  }
}

}  // namespace

ForeignKernel::ForeignKernel(const std::string& library) : name_(std::filesystem::path(library).filename().string()) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
    fail<UnavailableError>("bench", "no pipe to another process: {}", std::strerror(errno));
  // dlopen looks names without a slash up elsewhere.
  const std::string path = std::filesystem::absolute(library).string();
  process_ = fork();
  if (process_ < 0) fail<UnavailableError>("bench", "no process for {}: {}", library, std::strerror(errno));
  if (process_ == 0) {
    close(to[1]);
    close(from[0]);
    signal(SIGINT, SIG_IGN);  // the benchmark decides
    serve(path, to[0], from[1]);
  }
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
  try {
    std::string problem(static_cast<size_t>(std::min<int64_t>(receive<int64_t>(), 4096)), ' ');
    read_all(problem.data(), problem.size());
    if (!problem.empty())
      fail<UnavailableError>("bench", "{} can't be timed: {}; it takes the functions of core/sparse/spmm_api.h",
                             library, problem);
  } catch (...) {
    stop();
    throw;
  }
}

ForeignKernel::~ForeignKernel() { stop(); }

void ForeignKernel::stop() {
  close(to_);
  close(from_);
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  process_ = -1;
}

std::optional<double> ForeignKernel::prepare(const Csr& a, const std::vector<float>& x, int64_t n, int threads) {
  outputs_ = a.rows * n;
  send(Request::prepare);
  send(a.rows);
  send(a.columns);
  send(n);
  send(threads);
  send(a.row_offsets);
  send(a.column);
  send(a.value);
  send(x);
  const auto seconds = receive<double>();
  return seconds < 0 ? std::nullopt : std::optional(seconds);
}

std::vector<float> ForeignKernel::output(bool packed) {
  send(packed ? Request::output_packed : Request::output);
  std::vector<float> y(static_cast<size_t>(outputs_));
  read_all(y.data(), y.size() * sizeof(float));
  return y;
}

double ForeignKernel::time(bool packed, int64_t calls) {
  send(packed ? Request::time_packed : Request::time);
  send(calls);
  return receive<double>();
}

template <class T>
void ForeignKernel::send(const std::vector<T>& values) {
  send(static_cast<int64_t>(values.size()));
  write_all(values.data(), values.size() * sizeof(T));
}
template <class T>
void ForeignKernel::send(const T& value) {
  write_all(&value, sizeof value);
}
template <class T>
T ForeignKernel::receive() {
  T value;
  read_all(&value, sizeof value);
  return value;
}

void ForeignKernel::write_all(const void* data, size_t bytes) {
  // A process that died leaves a broken pipe, which is an error here and no signal.
  struct sigaction ignore = {}, before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  const auto* at = static_cast<const char*>(data);
  bool is_dead = process_ < 0;
  while (bytes > 0 && !is_dead) {
    const ssize_t done = write(to_, at, bytes);
    if (done < 0 && errno == EINTR) continue;
    is_dead = done <= 0;
    at += std::max<ssize_t>(done, 0);
    bytes -= static_cast<size_t>(std::max<ssize_t>(done, 0));
  }
  sigaction(SIGPIPE, &before, nullptr);
  if (is_dead) fail_dead();
}

void ForeignKernel::read_all(void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    pollfd file{from_, POLLIN, 0};
    const int ready = poll(&file, 1, kMostMilliseconds);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      kill(process_, SIGKILL);
      waitpid(process_, nullptr, 0);
      process_ = -1;
      fail<UnavailableError>("bench", "{} did not answer within {} s", name_, kMostMilliseconds / 1000);
    }
    const ssize_t done = ready < 0 ? -1 : read(from_, at, bytes);
    if (done <= 0) fail_dead();
    at += done;
    bytes -= static_cast<size_t>(done);
  }
}

void ForeignKernel::fail_dead() {
  int status = 0;
  if (process_ > 0) waitpid(process_, &status, 0);
  process_ = -1;
  if (WIFSIGNALED(status)) fail<UnavailableError>("bench", "{} crashed ({})", name_, strsignal(WTERMSIG(status)));
  fail<UnavailableError>("bench", "{} has ended its process", name_);
}

}  // namespace espalier
