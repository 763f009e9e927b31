#include "core/kernels.h"

#include <cstdlib>
#include <cstring>

namespace espalier {

const Kernels& kernels(Device device) { return device.is_cpu() ? cpu::table() : cuda::table(); }

void* device_allocate(Device device, size_t bytes) {
  if (!device.is_cpu()) return cuda::allocate(device.index(), bytes);
  return std::aligned_alloc(64, bytes);
}

void device_free(Device device, void* pointer, size_t bytes) {
  if (!device.is_cpu()) return cuda::deallocate(device.index(), pointer, bytes);
  std::free(pointer);
}

void device_copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (!to_device.is_cpu() || !from_device.is_cpu()) return cuda::copy(to, to_device, from, from_device, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace espalier
