// Reductions over any set of axes. Floating-point sums are taken in double, in an order that depends on the shape and
// strides only: the same bits on any GPU.
//
// Terms that lie next to each other go to the lanes of one warp, which join their results by shuffles. Where results
// are closer in memory than terms, neighbouring lanes take neighbouring results instead. Few long sums are cut into
// pieces, which a second kernel joins in order.
#include <limits>

#include "core/backend/reduction.h"
#include "cuda/elementwise.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;

// --- what is joined ------------------------------------------------------------------------------------------------

/// A reduction of T, accumulated in A, to R.
template <class Op, class T, class A, class R>
struct Fold {
  using Term = T;
  using State = A;
  using Result = R;
  __device__ static State start() { return Op::template start<A>(); }
  __device__ static State of(T x, int64_t) { return static_cast<A>(x); }
  __device__ static State join(State a, State b) { return Op::join(a, b); }
  __device__ static State from_lane(State a, unsigned distance) { return __shfl_down_sync(kFullWarp, a, distance); }
  __device__ static Result result(State a) { return static_cast<R>(a); }
};

/// The place of the largest (or smallest) T: the first NaN if there is one, else the first of equals.
template <bool Largest, class T, class A>
struct Best {
  using Term = T;
  using Result = int64_t;
  struct State {
    A value;
    int64_t place;  ///< -1: nothing seen yet
  };
  __device__ static State start() { return {A{0}, -1}; }
  __device__ static State of(T x, int64_t place) { return {static_cast<A>(x), place}; }
  __device__ static State join(State a, State b) {
    if (b.place < 0) return a;
    if (a.place < 0) return b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    if (!a_nan && a.value != b.value) return (Largest ? a.value > b.value : a.value < b.value) ? a : b;
    return a.place < b.place ? a : b;
  }
  __device__ static State from_lane(State a, unsigned distance) {
    return {__shfl_down_sync(kFullWarp, a.value, distance), __shfl_down_sync(kFullWarp, a.place, distance)};
  }
  __device__ static Result result(State a) { return a.place; }
};

// --- kernels -------------------------------------------------------------------------------------------------------

/// The two halves of a reduction: the elements of the result, and the terms that each of them takes together, in
/// pieces.
struct Plan {
  IndexSpace<2> kept;     ///< operands: x, out
  IndexSpace<1> reduced;  ///< operand: x
  int64_t pieces;         ///< of the terms of a result; with more than one, results are partial
  int lanes;              ///< by rows: of one result; by columns: neighbouring results. A power of two, at most a warp
};

/// The state of piece p of a result that begins at x, over every `step`-th term from `first`.
template <class F>
__device__ typename F::State fold_terms(const Plan& plan, const typename F::Term* x, int64_t piece, int64_t first,
                                        int64_t step) {
  const int64_t terms = plan.reduced.numel, end = terms * (piece + 1) / plan.pieces;
  typename F::State state = F::start();
  int64_t i = terms * piece / plan.pieces + first, at[1];
  // Four loads under way at a time: it takes that many to keep memory busy.
  for (; i + 3 * step < end; i += 4 * step) {
    typename F::Term term[4];
    for (int k = 0; k < 4; ++k) {
      plan.reduced.offsets(i + k * step, at);
      term[k] = x[at[0]];
    }
    for (int k = 0; k < 4; ++k) state = F::join(state, F::of(term[k], i + k * step));
  }
  for (; i < end; i += step) {
    plan.reduced.offsets(i, at);
    state = F::join(state, F::of(x[at[0]], i));
  }
  return state;
}

/// Joins `lanes` neighbouring lanes into the first of them. All threads of the warp take part.
template <class F>
__device__ typename F::State join_lanes(typename F::State state, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    state = F::join(state, F::from_lane(state, static_cast<unsigned>(distance)));
  return state;
}

/// Where the state of piece p of result o goes: to the result, or among the partial states (results, pieces).
template <class F>
__device__ void store(const Plan& plan, int64_t o, int64_t out_offset, int64_t piece, typename F::State state,
                      typename F::State* partial, typename F::Result* out) {
  if (plan.pieces == 1)
    out[out_offset] = F::result(state);
  else
    partial[o * plan.pieces + piece] = state;
}

/// Groups of `lanes` lanes, one for each piece of each result.
template <class F>
__global__ void reduce_rows(Plan plan, const typename F::Term* x, typename F::State* partial, typename F::Result* out) {
  const int64_t groups = plan.kept.numel * plan.pieces, lanes = plan.lanes;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, lane = thread % lanes;
  const int64_t step = int64_t{gridDim.x} * blockDim.x / lanes;
  // The groups of a warp go round together, for its shuffles: `begin` is the first of them.
  for (int64_t begin = thread / kWarp * (kWarp / lanes); begin < groups; begin += step) {
    const int64_t group = begin + thread % kWarp / lanes;
    const bool works = group < groups;
    const int64_t o = group / plan.pieces, piece = group - o * plan.pieces;
    int64_t at[2] = {0, 0};
    typename F::State state = F::start();
    if (works) {
      plan.kept.offsets(o, at);
      state = fold_terms<F>(plan, x + at[0], piece, lane, lanes);
    }
    state = join_lanes<F>(state, plan.lanes);
    if (works && lane == 0) store<F>(plan, o, at[1], piece, state, partial, out);
  }
}

/// Blocks of `lanes` neighbouring results, whose terms are shared among the other threads of the block.
template <class F>
__global__ void reduce_columns(Plan plan, const typename F::Term* x, typename F::State* partial,
                               typename F::Result* out) {
  using State = typename F::State;
  SHARED_ARRAY(State, shared, kThreads);
  const int thread = static_cast<int>(threadIdx.x), column = thread % plan.lanes, row = thread / plan.lanes;
  const int rows = kThreads / plan.lanes;
  const int64_t tiles = (plan.kept.numel + plan.lanes - 1) / plan.lanes;
  for (int64_t t = blockIdx.x; t < tiles * plan.pieces; t += gridDim.x) {
    const int64_t piece = t / tiles, o = (t - piece * tiles) * plan.lanes + column;
    int64_t at[2] = {0, 0};
    State state = F::start();
    if (o < plan.kept.numel) {
      plan.kept.offsets(o, at);
      state = fold_terms<F>(plan, x + at[0], piece, row, rows);
    }
    shared[thread] = state;
    for (int half = rows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (row < half) {
        const State other = shared[thread + half * plan.lanes];
        state = F::join(state, other);
        shared[thread] = state;
      }
    }
    if (row == 0 && o < plan.kept.numel) store<F>(plan, o, at[1], piece, state, partial, out);
    __syncthreads();
  }
}

/// out = the pieces of each result together, a warp for each.
template <class F>
__global__ void join_pieces(Plan plan, const typename F::State* partial, typename F::Result* out) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, lane = thread % kWarp;
  for (int64_t o = thread / kWarp; o < plan.kept.numel; o += int64_t{gridDim.x} * blockDim.x / kWarp) {
    typename F::State state = F::start();
    for (int64_t piece = lane; piece < plan.pieces; piece += kWarp)
      state = F::join(state, partial[o * plan.pieces + piece]);
    state = join_lanes<F>(state, kWarp);
    if (lane > 0) continue;
    int64_t at[2];
    plan.kept.offsets(o, at);
    out[at[1]] = F::result(state);
  }
}

// --- host side -----------------------------------------------------------------------------------------------------

/// The largest power of two that is at most n, and at most a warp.
int lanes_for(int64_t n) {
  int lanes = 1;
  while (lanes < kWarp && 2 * lanes <= n) lanes *= 2;
  return lanes;
}

template <class F>
void run(const char* name, const Tensor& x, const std::vector<bool>& axes, Tensor& out) {
  const ReducedShapes shapes(x.shape(), axes);
  Plan plan{in_memory_order<2>(shapes.kept, {x.strides(), out.strides()}),
            in_memory_order<1>(shapes.reduced, {x.strides()}), 1, 1};
  const int64_t results = plan.kept.numel, terms = plan.reduced.numel;
  const bool by_columns = plan.kept.closest() < plan.reduced.closest();
  plan.lanes = lanes_for(by_columns ? results : terms);
  // Pieces make some thousand warps, each with some terms for every lane. Their number must not depend on the GPU.
  const int64_t least = by_columns ? 32 * kThreads / plan.lanes : 1024;
  const int64_t most = by_columns ? 1024 / ((results + plan.lanes - 1) / plan.lanes) : 4096 / results;
  plan.pieces = std::max<int64_t>(1, std::min(terms / least, most));

  Context& context = Context::of(x.device());
  using State = typename F::State;
  const auto* from = static_cast<const typename F::Term*>(x.raw());
  auto* to = static_cast<typename F::Result*>(out.raw());
  const Scratch partial(context, plan.pieces > 1 ? sizeof(State) * static_cast<size_t>(results * plan.pieces) : 0);
  if (by_columns) {
    const int64_t work = (results + plan.lanes - 1) / plan.lanes * plan.pieces * kThreads;
    launch(context, {name, blocks_for(context, work, kThreads), kThreads}, reduce_columns<F>, plan, from,
           partial.as<State>(), to);
  } else {
    const int64_t work = results * plan.pieces * plan.lanes;
    launch(context, {name, blocks_for(context, work, kThreads), kThreads}, reduce_rows<F>, plan, from,
           partial.as<State>(), to);
  }
  if (plan.pieces > 1)
    launch(context, {name, blocks_for(context, results * kWarp, kThreads), kThreads}, join_pieces<F>, plan,
           partial.as<State>(), to);
}

template <bool Largest>
void best(const char* name, const Tensor& x, const std::vector<bool>& axes, Tensor& out) {
  switch (x.dtype()) {
    case DType::f32: return run<Best<Largest, float, float>>(name, x, axes, out);
    case DType::f64: return run<Best<Largest, double, double>>(name, x, axes, out);
    case DType::i64: return run<Best<Largest, int64_t, int64_t>>(name, x, axes, out);
    case DType::i32: return run<Best<Largest, int32_t, int32_t>>(name, x, axes, out);
    case DType::i8: return run<Best<Largest, int8_t, int32_t>>(name, x, axes, out);
    default: return run<Best<Largest, uint8_t, int32_t>>(name, x, axes, out);  // u8, and bool as 0 or 1
  }
}

}  // namespace

void reduce(ReduceOp op, const Tensor& x, const std::vector<bool>& axes, Tensor& out) {
  if (out.numel() == 0) return;
  if (x.numel() == 0 && op >= ReduceOp::any) return cuda::fill(out, op == ReduceOp::all);
  with_reduction(op, x, out, [&]<class Join, class T, class A, class R>(Join, Reduced<T, A, R>, const char* name) {
    using Wide = std::conditional_t<sizeof(A) == 1, int32_t, A>;  // shuffles exchange whole words
    run<Fold<Join, T, Wide, R>>(name, x, axes, out);
  });
}

void arg_reduce(bool maximum, const Tensor& x, int axis, Tensor& out) {
  if (out.numel() == 0) return;
  espalier::check(x.size(axis) > 0, maximum ? "argmax" : "argmin",
                  "expected at least one element along axis {}, got {}", axis, describe(x));
  std::vector<bool> axes(static_cast<size_t>(x.rank()), false);
  axes[static_cast<size_t>(axis)] = true;
  maximum ? best<true>("argmax", x, axes, out) : best<false>("argmin", x, axes, out);
}

}  // namespace espalier::cuda
