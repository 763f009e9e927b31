// libespalier_kernels.so: our kernels behind the C interface by which any kernel is timed. No exception leaves it: what
// fails gives NULL or leaves the output as it is.
#include "core/sparse/spmm_api.h"

#include <memory>
#include <optional>

#include "core/sparse/sddmm.h"
#include "core/sparse/spmm.h"
#include "core/threads.h"

#define ESPALIER_EXPORT extern "C" __attribute__((visibility("default")))

struct espalier_spmm_plan {
  int64_t n;
  int threads;
  espalier::Csr structure;
  espalier::SpmmPlan forward;
  // Made when first asked for: many drivers time the product only.
  std::vector<float> values;
  std::optional<espalier::SpmmPlan> transposed = {};
  std::vector<int32_t> from = {};  ///< of each entry of the transposed matrix, which one of A it is

  void make_transposed() {
    espalier::Csr a = structure;
    a.value = values;
    espalier::Transposed t = espalier::transposed(a);
    from = std::move(t.from);
    transposed.emplace(t.matrix);
  }
};

namespace {

/// While alive, kernels use the plan's threads.
class Threads {
 public:
  explicit Threads(int threads) : before_(espalier::num_threads()) { espalier::set_num_threads(threads); }
  ~Threads() { espalier::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

template <class F>
void guarded(espalier_spmm_plan* plan, F&& f) {
  try {
    const Threads threads(plan->threads);
    f();
  } catch (...) {
  }
}

}  // namespace

ESPALIER_EXPORT espalier_spmm_plan* espalier_spmm_create(const espalier_csr* a, int64_t n, int threads) {
  try {
    if (a == nullptr || a->rows < 0 || n < 0 || threads < 1) return nullptr;
    espalier::Csr csr;
    csr.rows = a->rows;
    csr.columns = a->columns;
    csr.row_offsets.assign(a->row_offsets, a->row_offsets + a->rows + 1);
    csr.column.assign(a->column, a->column + csr.nnz());
    csr.value.assign(a->value, a->value + csr.nnz());
    espalier::SpmmPlan forward(csr);
    std::vector<float> values = std::move(csr.value);
    csr.value.clear();
    return new espalier_spmm_plan{n, threads, std::move(csr), std::move(forward), std::move(values)};
  } catch (...) {
    return nullptr;
  }
}

ESPALIER_EXPORT void espalier_spmm_run(espalier_spmm_plan* plan, const float* x, float* y) {
  guarded(plan, [&] { plan->forward.multiply(x, plan->n, plan->n, y, plan->n); });
}

ESPALIER_EXPORT int64_t espalier_spmm_packed_floats(const espalier_spmm_plan* plan) {
  return plan->forward.packed_floats(plan->n);
}

ESPALIER_EXPORT void espalier_spmm_pack(espalier_spmm_plan* plan, const float* x, float* packed) {
  guarded(plan, [&] { plan->forward.pack(x, plan->n, plan->n, packed); });
}

ESPALIER_EXPORT void espalier_spmm_run_packed(espalier_spmm_plan* plan, const float* packed, float* y) {
  guarded(plan, [&] { plan->forward.run(packed, plan->n, y, plan->n); });
}

ESPALIER_EXPORT void espalier_spmm_set_values(espalier_spmm_plan* plan, const float* value) {
  guarded(plan, [&] {
    plan->values.assign(value, value + plan->forward.nnz());
    plan->forward.set_values(plan->values);
    if (!plan->transposed) return;
    std::vector<float> values;
    for (const int32_t e : plan->from) values.push_back(plan->values[static_cast<size_t>(e)]);
    plan->transposed->set_values(values);
  });
}

ESPALIER_EXPORT void espalier_spmm_destroy(espalier_spmm_plan* plan) { delete plan; }

ESPALIER_EXPORT void espalier_sddmm_run(espalier_spmm_plan* plan, const float* dy, const float* x, float* g) {
  guarded(plan, [&] { espalier::sddmm(plan->structure, dy, plan->n, x, plan->n, plan->n, g); });
}

ESPALIER_EXPORT void espalier_spmm_transposed_run(espalier_spmm_plan* plan, const float* dy, float* dx) {
  guarded(plan, [&] {
    if (!plan->transposed) plan->make_transposed();
    plan->transposed->multiply(dy, plan->n, plan->n, dx, plan->n);
  });
}
