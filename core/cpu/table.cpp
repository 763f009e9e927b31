// The table of the CPU backend: no kernel registers itself, since linkers drop such files from archives.
#include "core/cpu/table.h"

namespace espalier::cpu {

const Kernels& table() {
#define ESPALIER_KERNEL_ENTRY(kernel) .kernel = &cpu::kernel,
  static constexpr Kernels kTable{.name = "cpu", ESPALIER_KERNELS(ESPALIER_KERNEL_ENTRY)};
#undef ESPALIER_KERNEL_ENTRY
  return kTable;
}

}  // namespace espalier::cpu
