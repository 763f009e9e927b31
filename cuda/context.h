// What a kernel's host side needs of a device: its stream, the libraries' handles, temporary memory, and errors that
// say what failed.
#pragma once

#include <array>
#include <mutex>
#include <optional>

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include "core/kernels.h"
#include "core/storage.h"

namespace espalier::cuda {

/// Throw Error with the call's name and the library's own words. `call` reads like "cudaMallocAsync of 4096 bytes".
void check(cudaError_t status, const char* call);
void check(cublasStatus_t status, const char* call);
void check(cudnnStatus_t status, const char* call);

/// The operations whose indices kernels check.
constexpr const char* kIndexOperations[] = {"gather", "scatter", "scatter_add", "index_select", "index_add"};

/// Where kernels note an index that is out of range: a kernel can't throw. The first one wins; it is reported by the
/// next copy to the host or synchronize().
struct IndexError {
  int found;  ///< 0: none; else 1 + the operation's place in kIndexOperations
  int axis;
  long long index, size;
};

/// One device of this process. All its kernels go to one stream, so that they run in the order of their calls. The
/// libraries' handles serve one host thread at a time: kernels of one device are called from one thread.
class Context {
 public:
  /// The context of a CUDA device, which becomes the calling thread's current one. Throws UnavailableError without a
  /// driver or for an index that no device has.
  static Context& of(Device device);
  /// The context that of() has made for this device, or null. Throws nothing.
  static const Context* existing(int index);

  Device device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas();  ///< bound to the stream
  cudnnHandle_t dnn();    ///< bound to the stream
  int multiprocessors() const { return multiprocessors_; }
  IndexError* index_error() const { return index_error_; }  ///< device memory

  /// Waits for all kernels, then throws what they noted: ArgumentError for indices out of range.
  void synchronize();

  /// Enqueues a copy from host memory, which may change once this returns. It passes through pinned memory and a stream
  /// of its own, so that it runs while earlier kernels still compute; later kernels wait for it.
  void upload(void* to, const void* from, size_t bytes);

  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  explicit Context(Device device);

  /// A piece of an upload on its way: pinned memory, device memory, and when each of them is free again.
  struct Slot {
    void *pinned = nullptr, *staged = nullptr;
    cudaEvent_t copied = nullptr, consumed = nullptr;
  };
  static constexpr size_t kSlotBytes = size_t{4} << 20;

  Device device_;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  cudnnHandle_t dnn_ = nullptr;
  int multiprocessors_ = 0;
  IndexError* index_error_ = nullptr;

  std::mutex mutex_;  ///< of the members below
  cudaStream_t upload_stream_ = nullptr;
  std::array<Slot, 4> slots_;
  size_t next_slot_ = 0;
};

/// Device memory for the length of a scope, in stream order: free to go out of scope while kernels still use it. Null
/// for 0 bytes.
class Scratch {
 public:
  Scratch(const Context& context, size_t bytes) {
    if (bytes > 0) storage_.emplace(bytes, context.device());
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }
  void* data() const { return storage_ ? storage_->data() : nullptr; }

 private:
  std::optional<Storage> storage_;
};

}  // namespace espalier::cuda
