// Linked when the build has no CUDA backend: every entry says so, and callers need no #ifdef.
#include "core/kernels.h"

namespace espalier::cuda {
namespace {

[[noreturn]] void unavailable() { fail<UnavailableError>("cuda", "{}; use Device::cpu()", why_unavailable()); }

}  // namespace

const Kernels& table() { unavailable(); }
bool is_available() { return false; }
std::string why_unavailable() {
  return "this build has no CUDA backend; build with the preset cuda (docs/cuda.md) where the CUDA toolkit is";
}
std::vector<std::string> describe_devices() { return {}; }
void* allocate(int, size_t) { unavailable(); }
void deallocate(int, void*) { unavailable(); }
void release(int) { unavailable(); }
PoolStats pool_stats(int) { unavailable(); }
void copy(void*, Device, const void*, Device, size_t) { unavailable(); }
void synchronize(int) { unavailable(); }

}  // namespace espalier::cuda
