// Lesson 1: gradients, from one number to a fitted line.
//
// A Tensor is an array of numbers. A Variable is a Tensor that remembers how it was computed, so that the derivative
// of a result with respect to what went into it can be found by walking backwards. This is called automatic
// differentiation, and everything else in Espalier (layers, optimisers, pruning criteria) stands on it.
//
//   cmake --build build/release --target 01_autograd && build/release/examples/01_autograd
#include <cmath>

#include <espalier/espalier.h>

using namespace espalier;

// The lessons check what they claim: this ends the program if a claim is wrong.
void expect(bool true_statement, const char* claim) {
  fmt::print("  {} {}\n", true_statement ? "yes:" : "NO: ", claim);
  if (!true_statement) std::exit(1);
}

bool close(double a, double b, double tolerance = 1e-6) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// 1. One number.
//
// A leaf is a Variable made by hand; `true` says that we want derivatives with respect to it. backward() computes
// dy/dx for every leaf that y depends on and adds it to the leaf's grad().
void derivative_of_one_number() {
  fmt::print("\n1. y = x^2 * sin(x) at x = 2\n");
  const Variable x(Tensor::scalar(2, DType::f64), true);
  const Variable y = square(x) * sin(x);
  y.backward();
  fmt::print("   y = {:.6f}, dy/dx = {:.6f}\n", y.item(), x.grad().item());
  // The product rule: 2x sin x + x^2 cos x.
  expect(close(x.grad().item(), 4 * std::sin(2.0) + 4 * std::cos(2.0)), "it is what the product rule gives");

  // A second backward ADDS to the gradient. Training loops therefore call zero_grad() before each step.
  (square(x) * sin(x)).backward();
  expect(close(x.grad().item(), 2 * (4 * std::sin(2.0) + 4 * std::cos(2.0))), "gradients accumulate");
}

// 2. Many numbers.
//
// The rules are the same for tensors of any shape. Operations broadcast as in NumPy: the bias b (3) is added to every
// row of x w (4,3), so its gradient is a sum over the rows.
void derivatives_of_a_layer() {
  fmt::print("\n2. A layer y = x w + b and the loss mean(y^2)\n");
  Generator generator(/*seed=*/1);
  const Variable x(randn({4, 2}, generator));
  const Variable w(randn({2, 3}, generator), true), b(Tensor::zeros({3}), true);
  const Variable y = matmul(x, w) + b;
  mean(square(y)).backward();
  fmt::print("   dloss/db = {}\n", b.grad().data().to_string());

  // By hand: d/dy of the mean of 12 squares is 2y/12; b receives the sum over the four rows.
  const Tensor by_hand = sum(y.data() * (2.0 / 12), {0});
  expect(all_close(b.grad().data(), by_hand), "it is the sum over the rows of 2y/12");
  expect(w.grad().shape() == w.shape(), "a gradient has the shape of its variable");
}

// 3. Derivatives of derivatives.
//
// grad() returns gradients instead of storing them. With create_graph the walk backwards is recorded like any other
// computation, so it can be differentiated again.
void second_derivatives() {
  fmt::print("\n3. y = x^3 at x = 2, differentiated three times\n");
  const Variable x(Tensor::scalar(2, DType::f64), true);
  const Variable y = pow(x, 3);
  const Variable first = grad({y}, {x}, {.create_graph = true})[0];       // 3 x^2
  const Variable second = grad({first}, {x}, {.create_graph = true})[0];  // 6 x
  const Variable third = grad({second}, {x})[0];                          // 6
  fmt::print("   y' = {}, y'' = {}, y''' = {}\n", first.item(), second.item(), third.item());
  expect(close(first.item(), 12) && close(second.item(), 12) && close(third.item(), 6), "12, 12 and 6");

  // A Hessian is too large to write down for a network, but its product with a vector costs two walks: H v is the
  // gradient of (gradient . v). Pruning uses it to ask how much the loss bends along a weight.
  // For f(p) = p0^2 p1 at (1,2) the Hessian is [[2 p1, 2 p0], [2 p0, 0]] = [[4, 2], [2, 0]].
  const Variable p(Tensor::from<double>({1, 2}, {2}), true);
  const Tensor v = Tensor::from<double>({1, 1}, {2});
  const Variable f = square(select(p, 0, 0)) * select(p, 0, 1);
  const Variable slope = grad({f}, {p}, {.create_graph = true})[0];
  const Variable bend = grad({sum(slope * Variable(v))}, {p})[0];
  fmt::print("   H (1,1) = {}\n", bend.data().to_string());
  expect(all_close(bend.data(), Tensor::from<double>({6, 2}, {2})), "it is (6, 2)");
}

// 4. Trust, but check.
//
// gradcheck compares backward() with what it should be by definition: move each input a little and look at the change
// of the output. It works in double precision, because such a difference of floats proves little. Every operation of
// Espalier passes it, and an operation of yours should, too.
void checking_a_gradient() {
  fmt::print("\n4. gradcheck of a small network\n");
  Generator generator(2);
  const Variable x(randn({5, 3}, generator, DType::f64), true);
  const Variable w(randn({4, 3}, generator, DType::f64), true);
  const auto network = [](const Variables& in) { return Variables{log_softmax(gelu(linear(in[0], in[1])))}; };
  expect(gradcheck(network, {x, w}), "backward agrees with finite differences");
  expect(gradgradcheck(network, {x, w}), "so do the second derivatives");
}

// 5. Learning.
//
// Gradient descent: compute the loss, walk back, take a small step against the gradient, forget the gradient, repeat.
// That is all a training loop does; lesson 2 does the same to a network.
void fitting_a_line() {
  fmt::print("\n5. Fitting y = 3x - 1 from 200 noisy points\n");
  Generator generator(3);
  const Tensor x = randn({200, 1}, generator);
  const Tensor y = x * 3.0 - 1.0 + randn({200, 1}, generator) * 0.1;

  Variable slope(Tensor::zeros({1}), true), offset(Tensor::zeros({1}), true);
  constexpr double kLearningRate = 0.1;
  for (int step = 0; step <= 100; ++step) {
    const Variable loss = mse_loss(Variable(x) * slope + offset, y);
    if (step % 25 == 0)
      fmt::print("   step {:3}  loss {:8.5f}  y = {:.3f} x {:+.3f}\n", step, loss.item(), slope.item(), offset.item());
    slope.zero_grad();
    offset.zero_grad();
    loss.backward();
    // The update is not part of the model, so no history is recorded for it.
    const NoGrad no_grad;
    slope.set_data(slope.data() - slope.grad().data() * kLearningRate);
    offset.set_data(offset.data() - offset.grad().data() * kLearningRate);
  }
  expect(close(slope.item(), 3, 0.02) && close(offset.item(), -1, 0.02), "the line was found, to the noise");
}

int main() {
  try {
    derivative_of_one_number();
    derivatives_of_a_layer();
    second_derivatives();
    checking_a_gradient();
    fitting_a_line();
    fmt::print("\nNext: 02_mlp_digits\n");
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
