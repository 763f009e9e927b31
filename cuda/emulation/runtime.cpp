// The runtime API's calls on devices, streams, events and functions; those on memory are in runtime_memory.cpp.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "cuda/emulation/control.h"
#include "cuda/emulation/runtime.h"

using namespace espalier::emulation;

namespace {

constexpr int kMultiprocessors = 2;  // grids grow with it; two suffice to have several blocks
constexpr int kSharedDefault = 48 * 1024, kSharedOptin = 163 * 1024, kSharedMultiprocessor = 164 * 1024;
constexpr int kThreadsPerMultiprocessor = 2048, kBlocksPerMultiprocessor = 32;

cudaError_t driver_status() {
  const State& s = state();
  if (s.driver_version / 1000 < CUDART_VERSION / 1000) return cudaErrorInsufficientDriver;
  return s.devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}

CUevent_st& event_of(cudaEvent_t event) {
  if (!state().events.contains(event))
    throw Fault(cudaErrorInvalidResourceHandle, "the event's handle is none, or of an event that was destroyed");
  return *event;
}

/// At a synchronisation, pools give back what exceeds their threshold.
void trim_pools() {
  for (Device& device : state().devices)
    device.pool_reserved = std::min(device.pool_reserved, std::max(device.pool_used, device.release_threshold));
}

/// Whether the host knows, or now learns, that all in `seen` is done: the first question comes too early, as it may on
/// a GPU.
cudaError_t query(const Clock& seen, bool& asked) {
  if (!covers(state().host, seen) && !std::exchange(asked, true)) return cudaErrorNotReady;
  host_waited(seen);
  return cudaSuccess;
}

}  // namespace

Device& espalier::emulation::device_of(int index) {
  if (const cudaError_t status = driver_status(); status != cudaSuccess) throw Fault(status, "");
  State& s = state();
  if (index < 0 || static_cast<size_t>(index) >= s.devices.size())
    throw Fault(cudaErrorInvalidDevice, fmt::format("there is no device {}, only {}", index, s.devices.size()));
  return s.devices[static_cast<size_t>(index)];
}

// Devices.

cudaError_t cudaDriverGetVersion(int* version) {
  return locked_call([&] { *version = state().driver_version; });
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  return locked_call([&] {
    *count = 0;
    if (const cudaError_t status = driver_status(); status != cudaSuccess) throw Fault(status, "");
    *count = static_cast<int>(state().devices.size());
  });
}
cudaError_t cudaSetDevice(int device) {
  return locked_call([&] {
    device_of(device);
    set_current_device(device);
  });
}
cudaError_t cudaGetDevice(int* device) {
  return locked_call([&] {
    device_of(current_device());
    *device = current_device();
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return locked_call([&] {
    device_of(device);
    *properties = {};
    std::snprintf(properties->name, sizeof(properties->name), "emulated GPU");
    properties->totalGlobalMem = state().device_bytes;
    properties->sharedMemPerBlock = kSharedDefault;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    std::copy_n(std::array{1024, 1024, 64}.data(), 3, properties->maxThreadsDim);
    std::copy_n(std::array{0x7fffffff, 65535, 65535}.data(), 3, properties->maxGridSize);
    properties->totalConstMem = 65536;
    properties->major = 8;
    properties->multiProcessorCount = kMultiprocessors;
    properties->canMapHostMemory = properties->concurrentKernels = properties->unifiedAddressing = 1;
    properties->asyncEngineCount = 2;
    properties->memoryBusWidth = 64;
    properties->l2CacheSize = 1 << 20;
    properties->maxThreadsPerMultiProcessor = kThreadsPerMultiprocessor;
    properties->sharedMemPerMultiprocessor = kSharedMultiprocessor;
    properties->sharedMemPerBlockOptin = kSharedOptin;
    properties->maxBlocksPerMultiProcessor = kBlocksPerMultiprocessor;
    properties->memoryPoolsSupported = 1;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return locked_call([&] {
    device_of(device);
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock:
      case cudaDevAttrMaxBlockDimX:
      case cudaDevAttrMaxBlockDimY: *value = 1024; return;
      case cudaDevAttrMaxBlockDimZ: *value = 64; return;
      case cudaDevAttrMaxGridDimX: *value = 0x7fffffff; return;
      case cudaDevAttrMaxGridDimY:
      case cudaDevAttrMaxGridDimZ: *value = 65535; return;
      case cudaDevAttrMaxSharedMemoryPerBlock: *value = kSharedDefault; return;
      case cudaDevAttrWarpSize: *value = 32; return;
      case cudaDevAttrMultiProcessorCount: *value = kMultiprocessors; return;
      case cudaDevAttrMaxThreadsPerMultiProcessor: *value = kThreadsPerMultiprocessor; return;
      case cudaDevAttrUnifiedAddressing:
      case cudaDevAttrMemoryPoolsSupported: *value = 1; return;
      case cudaDevAttrComputeCapabilityMajor: *value = 8; return;
      case cudaDevAttrComputeCapabilityMinor:
      case cudaDevAttrCooperativeLaunch: *value = 0; return;
      case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = kSharedMultiprocessor; return;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kSharedOptin; return;
      case cudaDevAttrMaxBlocksPerMultiprocessor: *value = kBlocksPerMultiprocessor; return;
    }
    throw Fault(cudaErrorInvalidValue,
                fmt::format("cudaDeviceGetAttribute: attribute {} isn't emulated", static_cast<int>(attribute)));
  });
}

cudaError_t cudaDeviceSynchronize() {
  return locked_call([&] {
    const int device = current_device();
    Clock seen = device_of(device).legacy->seen;
    for (const CUstream_st* stream : state().streams)
      if (stream->device == device) join(seen, stream->seen);
    host_waited(seen);
    trim_pools();
  });
}

// Streams.

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return locked_call([&] {
    device_of(current_device());
    if (flags > cudaStreamNonBlocking) throw Fault(cudaErrorInvalidValue, "cudaStreamCreateWithFlags: unknown flags");
    *stream = make_stream(current_device(), flags != cudaStreamNonBlocking);
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return locked_call([&] {
    CUstream_st& known = stream_of(stream);
    if (known.legacy) throw Fault(cudaErrorInvalidResourceHandle, "the default stream can't be destroyed");
    state().streams.erase(&known);
    delete &known;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) {
    begin_operation(s);
    host_waited(s.seen);
    trim_pools();
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  cudaError_t answer = cudaSuccess;
  const cudaError_t status = locked_call([&] {
    CUstream_st& s = stream_of(stream);
    answer = query(s.seen, s.asked);
  });
  return status == cudaSuccess ? answer : status;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return locked_call([&] {
    const CUevent_st& e = event_of(event);
    CUstream_st& s = stream_of(stream);
    if (e.recorded) join(s.seen, e.seen);
  });
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return locked_call([&] { *flags = stream_of(stream).blocking ? cudaStreamDefault : cudaStreamNonBlocking; });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* user_data) {
  try {
    Turn turn(stream);
    begin_operation(turn.stream);
    deliver(turn.stream.seen);
    turn.lock.unlock();
    function(user_data);
    return cudaSuccess;
  } catch (const Fault& fault) {
    return set_error(fault.status, fault.what());
  }
}

// Events.

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return locked_call([&] {
    device_of(current_device());
    if (flags > (cudaEventBlockingSync | cudaEventDisableTiming))
      throw Fault(cudaErrorInvalidValue, "cudaEventCreateWithFlags: unknown flags");
    *event = new CUevent_st;
    (*event)->device = current_device();
    (*event)->timing = !(flags & cudaEventDisableTiming);
    state().events.insert(*event);
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return locked_call([&] {
    CUevent_st& known = event_of(event);
    state().events.erase(&known);
    delete &known;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return in_turn(stream, [&](CUstream_st& s) {
    CUevent_st& e = event_of(event);
    if (e.device != s.device)
      throw Fault(
          cudaErrorInvalidResourceHandle,
          fmt::format("cudaEventRecord: the event is of device {}, the stream of device {}", e.device, s.device));
    begin_operation(s);
    e.recorded = true;
    e.asked = false;
    e.seen = s.seen;
    e.when = std::chrono::steady_clock::now();
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return locked_call([&] {
    const CUevent_st& e = event_of(event);
    if (e.recorded) host_waited(e.seen);
    trim_pools();
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  cudaError_t answer = cudaSuccess;
  const cudaError_t status = locked_call([&] {
    CUevent_st& e = event_of(event);
    if (e.recorded) answer = query(e.seen, e.asked);
  });
  return status == cudaSuccess ? answer : status;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  cudaError_t answer = cudaSuccess;
  const cudaError_t status = locked_call([&] {
    const CUevent_st &a = event_of(start), &b = event_of(end);
    if (!a.recorded || !b.recorded || !a.timing || !b.timing)
      throw Fault(cudaErrorInvalidResourceHandle,
                  "cudaEventElapsedTime: an event wasn't recorded, or measures no time");
    if (!covers(state().host, a.seen) || !covers(state().host, b.seen)) {
      answer = cudaErrorNotReady;
    } else {
      *milliseconds = std::chrono::duration<float, std::milli>(b.when - a.when).count();
    }
  });
  return status == cudaSuccess ? answer : status;
}

// Functions.

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return locked_call([&] {
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return;
    if (!function || attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > kSharedOptin)
      throw Fault(cudaErrorInvalidValue,
                  fmt::format("cudaFuncSetAttribute: attribute {} can't be {}", static_cast<int>(attribute), value));
    state().dynamic_shared_limit[function] = value;
  });
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return locked_call([&] {
    if (!function) throw Fault(cudaErrorInvalidDeviceFunction, "");
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 80;
    const auto set = state().dynamic_shared_limit.find(function);
    attributes->maxDynamicSharedSizeBytes = set == state().dynamic_shared_limit.end() ? kSharedDefault : set->second;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t dynamic_shared_bytes) {
  return locked_call([&] {
    if (!function || threads < 1 || threads > 1024) throw Fault(cudaErrorInvalidValue, "");
    const int warps = (threads + 31) / 32, shared = static_cast<int>(dynamic_shared_bytes) + 1024;
    *blocks =
        std::min({kBlocksPerMultiprocessor, kThreadsPerMultiprocessor / 32 / warps, kSharedMultiprocessor / shared});
  });
}

// Not emulated.

namespace {
cudaError_t unsupported(const char* call) {
  return set_error(cudaErrorNotSupported, fmt::format("{}: the emulator has no stream capture and no graphs", call));
}
}  // namespace
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return unsupported("cudaStreamBeginCapture");
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return unsupported("cudaStreamEndCapture"); }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return unsupported("cudaGraphInstantiate");
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return unsupported("cudaGraphLaunch"); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return unsupported("cudaGraphExecDestroy"); }
cudaError_t cudaGraphDestroy(cudaGraph_t) { return unsupported("cudaGraphDestroy"); }
