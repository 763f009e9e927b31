// Reductions over any set of axes. Floating-point sums are taken in double, in an order that depends on the shape
// and strides only: the same bits for any number of threads.
#include <cstring>
#include <vector>

#include "core/backend/reduction.h"
#include "core/cpu/iterate.h"
#include "core/cpu/table.h"

namespace espalier::cpu {
namespace {

/// One running result of a line: independent lanes for unit-stride rows, and a scalar for everything else.
template <class Op, class T, class A>
class Line {
 public:
  void add(const T* x, int64_t step, int64_t n) {
    int64_t i = 0;
    if (step == 1) {
      for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
        first_ = Op::join(first_, load(x + i));
        second_ = Op::join(second_, load(x + i + kLanes));
        used_ = true;
      }
    }
    for (; i < n; ++i) rest_ = Op::join(rest_, static_cast<A>(x[i * step]));
  }

  A result() const {
    if (!used_) return rest_;
    const Lanes both = Op::join(first_, second_);
    A lanes[kLanes];
    std::memcpy(lanes, &both, sizeof(both));
    for (int64_t width = kLanes / 2; width > 0; width /= 2) {
      for (int64_t i = 0; i < width; ++i) lanes[i] = Op::join(lanes[i], lanes[i + width]);
    }
    return Op::join(lanes[0], rest_);
  }

 private:
  static constexpr int64_t kLanes = 64 / sizeof(A);
  typedef A Lanes __attribute__((vector_size(64)));
  typedef T Source __attribute__((vector_size(kLanes * sizeof(T))));

  static Lanes load(const T* x) {
    Source source;
    std::memcpy(&source, x, sizeof(source));
    return __builtin_convertvector(source, Lanes);
  }

  Lanes first_ = Lanes{} + Op::template start<A>();
  Lanes second_ = first_;
  A rest_ = Op::template start<A>();
  bool used_ = false;
};

/// The two halves of a reduction: the elements of the result, and what each of them takes together.
struct Plan {
  Loop<2> kept;     ///< operands: x, out
  Loop<1> reduced;  ///< operand: x
  bool by_columns;  ///< neighbouring results advance together, because they lie closer in memory or lines are short
};

Plan plan(const Tensor& x, const std::vector<bool>& axes, const Tensor& out) {
  const ReducedShapes shapes(x.shape(), axes);
  Plan made{Loop<2>(shapes.kept, {x.strides(), out.strides()}), Loop<1>(shapes.reduced, {x.strides()}), false};
  constexpr int64_t kShort = 32;  // a line this short costs more in its joining of lanes than in its elements
  made.by_columns = made.kept.space().closest() < made.reduced.space().closest() ||
                    (made.reduced.rank() == 1 && made.reduced.numel() < kShort && made.kept.numel() > kShort);
  return made;
}

/// partial[o - o_begin] = the elements r_begin..r_end of the reduced space, for the results o_begin..o_end.
template <class Op, class T, class A>
void reduce_range(const Plan& plan, const T* x, int64_t o_begin, int64_t o_end, int64_t r_begin, int64_t r_end,
                  A* partial) {
  const int64_t kept_step = plan.kept.step(0), step = plan.reduced.step(0);
  plan.kept.run(o_begin, o_end, [&](const std::array<int64_t, 2>& at, int64_t count) {
    const T* row = x + at[0];
    if (plan.by_columns) {
      constexpr int64_t kColumns = 512;  // accumulators that stay in the first-level cache
      for (int64_t first = 0; first < count; first += kColumns) {
        const int64_t width = std::min(kColumns, count - first);
        A sums[kColumns];
        std::fill_n(sums, width, Op::template start<A>());
        plan.reduced.run(r_begin, r_end, [&](const std::array<int64_t, 1>& offset, int64_t n) {
          for (int64_t i = 0; i < n; ++i) {
            const T* line = row + first * kept_step + offset[0] + i * step;
            if (kept_step == 1) {
#pragma omp simd
              for (int64_t j = 0; j < width; ++j) sums[j] = Op::join(sums[j], static_cast<A>(line[j]));
            } else {
              for (int64_t j = 0; j < width; ++j) sums[j] = Op::join(sums[j], static_cast<A>(line[j * kept_step]));
            }
          }
        });
        std::copy_n(sums, width, partial + first);
      }
    } else {
      for (int64_t j = 0; j < count; ++j) {
        Line<Op, T, A> line;
        plan.reduced.run(r_begin, r_end, [&](const std::array<int64_t, 1>& offset, int64_t n) {
          line.add(row + j * kept_step + offset[0], step, n);
        });
        partial[j] = line.result();
      }
    }
    partial += count;
  });
}

template <class A, class R>
void store(const Plan& plan, int64_t o_begin, int64_t o_end, const A* values, R* out) {
  plan.kept.run(o_begin, o_end, [&](const std::array<int64_t, 2>& at, int64_t count) {
    for (int64_t j = 0; j < count; ++j) out[at[1] + j * plan.kept.step(1)] = static_cast<R>(values[j]);
    values += count;
  });
}

template <class Op, class T, class A, class R>
void reduce_typed(const Tensor& x, const std::vector<bool>& axes, Tensor& out) {
  const Plan plan = cpu::plan(x, axes, out);
  const T* from = static_cast<const T*>(x.raw());
  R* to = static_cast<R*>(out.raw());
  const int64_t outputs = plan.kept.numel(), terms = plan.reduced.numel();
  // Few long sums are cut into pieces, whose number depends on the shape and not on the threads.
  constexpr int64_t kFew = 256, kMostPieces = 64;
  const int64_t pieces = outputs >= kFew ? 1
                                         : std::clamp<int64_t>(outputs * terms / kGrain, 1,
                                                               std::min(kMostPieces, std::max<int64_t>(terms, 1)));
  if (pieces == 1) {
    constexpr int64_t kBlock = 512;
    parallel_for(outputs, std::max<int64_t>(1, kGrain / std::max<int64_t>(terms, 1)), [&](int64_t begin, int64_t end) {
      A values[kBlock];
      for (int64_t o = begin; o < end; o += kBlock) {
        const int64_t last = std::min(o + kBlock, end);
        reduce_range<Op>(plan, from, o, last, 0, terms, values);
        store(plan, o, last, values, to);
      }
    });
    return;
  }
  std::vector<A> partial(static_cast<size_t>(outputs * pieces));
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      reduce_range<Op>(plan, from, 0, outputs, terms * p / pieces, terms * (p + 1) / pieces,
                       partial.data() + p * outputs);
    }
  });
  for (int64_t p = 1; p < pieces; ++p) {
    for (int64_t o = 0; o < outputs; ++o) {
      partial[static_cast<size_t>(o)] =
          Op::join(partial[static_cast<size_t>(o)], partial[static_cast<size_t>(p * outputs + o)]);
    }
  }
  store(plan, 0, outputs, partial.data(), to);
}

/// Whether the candidate replaces the best so far: strictly better, or the first NaN.
template <bool Largest, class T>
bool wins(T candidate, T best) {
  const bool better = Largest ? candidate > best : candidate < best;
  return better | ((candidate != candidate) & (best == best));  // without branches: which one wins is unpredictable
}

template <bool Largest, class T>
void arg_reduce_typed(const Tensor& x, int axis, Tensor& out) {
  const Loop<2> lines(shape_without(x, axis), {x.strides(), out.strides()});
  const T* from = x.data<T>();
  int64_t* to = out.data<int64_t>();
  const int64_t size = x.size(axis), stride = x.stride(axis);
  const auto rows = [&](const std::array<int64_t, 2>& at, int64_t count) {
    // Lines that are neighbours in memory advance together, so that each cache line is read once.
    constexpr int64_t kTogether = 64;
    for (int64_t first = 0; first < count; first += kTogether) {
      const int64_t width = std::min(kTogether, count - first);
      const T* start = from + at[0] + first * lines.step(0);
      T best[kTogether];
      int64_t index[kTogether];
      for (int64_t j = 0; j < width; ++j) {
        best[j] = start[j * lines.step(0)];
        index[j] = 0;
      }
      for (int64_t i = 1; i < size; ++i) {
        const T* line = start + i * stride;
        for (int64_t j = 0; j < width; ++j) {
          const T value = line[j * lines.step(0)];
          const bool better = wins<Largest>(value, best[j]);
          best[j] = better ? value : best[j];
          index[j] = better ? i : index[j];
        }
      }
      for (int64_t j = 0; j < width; ++j) to[at[1] + (first + j) * lines.step(1)] = index[j];
    }
  };
  lines.parallel(rows, std::max<int64_t>(1, kGrain / size));
}

}  // namespace

void reduce(ReduceOp op, const Tensor& x, const std::vector<bool>& axes, Tensor& out) {
  if (out.numel() == 0) return;
  if (x.numel() == 0 && op >= ReduceOp::any) return cpu::fill(out, op == ReduceOp::all);
  with_reduction(op, x, out, [&]<class Join, class T, class A, class R>(Join, Reduced<T, A, R>, const char*) {
    reduce_typed<Join, T, A, R>(x, axes, out);
  });
}

void arg_reduce(bool maximum, const Tensor& x, int axis, Tensor& out) {
  if (out.numel() == 0) return;
  check(x.size(axis) > 0, maximum ? "argmax" : "argmin", "expected at least one element along axis {}, got {}", axis,
        describe(x));
  dispatch(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (maximum) {
      arg_reduce_typed<true, T>(x, axis, out);
    } else {
      arg_reduce_typed<false, T>(x, axis, out);
    }
  });
}

}  // namespace espalier::cpu
