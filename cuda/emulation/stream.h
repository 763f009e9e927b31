// Streams and events. Work is done at once, in the calling thread; what may run at the same time on a GPU is known from
// vector clocks: each stream counts its operations, and knows up to which operation of every other stream has happened
// before its next one. Memory remembers who wrote and read it last, so that a missing synchronisation is found although
// nothing went wrong.
//
// Everything here is called with state().mutex held, unless it says otherwise.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "cuda/emulation/fault.h"
#include "cuda/emulation/memory.h"

namespace espalier::emulation {

/// For each stream, how many of its operations are known to be done.
using Clock = std::vector<uint64_t>;
void join(Clock& into, const Clock& other);
/// Whether all of `other` is in `clock`.
bool covers(const Clock& clock, const Clock& other);
inline bool covers(const Clock& clock, const Use& use) {
  return use.stream < 0 ||
         (static_cast<size_t>(use.stream) < clock.size() && clock[static_cast<size_t>(use.stream)] >= use.clock);
}

}  // namespace espalier::emulation

struct CUstream_st {
  int id = 0, device = 0;
  bool legacy = false, blocking = true;
  espalier::emulation::Clock seen;
  uint64_t launches = 0;  ///< since the seed was set
  bool asked = false;     ///< cudaStreamQuery has said "not ready" since the last operation
  std::mutex turn;        ///< held while an operation runs: before state().mutex
};

struct CUevent_st {
  int device = 0;
  bool timing = true, recorded = false, asked = false;
  espalier::emulation::Clock seen;
  std::chrono::steady_clock::time_point when;
};

namespace espalier::emulation {

/// A copy between device and pinned memory that a GPU may not have done yet.
struct Copy {
  Use use;
  unsigned char* pinned = nullptr;
  std::vector<unsigned char> bytes;  ///< what arrives; to the device: what must stay in place until then
  bool to_host = false;
};

struct Device {
  size_t used = 0;  ///< by cudaMalloc
  size_t pool_used = 0, pool_reserved = 0, pool_used_high = 0, pool_reserved_high = 0;
  uint64_t release_threshold = 0;
  CUstream_st* legacy = nullptr;
};

/// All of the emulated machine.
struct State {
  State();
  std::mutex mutex;
  DeviceMemory memory;
  std::vector<Device> devices;
  size_t device_bytes;
  int driver_version;
  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  int streams_made = 0;
  Clock host;                          ///< what the host knows to be done
  std::map<uintptr_t, size_t> pinned;  ///< address and size
  std::vector<Copy> copies;
  std::map<const void*, int> dynamic_shared_limit;  ///< of kernels, by cudaFuncSetAttribute
};
/// Made on first use and never destroyed, as tensors may outlive everything.
State& state();

/// The calling thread's device. Need no lock.
int current_device();
void set_current_device(int device);

CUstream_st* make_stream(int device, bool blocking);
/// Null: the current device's legacy stream. Throws Fault for a handle that is none.
CUstream_st& stream_of(cudaStream_t stream);
std::string name_of(int stream);
/// Begins an operation on a stream, which comes after all that the stream and the host have seen.
Use begin_operation(CUstream_st& stream);
/// Pinned memory receives its copies of operations in `seen`.
void deliver(const Clock& seen);
/// The host has waited for all in `seen`: pinned memory receives its copies. Throws Fault when pinned memory was
/// changed while a copy to the device might still read it.
void host_waited(const Clock& seen);

/// Throws Fault unless `use`, an operation of `stream` named `by`, comes after the writes (for a write: and reads) of
/// other streams, and notes it.
void use_memory(Allocation& allocation, const CUstream_st& stream, const Use& use, bool write, const std::string& by);

/// The live allocation that holds all of `bytes` at device address p. Throws Fault that begins with `call`.
Allocation& checked_range(uintptr_t p, size_t bytes, const std::string& call);

/// The size of the pinned block that holds p, and its begin; 0 for none.
size_t find_pinned(const void* p, uintptr_t& begin);
/// Pinned memory is about to be read or written by an operation of `stream`: copies into it that come before arrive.
/// Throws Fault when one doesn't come before.
void use_pinned(const void* p, size_t bytes, const CUstream_st& stream, const std::string& by);

/// Holds a stream's turn, then state().mutex. Throws Fault for a handle that is none. Taken without the lock.
class Turn {
 public:
  explicit Turn(cudaStream_t stream);
  CUstream_st& stream;
  std::unique_lock<std::mutex> turn, lock;

 private:
  static CUstream_st& checked(cudaStream_t stream);
};

}  // namespace espalier::emulation
