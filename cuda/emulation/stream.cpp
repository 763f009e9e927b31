#include "cuda/emulation/stream.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include "cuda/emulation/control.h"
#include "cuda/emulation/signals.h"

namespace espalier::emulation {
namespace {

uint64_t environment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value && *value ? std::strtoull(value, nullptr, 10) : otherwise;
}

bool overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return x < y + b_bytes && y < x + a_bytes;
}

thread_local int device_of_thread = 0;

}  // namespace

State::State()
    : devices(environment("ESPALIER_EMULATED_DEVICES", 1)),
      device_bytes(environment("ESPALIER_EMULATED_MEMORY", size_t{16} << 30)),
      driver_version(static_cast<int>(environment("ESPALIER_EMULATED_DRIVER", CUDART_VERSION))) {}

State& state() {
  static State& it = *[] {
    auto* const made = new State;
    for (size_t i = 0; i < made->devices.size(); ++i) {
      auto* const legacy = new CUstream_st;
      legacy->id = made->streams_made++;
      legacy->device = static_cast<int>(i);
      legacy->legacy = true;
      made->devices[i].legacy = legacy;
    }
    return made;
  }();
  static const bool handled = (handle_signals(), true);
  static_cast<void>(handled);
  return it;
}

int current_device() { return device_of_thread; }
void set_current_device(int device) { device_of_thread = device; }

void join(Clock& into, const Clock& other) {
  if (into.size() < other.size()) into.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

bool covers(const Clock& clock, const Clock& other) {
  for (size_t i = 0; i < other.size(); ++i)
    if (other[i] > (i < clock.size() ? clock[i] : 0)) return false;
  return true;
}

CUstream_st* make_stream(int device, bool blocking) {
  auto* const stream = new CUstream_st;
  stream->id = state().streams_made++;
  stream->device = device;
  stream->blocking = blocking;
  state().streams.insert(stream);
  return stream;
}

CUstream_st& stream_of(cudaStream_t stream) {
  State& s = state();
  if (stream == nullptr || stream == cudaStreamLegacy) {
    if (s.devices.empty()) throw Fault(cudaErrorNoDevice, "no CUDA-capable device is detected");
    return *s.devices[static_cast<size_t>(current_device())].legacy;
  }
  if (!s.streams.contains(stream))
    throw Fault(cudaErrorInvalidResourceHandle, "the stream's handle is none, or of a stream that was destroyed");
  return *stream;
}

std::string name_of(int stream) {
  for (const Device& device : state().devices)
    if (device.legacy->id == stream) return "the default stream";
  return fmt::format("stream #{}", stream);
}

Use begin_operation(CUstream_st& stream) {
  State& s = state();
  join(stream.seen, s.host);
  if (stream.legacy) {
    for (const CUstream_st* other : s.streams)
      if (other->blocking && other->device == stream.device) join(stream.seen, other->seen);
  } else if (stream.blocking) {
    join(stream.seen, s.devices[static_cast<size_t>(stream.device)].legacy->seen);
  }
  const auto id = static_cast<size_t>(stream.id);
  if (stream.seen.size() <= id) stream.seen.resize(id + 1);
  stream.asked = false;
  return {stream.id, ++stream.seen[id]};
}

void deliver(const Clock& seen) {
  std::erase_if(state().copies, [&](const Copy& copy) {
    if (!copy.to_host || !covers(seen, copy.use)) return false;
    std::memcpy(copy.pinned, copy.bytes.data(), copy.bytes.size());
    return true;
  });
}

void host_waited(const Clock& seen) {
  State& s = state();
  join(s.host, seen);
  deliver(s.host);
  const unsigned char* changed = nullptr;
  std::erase_if(s.copies, [&](const Copy& copy) {
    if (copy.to_host || !covers(s.host, copy.use)) return false;
    if (std::memcmp(copy.pinned, copy.bytes.data(), copy.bytes.size()) != 0) changed = copy.pinned;
    return true;
  });
  if (changed)
    throw Fault(cudaErrorLaunchFailure,
                fmt::format("pinned memory at {} was changed before a copy of it to the device was known to be done",
                            fmt::ptr(changed)));
}

void use_memory(Allocation& a, const CUstream_st& stream, const Use& use, bool write, const std::string& by) {
  const auto unsynchronised = [&](const char* past, const Use& earlier, const std::string& earlier_by) {
    return Fault(
        cudaErrorLaunchFailure,
        fmt::format("{}: allocation #{} ({} bytes by {}) was last {} on {}{}{}, and is now {} on {} without "
                    "synchronisation between them",
                    by, a.number, a.bytes, a.call, past, name_of(earlier.stream), earlier_by.empty() ? "" : " by ",
                    earlier_by, write ? "written or freed" : "read", name_of(stream.id)));
  };
  if (!covers(stream.seen, a.written)) throw unsynchronised("written", a.written, a.writer);
  if (write) {
    for (const Use& read : a.reads)
      if (!covers(stream.seen, read)) throw unsynchronised("read", read, "");
    a.reads.clear();
    a.written = use;
    a.writer = by;
    return;
  }
  const auto mine = std::find_if(a.reads.begin(), a.reads.end(), [&](const Use& u) { return u.stream == use.stream; });
  if (mine == a.reads.end()) {
    a.reads.push_back(use);
  } else {
    *mine = use;
  }
}

Allocation& checked_range(uintptr_t p, size_t bytes, const std::string& call) {
  DeviceMemory& memory = state().memory;
  if (!memory.contains(p))
    throw Fault(cudaErrorIllegalAddress,
                fmt::format("{}: host pointer {:#x} given where device memory is expected", call, p));
  Allocation* const a = memory.find(p);
  if (!a || a->freed_by || p < a->begin || p - a->begin > a->bytes || bytes > a->bytes - (p - a->begin))
    throw Fault(cudaErrorIllegalAddress,
                fmt::format("{}: {} bytes at device pointer {:#x}: {}", call, bytes, p,
                            !a || a->freed_by || p < a->begin
                                ? memory.describe(p)
                                : fmt::format("they end {} bytes past the end of allocation #{} ({} bytes by {})",
                                              p + bytes - (a->begin + a->bytes), a->number, a->bytes, a->call)));
  return *a;
}

size_t find_pinned(const void* p, uintptr_t& begin) {
  const State& s = state();
  const auto address = reinterpret_cast<uintptr_t>(p);
  auto after = s.pinned.upper_bound(address);
  if (after == s.pinned.begin()) return 0;
  --after;
  if (address - after->first >= after->second) return 0;
  begin = after->first;
  return after->second;
}

void use_pinned(const void* p, size_t bytes, const CUstream_st& stream, const std::string& by) {
  State& s = state();
  const auto concerns = [&](const Copy& copy) {
    return copy.to_host && overlap(p, bytes, copy.pinned, copy.bytes.size());
  };
  for (const Copy& copy : s.copies) {
    if (!concerns(copy)) continue;
    if (!covers(stream.seen, copy.use))
      throw Fault(
          cudaErrorLaunchFailure,
          fmt::format("{}: pinned memory at {} is used on {} without synchronisation with the copy into it on {}", by,
                      fmt::ptr(p), name_of(stream.id), name_of(copy.use.stream)));
    std::memcpy(copy.pinned, copy.bytes.data(), copy.bytes.size());
  }
  std::erase_if(s.copies, concerns);
}

CUstream_st& Turn::checked(cudaStream_t stream) {
  std::lock_guard guard(state().mutex);
  return stream_of(stream);
}

Turn::Turn(cudaStream_t handle) : stream(checked(handle)), turn(stream.turn), lock(state().mutex) {}

void set_device_memory(size_t bytes) {
  std::lock_guard guard(state().mutex);
  state().device_bytes = bytes;
}

void set_driver_version(int version) {
  std::lock_guard guard(state().mutex);
  state().driver_version = version;
}

void set_device_count(int devices) {
  std::lock_guard guard(state().mutex);
  State& s = state();
  for (auto i = s.devices.size(); i < static_cast<size_t>(devices); ++i) {
    auto* const legacy = new CUstream_st;
    legacy->id = s.streams_made++;
    legacy->device = static_cast<int>(i);
    legacy->legacy = true;
    s.devices.emplace_back().legacy = legacy;
  }
  s.devices.resize(static_cast<size_t>(devices));
}

}  // namespace espalier::emulation
