// Tells AddressSanitizer, where the build has it, of stacks that it can't know.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace espalier::emulation {

/// Before a jump to another stack; saved is null when this one is left for good.
inline void leave_stack([[maybe_unused]] void** saved, [[maybe_unused]] const void* to, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(saved, to, bytes);
#endif
}
/// After it; tells which stack was left.
inline void enter_stack([[maybe_unused]] void* saved, [[maybe_unused]] const void** from = nullptr,
                        [[maybe_unused]] size_t* bytes = nullptr) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(saved, from, bytes);
#endif
}
/// Frames on this stack were abandoned.
inline void forget_frames([[maybe_unused]] void* stack, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack, bytes);
#endif
}

}  // namespace espalier::emulation
