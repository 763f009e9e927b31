#include <cmath>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

constexpr int64_t kSteps = 4, kBatch = 3, kInput = 2, kHidden = 3;

struct Variant {
  std::string name;
  bool bias = true;
  bool reverse = false;
  std::vector<int64_t> lengths = {};
};

/// One sequence after another, one hidden unit after another. a: x, h0, c0, w_ih, w_hh and perhaps b_ih, b_hh.
Arrays reference_of(const Variant& t, const Arrays& a) {
  Array output({kSteps, kBatch, kHidden}), h = a[1], c = a[2];
  for (int64_t b = 0; b < kBatch; ++b) {
    const int64_t length = t.lengths.empty() ? kSteps : t.lengths[static_cast<size_t>(b)];
    for (int64_t step = 0; step < length; ++step) {
      const int64_t at = t.reverse ? length - 1 - step : step;
      const auto gate = [&](int64_t kind, int64_t unit) {  // kinds in the order i, f, g, o
        const int64_t row = kind * kHidden + unit;
        double sum = t.bias ? a[5]({row}) + a[6]({row}) : 0;
        for (int64_t k = 0; k < kInput; ++k) sum += a[3]({row, k}) * a[0]({at, b, k});
        for (int64_t k = 0; k < kHidden; ++k) sum += a[4]({row, k}) * h({b, k});
        return sum;
      };
      std::vector<double> next_h, next_c;
      for (int64_t unit = 0; unit < kHidden; ++unit) {
        const double i = sigmoid_of(gate(0, unit)), f = sigmoid_of(gate(1, unit));
        const double g = std::tanh(gate(2, unit)), o = sigmoid_of(gate(3, unit));
        next_c.push_back(f * c({b, unit}) + i * g);
        next_h.push_back(o * std::tanh(next_c.back()));
      }
      for (int64_t unit = 0; unit < kHidden; ++unit) {
        c({b, unit}) = next_c[static_cast<size_t>(unit)];
        h({b, unit}) = output({at, b, unit}) = next_h[static_cast<size_t>(unit)];
      }
    }
  }
  return {output, h, c};
}

}  // namespace

void add_lstm(std::vector<OpCase>& cases) {
  for (const Variant& t : std::vector<Variant>{{"plain"},
                                               {"no_bias", false},
                                               {"reverse", true, true},
                                               {"lengths", true, false, {2, 4, 1}},
                                               {"lengths_reverse", true, true, {3, 1, 4}},
                                               {"lengths_all_short", true, false, {2, 3, 2}}}) {
    std::vector<OpInput> inputs = {{{kSteps, kBatch, kInput}},
                                   {{kBatch, kHidden}},
                                   {{kBatch, kHidden}},
                                   {{4 * kHidden, kInput}},
                                   {{4 * kHidden, kHidden}}};
    if (t.bias) inputs.insert(inputs.end(), {{{4 * kHidden}}, {{4 * kHidden}}});
    cases.push_back({.name = "lstm." + t.name,
                     .inputs = inputs,
                     .run =
                         [=](const Variables& v) {
                           const Tensor lengths = t.lengths.empty() ? Tensor() : Tensor::from(t.lengths, {kBatch});
                           const LstmStates s = lstm(v[0], v[1], v[2], v[3], v[4], t.bias ? v[5] : Variable(),
                                                     t.bias ? v[6] : Variable(), lengths, t.reverse);
                           return Variables{s.output, s.h, s.c};
                         },
                     .reference = [=](const Arrays& a) { return reference_of(t, a); },
                     .terms = kSteps * (kInput + kHidden),
                     .scale = 2});
  }
}

}  // namespace espalier::op_cases
