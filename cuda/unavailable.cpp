// Linked when the build has no CUDA backend: every entry says so, and callers need no #ifdef.
#include "core/kernels.h"

namespace espalier::cuda {
namespace {

[[noreturn]] void unavailable() { fail<UnavailableError>("cuda", "{}; use Device::cpu()", why_unavailable()); }

}  // namespace

const Kernels& table() { unavailable(); }
bool is_available() { return false; }
std::string why_unavailable() { return "this build has no CUDA backend"; }
void* allocate(int, size_t) { unavailable(); }
void deallocate(int, void*, size_t) { unavailable(); }
void copy(void*, Device, const void*, Device, size_t) { unavailable(); }

}  // namespace espalier::cuda
