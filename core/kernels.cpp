#include "core/kernels.h"

#include <atomic>
#include <cstring>

namespace espalier {

#define ESPALIER_COUNT_KERNEL(kernel) +1
static_assert(sizeof(Kernels) == sizeof(void*) * (1 ESPALIER_KERNELS(ESPALIER_COUNT_KERNEL)),
              "each field of Kernels is listed in ESPALIER_KERNELS");
#undef ESPALIER_COUNT_KERNEL

const Kernels& kernels(Device device) { return device.is_cpu() ? cpu::table() : cuda::table(); }

void synchronize(Device device) {
  if (!device.is_cpu()) cuda::synchronize(device.index());
}

namespace {
std::atomic<uint64_t> copied_to_host = 0;
}  // namespace

uint64_t bytes_copied_to_host() { return copied_to_host; }

void device_copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (to_device.is_cpu() && !from_device.is_cpu()) copied_to_host += bytes;
  if (!to_device.is_cpu() || !from_device.is_cpu()) return cuda::copy(to, to_device, from, from_device, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace espalier
