#include "pipeline/stage.h"

#include "pipeline/stages.h"

namespace espalier {

Registry<StagePtr()>& stage_registry() {
  static Registry<StagePtr()> stages("stage", {{"train", make_train_stage},
                                               {"teacher", make_teacher_stage},
                                               {"prune", make_prune_stage},
                                               {"lottery", make_lottery_stage},
                                               {"adaptive", make_adaptive_stage},
                                               {"learned-masks", make_learned_masks_stage},
                                               {"l0", make_l0_stage},
                                               {"variational", make_variational_stage},
                                               {"sparse-training", make_sparse_training_stage},
                                               {"surgery", make_surgery_stage},
                                               {"distill", make_distill_stage},
                                               {"blocks", make_blocks_stage},
                                               {"regrow", make_regrow_stage},
                                               {"recalibrate", make_recalibrate_stage},
                                               {"compensate", make_compensate_stage},
                                               {"reconstruct", make_reconstruct_stage},
                                               {"compact", make_compact_stage}});
  return stages;
}

std::vector<FieldDescription> describe_stage(const std::string& type) {
  const StagePtr stage = stage_registry().find("describe_stage", type)();
  return describe_fields([&](FieldVisitor& f) { stage->fields(f); });
}

}  // namespace espalier
