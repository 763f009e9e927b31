#include "cuda/context.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/launch.h"

namespace espalier::cuda {
namespace {

[[noreturn]] void failed(const char* call, const char* name, const char* words) {
  fail<Error>("cuda", "{} failed: {} ({})", call, words, name);
}

/// Empty when a GPU can be used.
std::string find_obstacle() {
  int driver = 0, runtime = 0, devices = 0;
  const auto version = [](int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); };
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return fmt::format("no NVIDIA driver was found; install one for CUDA {} or later", version(runtime));
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // a failure here is an answer, not an error of a later call
  if (status == cudaErrorInsufficientDriver)
    return fmt::format("the NVIDIA driver is too old: it knows CUDA {}, this build needs {}; update the driver",
                       version(driver), version(runtime));
  if (status == cudaErrorNoDevice || (status == cudaSuccess && devices == 0))
    return "there is an NVIDIA driver, but no GPU that it can use (see nvidia-smi and CUDA_VISIBLE_DEVICES)";
  if (status != cudaSuccess) return fmt::format("the NVIDIA driver does not answer: {}", cudaGetErrorString(status));
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  if (major < 8)
    return fmt::format(
        "the GPU has compute capability {}.x, the kernels are built for 8.0 and later; build with other "
        "CMAKE_CUDA_ARCHITECTURES",
        major);
  return "";
}

const std::string& obstacle() {
  static const std::string& found = *new std::string(find_obstacle());  // tensors may be freed after a static's end
  return found;
}

}  // namespace

bool is_available() { return obstacle().empty(); }
std::string why_unavailable() { return obstacle(); }

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it is reported here, once
  failed(call, cudaGetErrorName(status), cudaGetErrorString(status));
}
void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) failed(call, cublasGetStatusName(status), cublasGetStatusString(status));
}
void check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) failed(call, "cuDNN", cudnnGetErrorString(status));
}

namespace {

struct Contexts {
  std::mutex mutex;
  std::vector<std::unique_ptr<Context>> list;  // by the devices' indices
};
/// Never destroyed, as tensors may outlive it.
Contexts& contexts_of_process() {
  static Contexts& all = *new Contexts;
  return all;
}

}  // namespace

const Context* Context::existing(int index) {
  Contexts& all = contexts_of_process();
  std::lock_guard lock(all.mutex);
  const auto at = static_cast<size_t>(index);
  return at < all.list.size() ? all.list[at].get() : nullptr;
}

Context& Context::of(Device device) {
  // Every kernel asks. Mostly it is the same device again, and still the thread's current one.
  static thread_local Context* last = nullptr;
  int current = -1;
  if (last && last->device_ == device && cudaGetDevice(&current) == cudaSuccess && current == device.index())
    return *last;
  auto& [mutex, contexts] = contexts_of_process();
  if (!is_available()) fail<UnavailableError>("cuda", "{}; use Device::cpu()", why_unavailable());
  std::lock_guard lock(mutex);
  if (contexts.empty()) {
    int devices = 0;
    check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    contexts.resize(static_cast<size_t>(devices));
  }
  const auto index = static_cast<size_t>(device.index());
  if (device.is_cpu() || index >= contexts.size())
    fail<UnavailableError>("cuda", "expected a device from cuda:0 to cuda:{}, got {}", contexts.size() - 1,
                           device.name());
  check(cudaSetDevice(device.index()), "cudaSetDevice");
  if (!contexts[index]) contexts[index].reset(new Context(device));
  last = contexts[index].get();
  return *last;
}

Context::Context(Device device) : device_(device) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device.index()),
        "cudaDeviceGetAttribute");
  // Freed memory stays in the pool: a steady loop takes nothing from the driver.
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device.index()), "cudaDeviceGetDefaultMemPool");
  uint64_t keep_everything = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_everything), "cudaMemPoolSetAttribute");
  check(cudaMallocAsync(reinterpret_cast<void**>(&index_error_), sizeof(IndexError), stream_), "cudaMallocAsync");
  check(cudaMemsetAsync(index_error_, 0, sizeof(IndexError), stream_), "cudaMemsetAsync");
}

cublasHandle_t Context::blas() {
  std::lock_guard lock(mutex_);
  if (!blas_) {
    check(cublasCreate(&blas_), "cublasCreate");
    check(cublasSetStream(blas_, stream_), "cublasSetStream");
  }
  return blas_;
}

cudnnHandle_t Context::dnn() {
  std::lock_guard lock(mutex_);
  if (!dnn_) {
    check(cudnnCreate(&dnn_), "cudnnCreate");
    check(cudnnSetStream(dnn_, stream_), "cudnnSetStream");
  }
  return dnn_;
}

void Context::synchronize() {
  IndexError error{};
  check(cudaMemcpyAsync(&error, index_error_, sizeof(error), cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  if (error.found == 0) return;
  check(cudaMemsetAsync(index_error_, 0, sizeof(error), stream_), "cudaMemsetAsync");
  fail(kIndexOperations[error.found - 1], "expected indices from 0 to below {}, the size of axis {}, got {}",
       error.size, error.axis, error.index);
}

void Context::upload(void* to, const void* from, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (!upload_stream_) {
    check(cudaStreamCreateWithFlags(&upload_stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    for (Slot& slot : slots_) {
      check(cudaMallocHost(&slot.pinned, kSlotBytes), "cudaMallocHost");
      check(cudaMalloc(&slot.staged, kSlotBytes), "cudaMalloc");
      check(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      check(cudaEventCreateWithFlags(&slot.consumed, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    }
  }
  for (size_t done = 0; done < bytes; done += kSlotBytes) {
    Slot& slot = slots_[next_slot_];
    next_slot_ = (next_slot_ + 1) % slots_.size();
    const size_t part = std::min(kSlotBytes, bytes - done);
    check(cudaEventSynchronize(slot.copied), "cudaEventSynchronize");  // the pinned memory's last piece has left
    std::memcpy(slot.pinned, static_cast<const char*>(from) + done, part);
    check(cudaStreamWaitEvent(upload_stream_, slot.consumed, 0), "cudaStreamWaitEvent");
    check(cudaMemcpyAsync(slot.staged, slot.pinned, part, cudaMemcpyHostToDevice, upload_stream_), "cudaMemcpyAsync");
    check(cudaEventRecord(slot.copied, upload_stream_), "cudaEventRecord");
    // The destination belongs to the kernels' stream, in whose order it was allocated.
    check(cudaStreamWaitEvent(stream_, slot.copied, 0), "cudaStreamWaitEvent");
    check(cudaMemcpyAsync(static_cast<char*>(to) + done, slot.staged, part, cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpyAsync");
    check(cudaEventRecord(slot.consumed, stream_), "cudaEventRecord");
  }
}

void launch_failed(const Context& context, const Launch& how, const char* why) {
  fail<Error>("cuda",
              "kernel {} failed on {}: grid ({},{},{}), block ({},{},{}), {} bytes of shared memory, stream {}: {}",
              how.name, context.device().name(), how.grid.x, how.grid.y, how.grid.z, how.block.x, how.block.y,
              how.block.z, how.shared_bytes, fmt::ptr(context.stream()), why);
}

void check_limits(const Launch& how) {
  const dim3 &grid = how.grid, &block = how.block;
  espalier::check(
      grid.x >= 1 && grid.x <= 0x7fffffffU && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535, "cuda",
      "kernel {}: expected a grid of at most (2147483647,65535,65535) blocks, got ({},{},{})", how.name, grid.x, grid.y,
      grid.z);
  espalier::check(block.x >= 1 && block.x <= 1024 && block.y >= 1 && block.y <= 1024 && block.z >= 1 && block.z <= 64 &&
                      block.x * block.y * block.z <= 1024,
                  "cuda", "kernel {}: expected a block of at most 1024 threads, got ({},{},{})", how.name, block.x,
                  block.y, block.z);
}

}  // namespace espalier::cuda
