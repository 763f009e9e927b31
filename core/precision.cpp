#include "core/precision.h"

#include <atomic>

#include "core/error.h"

namespace espalier {
namespace {

std::atomic<MatmulPrecision> precision_in_force = MatmulPrecision::f32;

}  // namespace

MatmulPrecision matmul_precision() { return precision_in_force; }
void set_matmul_precision(MatmulPrecision precision) { precision_in_force = precision; }

const char* name_of(MatmulPrecision precision) {
  switch (precision) {
    case MatmulPrecision::f32: return "f32";
    case MatmulPrecision::tf32: return "tf32";
    case MatmulPrecision::bf16: return "bf16";
  }
  fail("precision", "unknown precision {}", static_cast<int>(precision));
}

MatmulPrecision parse_matmul_precision(std::string_view text) {
  for (MatmulPrecision p : {MatmulPrecision::f32, MatmulPrecision::tf32, MatmulPrecision::bf16})
    if (text == name_of(p)) return p;
  fail("precision", "expected f32, tf32 or bf16, got '{}'", text);
}

}  // namespace espalier
