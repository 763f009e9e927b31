// d/dx sum(x^2) = 2x, computed by an installed library.
#include <espalier/espalier.h>

#include <cstdio>

int main() {
  using namespace espalier;
  const Variable x(Tensor::arange(0, 5, 1, DType::f64), /*requires_grad=*/true);
  sum(square(x)).backward();
  const bool right = identical(x.grad().data(), Tensor::arange(0, 10, 2, DType::f64));
  std::printf("gradient %s: %s\n", x.grad().data().to_string().c_str(), right ? "right" : "wrong");
  return right ? 0 : 1;
}
