#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

/// An operation that moves elements: element i of the output is element map(i) of the input.
void add_move(std::vector<OpCase>& cases, const std::string& name, const Shape& in, const Shape& out,
              const std::function<Variable(const Variable&)>& f, const std::function<Index(const Index&)>& map) {
  cases.push_back(
      {.name = name,
       .inputs = {{in}},
       .run = [f](const Variables& v) { return Variables{f(v[0])}; },
       .reference = [=](const Arrays& a) { return Arrays{fill(out, [&](const Index& i) { return a[0](map(i)); })}; }});
}

/// Row-major order stays: reshape and its kin.
void add_reshape(std::vector<OpCase>& cases, const std::string& name, const Shape& in, const Shape& out,
                 const std::function<Variable(const Variable&)>& f) {
  cases.push_back({.name = name,
                   .inputs = {{in}},
                   .run = [f](const Variables& v) { return Variables{f(v[0])}; },
                   .reference =
                       [=](const Arrays& a) {
                         Array result(out);
                         result.values = a[0].values;
                         return Arrays{result};
                       }});
}

void add_views(std::vector<OpCase>& cases) {
  add_reshape(cases, "reshape.join", {2, 3, 4}, {6, 4}, [](auto& x) { return reshape(x, {6, 4}); });
  add_reshape(cases, "reshape.unknown", {2, 3, 4}, {4, 6}, [](auto& x) { return reshape(x, {4, -1}); });
  add_reshape(cases, "reshape.scalar", {1, 1}, {}, [](auto& x) { return reshape(x, {}); });
  add_reshape(cases, "reshape.of_transposed", {2, 3}, {6}, [](auto& x) { return reshape(transpose(x, 0, 1), {6}); });
  cases.back().reference = [](const Arrays& a) {
    return Arrays{fill({6}, [&](const Index& i) { return a[0]({i[0] % 2, i[0] / 2}); })};
  };
  add_reshape(cases, "flatten.default", {2, 3, 4}, {2, 12}, [](auto& x) { return flatten(x); });
  add_reshape(cases, "flatten.all", {2, 3, 4}, {24}, [](auto& x) { return flatten(x, 0); });
  add_reshape(cases, "flatten.some", {2, 3, 4, 2}, {2, 12, 2}, [](auto& x) { return flatten(x, 1, 2); });
  add_reshape(cases, "squeeze.middle", {2, 1, 3}, {2, 3}, [](auto& x) { return squeeze(x, 1); });
  add_reshape(cases, "squeeze.last", {2, 1}, {2}, [](auto& x) { return squeeze(x, -1); });
  add_reshape(cases, "unsqueeze.first", {2, 3}, {1, 2, 3}, [](auto& x) { return unsqueeze(x, 0); });
  add_reshape(cases, "unsqueeze.last", {2, 3}, {2, 3, 1}, [](auto& x) { return unsqueeze(x, -1); });
  add_move(
      cases, "permute.cycle", {2, 3, 4}, {4, 2, 3},
      [](auto& x) {
        return permute(x, {2, 0, 1});
      },
      [](const Index& i) {
        return Index{i[1], i[2], i[0]};
      });
  add_move(
      cases, "permute.negative", {2, 3, 4}, {4, 3, 2},
      [](auto& x) {
        return permute(x, {-1, -2, -3});
      },
      [](const Index& i) {
        return Index{i[2], i[1], i[0]};
      });
  add_move(
      cases, "transpose.matrix", {5, 7}, {7, 5}, [](auto& x) { return transpose(x, 0, 1); },
      [](const Index& i) {
        return Index{i[1], i[0]};
      });
  add_move(
      cases, "transpose.outer", {2, 3, 4}, {4, 3, 2}, [](auto& x) { return transpose(x, 0, -1); },
      [](const Index& i) {
        return Index{i[2], i[1], i[0]};
      });
  add_move(
      cases, "slice.middle", {5, 4}, {3, 4}, [](auto& x) { return slice(x, 0, 1, 4); },
      [](const Index& i) {
        return Index{i[0] + 1, i[1]};
      });
  add_move(
      cases, "slice.step", {3, 8}, {3, 3}, [](auto& x) { return slice(x, 1, 1, 8, 3); },
      [](const Index& i) {
        return Index{i[0], 1 + 3 * i[1]};
      });
  add_move(
      cases, "slice.negative", {3, 8}, {3, 2}, [](auto& x) { return slice(x, -1, -3, -1); },
      [](const Index& i) {
        return Index{i[0], 5 + i[1]};
      });
  add_move(
      cases, "slice.nothing", {3, 4}, {3, 0}, [](auto& x) { return slice(x, 1, 2, 2); },
      [](const Index& i) { return i; });
  add_move(
      cases, "select.first", {3, 4}, {4}, [](auto& x) { return select(x, 0, 2); },
      [](const Index& i) {
        return Index{2, i[0]};
      });
  add_move(
      cases, "select.last", {3, 4}, {3}, [](auto& x) { return select(x, -1, -1); },
      [](const Index& i) {
        return Index{i[0], 3};
      });
  add_move(
      cases, "expand.column", {3, 1}, {3, 4},
      [](auto& x) {
        return expand(x, {3, 4});
      },
      [](const Index& i) {
        return Index{i[0], 0};
      });
  add_move(
      cases, "expand.new_axes", {3, 1}, {2, 5, 3, 4},
      [](auto& x) {
        return expand(x, {2, 5, 3, 4});
      },
      [](const Index& i) {
        return Index{i[2], 0};
      });
  add_move(
      cases, "expand.scalar", {}, {2, 3},
      [](auto& x) {
        return expand(x, {2, 3});
      },
      [](const Index&) { return Index{}; });
}

void add_joins(std::vector<OpCase>& cases) {
  cases.push_back({.name = "cat.first",
                   .inputs = {{{2, 3}}, {{1, 3}}, {{4, 3}}},
                   .run = [](const Variables& v) { return Variables{cat(v, 0)}; },
                   .reference =
                       [](const Arrays& a) {
                         Array out({7, 3});
                         out.values.clear();
                         for (const Array& part : a)
                           out.values.insert(out.values.end(), part.values.begin(), part.values.end());
                         return Arrays{out};
                       }});
  cases.push_back(
      {.name = "cat.last",
       .inputs = {{{2, 3}}, {{2, 0}}, {{2, 2}}},
       .run = [](const Variables& v) { return Variables{cat(v, -1)}; },
       .reference =
           [](const Arrays& a) {
             return Arrays{fill({2, 5}, [&](const Index& i) { return i[1] < 3 ? a[0](i) : a[2]({i[0], i[1] - 3}); })};
           }});
  cases.push_back({.name = "cat.one",
                   .inputs = {{{2, 3}}},
                   .run = [](const Variables& v) { return Variables{cat(v, 1)}; },
                   .reference = [](const Arrays& a) { return a; }});
  for (int axis : {0, 1, -1})
    cases.push_back({.name = fmt::format("stack.axis_{}", axis < 0    ? "last"
                                                          : axis == 0 ? "first"
                                                                      : "middle"),
                     .inputs = {{{2, 3}}, {{2, 3}}},
                     .run = [=](const Variables& v) { return Variables{stack(v, axis)}; },
                     .reference =
                         [=](const Arrays& a) {
                           const Shape out = axis == 0 ? Shape{2, 2, 3} : axis == 1 ? Shape{2, 2, 3} : Shape{2, 3, 2};
                           return Arrays{fill(out, [&](const Index& i) {
                             if (axis == 0) return a[static_cast<size_t>(i[0])]({i[1], i[2]});
                             if (axis == 1) return a[static_cast<size_t>(i[1])]({i[0], i[2]});
                             return a[static_cast<size_t>(i[2])]({i[0], i[1]});
                           })};
                         }});
  for (double value : {0.0, 2.5})
    cases.push_back({.name = value == 0 ? "pad.zeros" : "pad.value",
                     .inputs = {{{2, 3}}},
                     .run =
                         [=](const Variables& v) {
                           return Variables{pad(v[0], {{1, 0}, {2, 3}}, value)};
                         },
                     .reference =
                         [=](const Arrays& a) {
                           return Arrays{fill({3, 8}, [&](const Index& i) {
                             const bool inside = i[0] >= 1 && i[1] >= 2 && i[1] < 5;
                             return inside ? a[0]({i[0] - 1, i[1] - 2}) : value;
                           })};
                         }});
}

}  // namespace

void add_shape(std::vector<OpCase>& cases) {
  add_views(cases);
  add_joins(cases);
}

}  // namespace espalier::op_cases
