// How exactly a GPU multiplies f32 matrices. The CPU always computes in f32.
#pragma once

#include <cstdint>
#include <string_view>

namespace espalier {

/// f32: every product in f32. tf32: factors rounded to 10 bits of mantissa. bf16: to 7. Sums are in f32 in all of them.
/// Convolutions take tf32 for bf16, which cuDNN has no f32 interface for.
enum class MatmulPrecision : uint8_t { f32, tf32, bf16 };

/// Of this process; f32 until it is set.
MatmulPrecision matmul_precision();
void set_matmul_precision(MatmulPrecision precision);

/// "f32", "tf32" or "bf16". Throws ArgumentError otherwise.
MatmulPrecision parse_matmul_precision(std::string_view text);
const char* name_of(MatmulPrecision precision);

}  // namespace espalier
