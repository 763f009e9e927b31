#include "core/sparse/csr.h"

#include <bit>
#include <limits>

namespace espalier {

double Csr::sparsity() const {
  const double places = static_cast<double>(rows) * static_cast<double>(columns);
  return places > 0 ? 1 - static_cast<double>(nnz()) / places : 0;
}

void check_csr(const char* operation, const Csr& a) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  check(a.rows >= 0 && a.columns >= 0 && a.rows <= kMost && a.columns <= kMost, operation,
        "expected a matrix of at most {} rows and columns, got ({},{})", kMost, a.rows, a.columns);
  check(static_cast<int64_t>(a.row_offsets.size()) == a.rows + 1 && a.row_offsets[0] == 0, operation,
        "expected {} row offsets, the first one 0, got {} that begin with {}", a.rows + 1, a.row_offsets.size(),
        a.row_offsets.empty() ? -1 : a.row_offsets[0]);
  const auto entries = static_cast<int64_t>(a.column.size());
  check(entries <= kMost, operation, "expected at most {} entries, got {}", kMost, entries);
  for (size_t i = 0; i < static_cast<size_t>(a.rows); ++i) {
    const int64_t begin = a.row_offsets[i], end = a.row_offsets[i + 1];
    check(begin <= end && end <= entries, operation,
          "expected row offsets that never fall, up to {} entries; row {} goes from {} to {}", entries, i, begin, end);
    int64_t before = -1;
    for (int64_t e = begin; e < end; ++e) {
      const int64_t column = a.column[static_cast<size_t>(e)];
      check(column > before && column < a.columns, operation,
            "expected columns that increase within row {} and lie in [0,{}), got {} after {}", i, a.columns, column,
            before);
      before = column;
    }
  }
  check(a.nnz() == entries, operation, "expected row offsets that end at the {} entries, got {}", entries, a.nnz());
  check(a.value.empty() || a.value.size() == a.column.size(), operation,
        "expected a value for each of {} entries, got {}", entries, a.value.size());
}

namespace {
/// A matrix of a tensor's elements: axis 0 are the rows, all others joined the columns.
Csr empty_for(const char* operation, const Shape& shape) {
  Csr a;
  a.rows = shape.rank() == 0 ? 1 : shape[0];
  a.columns = a.rows == 0 ? 0 : shape.numel() / a.rows;
  check(shape.numel() <= std::numeric_limits<int32_t>::max(), operation,
        "expected a matrix of less than 2^31 places, got {}", shape);
  a.row_offsets.reserve(static_cast<size_t>(a.rows) + 1);
  return a;
}
}  // namespace

Csr csr_of(const Mask& mask, const Tensor& weight) {
  check(mask.defined() && weight.defined() && weight.shape() == mask.shape() && weight.dtype() == DType::f32 &&
            weight.is_contiguous() && weight.device().is_cpu(),
        "csr_of", "expected a mask and its contiguous f32 weight on the CPU, got {}",
        weight.defined() ? describe(weight) : "an undefined one");
  Csr a = empty_for("csr_of", weight.shape());
  const Mask elements = mask.to(Device::cpu()).as_elements();
  const auto* words = reinterpret_cast<const uint64_t*>(elements.words().data<int64_t>());
  const auto* values = weight.data<float>();
  const auto count = static_cast<size_t>(elements.count());
  a.column.reserve(count);
  a.value.reserve(count);
  int64_t row_end = a.columns;
  const int64_t places = a.rows * a.columns;
  for (int64_t word = 0; word * 64 < places; ++word) {
    uint64_t bits = words[word];
    while (bits != 0) {
      const int64_t place = word * 64 + std::countr_zero(bits);
      bits &= bits - 1;
      for (; place >= row_end; row_end += a.columns) a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
      a.column.push_back(static_cast<int32_t>(place - (row_end - a.columns)));
      a.value.push_back(values[place]);
    }
  }
  while (static_cast<int64_t>(a.row_offsets.size()) <= a.rows)
    a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
  return a;
}

Csr csr_of(const Tensor& matrix) {
  check(matrix.defined() && matrix.rank() == 2 && matrix.dtype() == DType::f32 && matrix.device().is_cpu(), "csr_of",
        "expected an f32 matrix on the CPU, got {}", matrix.defined() ? describe(matrix) : "an undefined one");
  const Tensor dense = matrix.contiguous();
  Csr a = empty_for("csr_of", dense.shape());
  const auto* values = dense.data<float>();
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.columns; ++k) {
      if (values[i * a.columns + k] == 0) continue;
      a.column.push_back(static_cast<int32_t>(k));
      a.value.push_back(values[i * a.columns + k]);
    }
    a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
  }
  return a;
}

Tensor to_dense(const Csr& a) {
  Tensor dense = Tensor::zeros({a.rows, a.columns});
  auto* values = dense.data<float>();
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e)
      values[i * a.columns + a.column[static_cast<size_t>(e)]] =
          a.value.empty() ? 1.0F : a.value[static_cast<size_t>(e)];
  return dense;
}

Transposed transposed(const Csr& a) {
  Transposed result;
  Csr& t = result.matrix;
  t.rows = a.columns;
  t.columns = a.rows;
  t.row_offsets.assign(static_cast<size_t>(t.rows) + 1, 0);
  for (const int32_t k : a.column) ++t.row_offsets[static_cast<size_t>(k) + 1];
  for (size_t k = 0; k < static_cast<size_t>(t.rows); ++k) t.row_offsets[k + 1] += t.row_offsets[k];
  t.column.resize(a.column.size());
  result.from.resize(a.column.size());
  std::vector<int64_t> next(t.row_offsets.begin(), t.row_offsets.end() - 1);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e) {
      const auto at = static_cast<size_t>(next[static_cast<size_t>(a.column[static_cast<size_t>(e)])]++);
      t.column[at] = static_cast<int32_t>(i);
      result.from[at] = static_cast<int32_t>(e);
    }
  }
  if (!a.value.empty()) {
    t.value.reserve(a.value.size());
    for (const int32_t e : result.from) t.value.push_back(a.value[static_cast<size_t>(e)]);
  }
  return result;
}

}  // namespace espalier
