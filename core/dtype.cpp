#include "core/dtype.h"

namespace espalier {

const char* name_of(DType type) {
  constexpr const char* kNames[kNumDTypes] = {"f32", "f64", "i64", "i32", "u8", "i8", "bool"};
  return kNames[static_cast<int>(type)];
}

}  // namespace espalier
