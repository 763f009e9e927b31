// The table of the CUDA backend: no kernel registers itself, since linkers drop such files from archives.
#include "cuda/table.h"

namespace espalier::cuda {

const Kernels& table() {
  if (!is_available()) fail<UnavailableError>("cuda", "{}; use Device::cpu()", why_unavailable());
#define ESPALIER_KERNEL_ENTRY(kernel) .kernel = &cuda::kernel,
  static constexpr Kernels kTable{.name = "cuda", ESPALIER_KERNELS(ESPALIER_KERNEL_ENTRY)};
#undef ESPALIER_KERNEL_ENTRY
  return kTable;
}

}  // namespace espalier::cuda
