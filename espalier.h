// The whole public interface: `#include <espalier/espalier.h>` and link Espalier::espalier.
#pragma once

// Tensors without gradients.
#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/mask.h"
#include "core/ops.h"
#include "core/random.h"
#include "core/safetensors.h"
#include "core/shape.h"
#include "core/storage.h"
#include "core/tensor.h"
#include "core/threads.h"

// Variables, gradients.
#include "autograd/ops.h"
#include "autograd/variable.h"

// Layers, networks.
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/init.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/lstm_rows.h"
#include "layers/models/zoo.h"
#include "layers/module.h"
#include "layers/norm.h"
#include "layers/parameter.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "layers/summary.h"

// Data.
#include "datasets/augment.h"
#include "datasets/data_loader.h"
#include "datasets/dataset.h"
#include "datasets/download.h"

// Training.
#include "training/callback.h"
#include "training/checkpoint.h"
#include "training/clip.h"
#include "training/evaluate.h"
#include "training/metrics.h"
#include "training/optimizer.h"
#include "training/progress.h"
#include "training/schedule.h"
#include "training/trainer.h"
