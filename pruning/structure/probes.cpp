#include "pruning/structure/probes.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"

namespace espalier {

namespace {

/// The places of an integer input whose numbers look up rows of one table.
struct LookupPlaces {
  std::vector<size_t> places;
  int64_t rows = 0;
};

/// A lookup takes all numbers of the input, or those at one index of one of its axes, such as the column of the words.
std::vector<LookupPlaces> lookup_places(const DependencyGraph& graph, const Tensor& example) {
  const std::vector<int64_t> numbers = example.to(DType::i64).to_vector<int64_t>();
  std::vector<size_t> all(numbers.size());
  std::iota(all.begin(), all.end(), size_t{0});
  std::vector<std::vector<size_t>> candidates = {all};
  size_t inner = numbers.size();
  for (int axis = 0; axis < example.rank(); ++axis) {
    const auto size = static_cast<size_t>(example.size(axis));
    inner /= std::max<size_t>(size, 1);
    for (size_t index = 0; index < size; ++index) {
      std::vector<size_t>& places = candidates.emplace_back();
      std::copy_if(all.begin(), all.end(), std::back_inserter(places),
                   [&](size_t place) { return place / inner % size == index; });
    }
  }
  std::vector<LookupPlaces> found;
  for (const Lookup& lookup : graph.lookups())
    for (const std::vector<size_t>& places : candidates) {
      const bool same = places.size() == lookup.numbers.size() &&
                        std::equal(places.begin(), places.end(), lookup.numbers.begin(),
                                   [&](size_t place, int64_t number) { return numbers[place] == number; });
      if (same) found.push_back({places, lookup.rows});
      if (same) break;
    }
  // Places that look up several tables, such as those of words and of positions, ask for rows that all of them have.
  for (LookupPlaces& one : found)
    for (const LookupPlaces& other : found)
      if (std::find_first_of(one.places.begin(), one.places.end(), other.places.begin(), other.places.end()) !=
          one.places.end())
        one.rows = std::min(one.rows, other.rows);
  return found;
}

/// Inputs that ask each table for all of its rows, in random orders, and `count` that ask for any.
std::vector<Tensor> lookup_probes(const std::vector<LookupPlaces>& lookups, const Tensor& example, size_t count,
                                  Generator& generator) {
  size_t ordered = 1;
  for (const LookupPlaces& lookup : lookups)
    ordered = std::max(ordered, (static_cast<size_t>(lookup.rows) + lookup.places.size() - 1) / lookup.places.size());
  std::vector<std::vector<int64_t>> probes(ordered + count, example.to(DType::i64).to_vector<int64_t>());
  for (const LookupPlaces& lookup : lookups) {
    std::vector<int64_t> rows;  // of which the last is the next
    for (size_t i = 0; i < probes.size(); ++i)
      for (const size_t place : lookup.places) {
        if (rows.empty()) rows = generator.permutation(lookup.rows);
        probes[i][place] =
            i < ordered ? rows.back() : static_cast<int64_t>(generator.next_below(static_cast<uint64_t>(lookup.rows)));
        if (i < ordered) rows.pop_back();
      }
  }
  std::vector<Tensor> result;
  for (const std::vector<int64_t>& probe : probes)
    result.push_back(Tensor::from(probe, example.shape()).to(example.dtype()).to(example.device()));
  return result;
}

/// Of one of the network's inputs.
std::vector<Tensor> probes_of(const DependencyGraph& graph, const Tensor& example, int count, Generator& generator) {
  if (!is_floating(example.dtype()))
    if (const std::vector<LookupPlaces> lookups = lookup_places(graph, example.to(Device::cpu())); !lookups.empty())
      return lookup_probes(lookups, example, static_cast<size_t>(count), generator);
  std::vector<Tensor> probes;
  for (int i = 0; i < count; ++i) {
    if (is_floating(example.dtype())) {
      probes.push_back((randn(example.shape(), generator, example.dtype()) * std::pow(3.0, i)).to(example.device()));
    } else {
      const int64_t n = example.numel();
      const Tensor order = Tensor::from(generator.permutation(n), {n}).to(example.device());
      probes.push_back(index_select(example.contiguous().reshape({n}), 0, order).reshape(example.shape()));
    }
  }
  return probes;
}

}  // namespace

std::vector<Bundle> probes_like(const DependencyGraph& graph, const Bundle& example, int count) {
  Generator generator(0x70726F6265);
  std::vector<Variables> probes;
  for (const Variable& input : example) {
    const std::vector<Tensor> of_input = probes_of(graph, input.data(), count, generator);
    probes.resize(std::max(probes.size(), of_input.size()));
    for (size_t i = 0; i < probes.size(); ++i)  // an input with fewer of them has its own again
      probes[i].push_back(of_input[i % of_input.size()]);
  }
  return {probes.begin(), probes.end()};
}

}  // namespace espalier
