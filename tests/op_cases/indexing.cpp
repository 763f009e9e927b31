#include "tests/op_cases.h"

namespace espalier::op_cases {

void add_indexing(std::vector<OpCase>& cases) {
  // Indices repeat, so that gradients must add up.
  const std::vector<int64_t> picks = {2, 0, 2, 1};
  const Tensor list = Tensor::from(picks, {4});
  const std::vector<int64_t> places = {0, 3, 1, 1, 4, 4};
  const Tensor grid = Tensor::from(places, {2, 3});
  const auto place = [places](const Index& i) { return places[static_cast<size_t>(i[0] * 3 + i[1])]; };

  cases.push_back({.name = "gather.rows",
                   .inputs = {{{3, 5}}},  // larger than the index on the other axis
                   .run = [=](const Variables& v) { return Variables{gather(v[0], 1, grid.to(v[0].device()))}; },
                   .reference =
                       [=](const Arrays& a) {
                         return Arrays{fill({2, 3}, [&](const Index& i) { return a[0]({i[0], place(i)}); })};
                       }});
  cases.push_back({.name = "gather.columns",
                   .inputs = {{{5, 3}}},
                   .run = [=](const Variables& v) { return Variables{gather(v[0], 0, grid.to(v[0].device()))}; },
                   .reference =
                       [=](const Arrays& a) {
                         return Arrays{fill({2, 3}, [&](const Index& i) { return a[0]({place(i), i[1]}); })};
                       }});
  for (int axis : {0, 1})
    cases.push_back(
        {.name = axis == 0 ? "scatter_add.columns" : "scatter_add.rows",
         .inputs = {{axis == 0 ? Shape{5, 3} : Shape{2, 5}}, {{2, 3}}},
         .run = [=](const Variables& v) { return Variables{scatter_add(v[0], axis, grid.to(v[0].device()), v[1])}; },
         .reference =
             [=](const Arrays& a) {
               Array out = a[0];
               for_each({2, 3}, [&](const Index& i) {
                 out(axis == 0 ? Index{place(i), i[1]} : Index{i[0], place(i)}) += a[1](i);
               });
               return Arrays{out};
             },
         .terms = 3,
         .scale = 2});
  cases.push_back({.name = "index_select.first",
                   .inputs = {{{3, 2}}},
                   .run = [=](const Variables& v) { return Variables{index_select(v[0], 0, list.to(v[0].device()))}; },
                   .reference =
                       [=](const Arrays& a) {
                         return Arrays{fill({4, 2}, [&](const Index& i) {
                           return a[0]({picks[static_cast<size_t>(i[0])], i[1]});
                         })};
                       }});
  cases.push_back({.name = "index_select.middle",
                   .inputs = {{{2, 3, 2}}},
                   .run = [=](const Variables& v) { return Variables{index_select(v[0], -2, list.to(v[0].device()))}; },
                   .reference =
                       [=](const Arrays& a) {
                         return Arrays{fill({2, 4, 2}, [&](const Index& i) {
                           return a[0]({i[0], picks[static_cast<size_t>(i[1])], i[2]});
                         })};
                       }});
  for (int axis : {0, 1})
    cases.push_back(
        {.name = axis == 0 ? "index_add.first" : "index_add.last",
         .inputs = {{axis == 0 ? Shape{3, 2} : Shape{2, 3}}, {axis == 0 ? Shape{4, 2} : Shape{2, 4}}},
         .run = [=](const Variables& v) { return Variables{index_add(v[0], axis, list.to(v[0].device()), v[1])}; },
         .reference =
             [=](const Arrays& a) {
               Array out = a[0];
               for_each(a[1].shape, [&](const Index& i) {
                 Index to = i;
                 to[static_cast<size_t>(axis)] = picks[static_cast<size_t>(i[static_cast<size_t>(axis)])];
                 out(to) += a[1](i);
               });
               return Arrays{out};
             },
         .terms = 3,
         .scale = 2});
  for (const Shape& ids : {Shape{6}, Shape{2, 3}, Shape{}, Shape{1, 2, 1}})
    cases.push_back({.name = fmt::format("embedding.ids_of_rank_{}", ids.rank()),
                     .inputs = {{{5, 4}}},
                     .run =
                         [=](const Variables& v) {
                           const std::vector<int64_t> first(places.begin(), places.begin() + ids.numel());
                           return Variables{embedding(v[0], Tensor::from(first, ids).to(v[0].device()))};
                         },
                     .reference =
                         [=](const Arrays& a) {
                           Shape out = ids;
                           out.push_back(4);
                           Array result(out);
                           for (size_t i = 0; i < result.values.size(); ++i)
                             result.values[i] = a[0]({places[i / 4], static_cast<int64_t>(i % 4)});
                           return Arrays{result};
                         }});
}

}  // namespace espalier::op_cases
