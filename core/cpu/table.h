// Every CPU kernel as a function, for the file of its family that defines it and for the table (table.cpp).
#pragma once

#include "core/kernels.h"

namespace espalier::backend {}

namespace espalier::cpu {

using namespace backend;  // what both backends have in common

#define ESPALIER_DECLARE_KERNEL(kernel) KernelFunction<decltype(Kernels::kernel)> kernel;
ESPALIER_KERNELS(ESPALIER_DECLARE_KERNEL)
#undef ESPALIER_DECLARE_KERNEL

}  // namespace espalier::cpu
