#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

/// Sum over k of a(..., m, k) b(..., k, n) for rank >= 2; the batch axes broadcast.
Array product(const Array& a, const Array& b, const Shape& out) {
  const int64_t inner = a.shape.back();
  return fill(out, [&](const Index& i) {
    Index left = i, right = i;
    double sum = 0;
    for (int64_t k = 0; k < inner; ++k) {
      left.back() = k;
      right[right.size() - 2] = k;
      sum += a.broadcast(left) * b.broadcast(right);
    }
    return sum;
  });
}

/// A copy whose shape has an axis of size 1 more.
Array with_axis(Array x, int position) {
  x.shape.insert(position, 1);
  return x;
}

void add(std::vector<OpCase>& cases, const std::string& variant, const Shape& a, const Shape& b, const Shape& out,
         int derivatives = 2) {
  cases.push_back({.name = "matmul." + variant,
                   .inputs = {{a}, {b}},
                   .run = [](const Variables& v) { return Variables{matmul(v[0], v[1])}; },
                   .reference =
                       [=](const Arrays& v) {
                         // Rank 1 is a row on the left and a column on the right; that axis goes away again.
                         const Array left = a.rank() == 1 ? with_axis(v[0], 0) : v[0];
                         const Array right = b.rank() == 1 ? with_axis(v[1], 1) : v[1];
                         Shape full = out;
                         if (a.rank() == 1) full.insert(full.rank() - (b.rank() == 1 ? 0 : 1), 1);
                         if (b.rank() == 1) full.push_back(1);
                         Array result = product(left, right, full);
                         result.shape = out;
                         return Arrays{result};
                       },
                   .terms = a.back(),
                   .scale = 4,
                   .derivatives = derivatives});
}

void add_linear(std::vector<OpCase>& cases, const std::string& variant, const Shape& x, bool bias) {
  std::vector<OpInput> inputs = {{x}, {{4, x.back()}}};
  if (bias) inputs.push_back({{4}});
  Shape out = x;
  out[out.rank() - 1] = 4;
  cases.push_back(
      {.name = fmt::format("linear.{}{}", variant, bias ? "_bias" : ""),
       .inputs = inputs,
       .run = [=](const Variables& v) { return Variables{bias ? linear(v[0], v[1], v[2]) : linear(v[0], v[1])}; },
       .reference =
           [=](const Arrays& v) {
             return Arrays{fill(out, [&](const Index& i) {
               double sum = bias ? v[2]({i.back()}) : 0;
               Index at = i;
               for (int64_t k = 0; k < x.back(); ++k) {
                 at.back() = k;
                 sum += v[0](at) * v[1]({i.back(), k});
               }
               return sum;
             })};
           },
       .terms = x.back() + 1,
       .scale = 4});
}

}  // namespace

void add_matmul(std::vector<OpCase>& cases) {
  add(cases, "dot", {5}, {5}, {});
  add(cases, "vector_matrix", {3}, {3, 4}, {4});
  add(cases, "matrix_vector", {3, 4}, {4}, {3});
  add(cases, "matrices", {3, 5}, {5, 4}, {3, 4});
  add(cases, "row_column", {1, 5}, {5, 1}, {1, 1});
  add(cases, "outer", {4, 1}, {1, 3}, {4, 3});
  add(cases, "batch", {2, 3, 5}, {2, 5, 4}, {2, 3, 4});
  add(cases, "batch_matrix", {2, 3, 5}, {5, 4}, {2, 3, 4});
  add(cases, "matrix_batch", {3, 5}, {2, 5, 4}, {2, 3, 4});
  add(cases, "batch_vector", {2, 3, 5}, {5}, {2, 3});
  add(cases, "vector_batch", {3}, {2, 3, 4}, {2, 4});
  add(cases, "broadcast", {2, 1, 3, 2}, {4, 2, 3}, {2, 4, 3, 3});
  add(cases, "broadcast_both", {2, 1, 3, 2}, {1, 4, 2, 3}, {2, 4, 3, 3});
  add(cases, "no_inner", {2, 0}, {0, 3}, {2, 3});
  add(cases, "no_rows", {0, 3}, {3, 2}, {0, 2});
  add(cases, "no_batch", {0, 2, 3}, {3, 2}, {0, 2, 2});
  add(cases, "large", {65, 130}, {130, 33}, {65, 33}, 0);
  add(cases, "large_batch", {3, 40, 65}, {3, 65, 20}, {3, 40, 20}, 0);
  for (bool bias : {false, true}) {
    add_linear(cases, "vector", {3}, bias);
    add_linear(cases, "matrix", {5, 3}, bias);
    add_linear(cases, "sequence", {2, 3, 5}, bias);
    add_linear(cases, "empty", {0, 3}, bias);
  }
}

}  // namespace espalier::op_cases
