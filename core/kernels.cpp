#include "core/kernels.h"

#include <cstring>

namespace espalier {

const Kernels& kernels(Device device) { return device.is_cpu() ? cpu::table() : cuda::table(); }

void synchronize(Device device) {
  if (!device.is_cpu()) cuda::synchronize(device.index());
}

void device_copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (!to_device.is_cpu() || !from_device.is_cpu()) return cuda::copy(to, to_device, from, from_device, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace espalier
