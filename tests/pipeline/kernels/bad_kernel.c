/* Kernels as strangers might bring them: FAULT says what is wrong with this one. */
#include <stdlib.h>
#include <unistd.h>

#include "core/sparse/spmm_api.h"

#define NONE 0
#define WRONG 1      /* leaves out the last entry of each row */
#define OVERREADS 2  /* reads one float behind X */
#define CRASHES 3
#define REFUSES 4
#define UNWRITTEN 5  /* leaves Y as it is */
#define ENDS 6       /* its process ends in a timed call */

#define EXPORT __attribute__((visibility("default")))

struct espalier_spmm_plan {
  espalier_csr a;
  int64_t n;
  int calls;
};

static void* copy_of(const void* from, size_t bytes) {
  char* to = malloc(bytes + 1);
  for (size_t i = 0; i < bytes; ++i) to[i] = ((const char*)from)[i];
  return to;
}

EXPORT espalier_spmm_plan* espalier_spmm_create(const espalier_csr* a, int64_t n, int threads) {
  (void)threads;
  if (FAULT == REFUSES) return NULL;
  espalier_spmm_plan* plan = malloc(sizeof *plan);
  const size_t nnz = (size_t)a->row_offsets[a->rows];
  plan->a = *a;
  plan->a.row_offsets = copy_of(a->row_offsets, (size_t)(a->rows + 1) * sizeof(int64_t));
  plan->a.column = copy_of(a->column, nnz * sizeof(int32_t));
  plan->a.value = copy_of(a->value, nnz * sizeof(float));
  plan->n = n;
  plan->calls = 0;
  return plan;
}

EXPORT void espalier_spmm_run(espalier_spmm_plan* plan, const float* x, float* y) {
  const espalier_csr* a = &plan->a;
  const int64_t n = plan->n;
  if (FAULT == CRASHES) *(volatile int*)0 = 1;
  if (FAULT == UNWRITTEN) return;
  if (FAULT == ENDS && ++plan->calls > 2) _exit(0);
  for (int64_t i = 0; i < a->rows; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      const int64_t end = a->row_offsets[i + 1] - (FAULT == WRONG && a->row_offsets[i + 1] > a->row_offsets[i] ? 1 : 0);
      for (int64_t e = a->row_offsets[i]; e < end; ++e) sum += a->value[e] * x[a->column[e] * n + j];
      y[i * n + j] = sum;
    }
  }
  if (FAULT == OVERREADS) y[0] += 0 * ((volatile const float*)x)[a->columns * n];
}

EXPORT int64_t espalier_spmm_packed_floats(const espalier_spmm_plan* plan) { return plan->a.columns * plan->n; }
EXPORT void espalier_spmm_pack(espalier_spmm_plan* plan, const float* x, float* packed) {
  for (int64_t i = 0; i < plan->a.columns * plan->n; ++i) packed[i] = x[i];
}
EXPORT void espalier_spmm_run_packed(espalier_spmm_plan* plan, const float* packed, float* y) {
  espalier_spmm_run(plan, packed, y);
}
EXPORT void espalier_spmm_destroy(espalier_spmm_plan* plan) { free(plan); }
