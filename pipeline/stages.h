// The library's own kinds of stages, one file for each in pipeline/stages/: how to make one. Not for others than the
// registry.
#pragma once

#include "pipeline/stage.h"

namespace espalier {

StagePtr make_train_stage();
StagePtr make_teacher_stage();
StagePtr make_distill_stage();
StagePtr make_prune_stage();
StagePtr make_lottery_stage();
StagePtr make_adaptive_stage();
StagePtr make_learned_masks_stage();
StagePtr make_l0_stage();
StagePtr make_variational_stage();
StagePtr make_sparse_training_stage();
StagePtr make_surgery_stage();
StagePtr make_blocks_stage();
StagePtr make_regrow_stage();
StagePtr make_recalibrate_stage();
StagePtr make_compensate_stage();
StagePtr make_reconstruct_stage();
StagePtr make_compact_stage();

}  // namespace espalier
