// The whole public interface: `#include <espalier/espalier.h>` and link Espalier::espalier.
#pragma once

#include "autograd/ops.h"
#include "autograd/variable.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/ops.h"
#include "core/random.h"
#include "core/safetensors.h"
#include "core/shape.h"
#include "core/storage.h"
#include "core/tensor.h"
#include "core/threads.h"
#include "layers/module.h"
