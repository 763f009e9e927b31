/* How any sparse kernel is measured: a shared library that exports these functions, by C, with plain arrays.
 * `espalier bench --kernel LIBRARY.so` loads such libraries, and our own kernels are exported in the same way by
 * libespalier_kernels.so, so that anybody's driver can time them without us. Row-major, f32, no alignment promised. */
#ifndef ESPALIER_SPMM_API_H
#define ESPALIER_SPMM_API_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* A (rows, columns): row i has the entries row_offsets[i] <= e < row_offsets[i + 1]; columns increase within a row. */
typedef struct {
  int64_t rows, columns;
  const int64_t* row_offsets; /* rows + 1 */
  const int32_t* column;      /* nnz */
  const float* value;         /* nnz */
} espalier_csr;

typedef struct espalier_spmm_plan espalier_spmm_plan;

/* Prepares Y = A X for X (columns, n): packs, chooses, generates code. A may be freed afterwards. NULL: not supported.
 */
espalier_spmm_plan* espalier_spmm_create(const espalier_csr* a, int64_t n, int threads);
/* Y (rows, n) = A X, both row-major with leading dimension n; Y is assigned. Whatever layout the kernel wants of X, it
 * makes here, in the time that is measured. */
void espalier_spmm_run(espalier_spmm_plan* plan, const float* x, float* y);
/* The same from an X that espalier_spmm_pack laid out (`packed` has espalier_spmm_packed_floats elements): what a
 * network pays between two sparse layers. */
int64_t espalier_spmm_packed_floats(const espalier_spmm_plan* plan);
void espalier_spmm_pack(espalier_spmm_plan* plan, const float* x, float* packed);
void espalier_spmm_run_packed(espalier_spmm_plan* plan, const float* packed, float* y);
/* New values for the same entries, in A's order. */
void espalier_spmm_set_values(espalier_spmm_plan* plan, const float* value);
void espalier_spmm_destroy(espalier_spmm_plan* plan);

/* G (nnz, in A's order) = (dY X^T) at A's entries; dY (rows, n), X (columns, n). */
void espalier_sddmm_run(espalier_spmm_plan* plan, const float* dy, const float* x, float* g);
/* dX (columns, n) = A^T dY. */
void espalier_spmm_transposed_run(espalier_spmm_plan* plan, const float* dy, float* dx);

#ifdef __cplusplus
}
#endif
#endif
