// Initialisers: they fill a tensor in place from a Generator and give it back.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/random.h"
#include "core/tensor.h"

namespace espalier {

/// Connections of one unit of a weight (O,I) or (F,C,KH,KW): `in` = I or C*KH*KW, `out` = O or F*KH*KW.
struct Fans {
  int64_t in, out;
};
/// Throws unless the rank is at least 2.
Fans fans_of(const Shape& weight_shape);

enum class FanMode : uint8_t { in, out };
struct KaimingOptions {
  FanMode fan = FanMode::in;
  double negative_slope = 0;  ///< of the leaky ReLU that follows; 0: ReLU
};

/// Uniform in +-gain*sqrt(3/fan), gain = sqrt(2/(1+slope^2)). He et al. 2015, "Delving deep into rectifiers", eq.
/// 10, 15.
Tensor kaiming_uniform_(Tensor out, const KaimingOptions& options = {}, Generator& generator = default_generator());
/// Normal of deviation gain/sqrt(fan). Same source.
Tensor kaiming_normal_(Tensor out, const KaimingOptions& options = {}, Generator& generator = default_generator());
/// Uniform in +-gain*sqrt(6/(in+out)). Glorot & Bengio 2010, eq. 16.
Tensor xavier_uniform_(Tensor out, double gain = 1, Generator& generator = default_generator());
/// Normal of deviation gain*sqrt(2/(in+out)). Same source.
Tensor xavier_normal_(Tensor out, double gain = 1, Generator& generator = default_generator());
/// A (semi-)orthogonal matrix, gain * Q with Q uniform over them; axes after the first count as one.
/// Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning", section 3.
Tensor orthogonal_(Tensor out, double gain = 1, Generator& generator = default_generator());

/// PyTorch's default weight of Linear and Conv2d: kaiming_uniform_ with slope sqrt(5), that is +-1/sqrt(fan_in).
/// Throws when a size is not positive, and before it takes any when it would take more memory than there is, or than
/// the SizeBudget has left.
Tensor default_weight(const char* operation, const Shape& shape);
/// A new f32 tensor with the same checks; its values are not set.
Tensor checked_empty(const char* operation, const Shape& shape);
/// A new f32 tensor of one value, with the same checks.
Tensor constant_tensor(const char* operation, const Shape& shape, double value);
/// A new f32 tensor, uniform in +-bound, with the same checks.
Tensor uniform_tensor(const char* operation, const Shape& shape, double bound);

}  // namespace espalier
