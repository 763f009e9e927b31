#include "layers/input_selection.h"

#include <algorithm>

namespace espalier {

int64_t count_inputs(std::string_view where, const std::vector<int64_t>& inputs, int64_t size) {
  for (size_t i = 0; i < inputs.size(); ++i)
    check(inputs[i] >= 0 && inputs[i] < size && (i == 0 || inputs[i - 1] < inputs[i]), where,
          "inputs must be increasing indices from 0 to {}, got {} at position {}", size - 1, inputs[i], i);
  return inputs.empty() ? size : static_cast<int64_t>(inputs.size());
}

Variable selected(const Variable& x, int axis, const std::vector<int64_t>& inputs) {
  if (inputs.empty()) return x;
  return index_select(x, axis, Tensor::from(inputs, {static_cast<int64_t>(inputs.size())}));
}

std::vector<int64_t> keep_inputs(std::string_view where, const std::vector<int64_t>& inputs, int64_t size,
                                 const std::vector<int64_t>& kept) {
  check(!kept.empty(), where, "expected at least one input channel to keep, got none of {}", size);
  count_inputs(where, kept, size);
  if (inputs.empty()) return {};
  std::vector<int64_t> result;
  for (size_t i = 0; i < kept.size(); ++i)
    if (std::binary_search(inputs.begin(), inputs.end(), kept[i])) result.push_back(static_cast<int64_t>(i));
  check(!result.empty(), where, "none of the kept input channels is one that is read; keep at least one of these");
  if (result.size() == kept.size()) result.clear();
  return result;
}

}  // namespace espalier
