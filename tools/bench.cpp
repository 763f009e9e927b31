// espalier bench: kernels against each other, and against what the machine can do.

#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "core/random.h"
#include "core/threads.h"
#include "pipeline/bench/foreign_kernel.h"
#include "pipeline/bench/spmm_benchmark.h"
#include "tools/commands.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace {

struct BenchFlags {
  std::vector<std::string> files, kernels;
  std::string shape = "512x512";
  double sparsity = 0.9;
  SpmmBenchmarkOptions options;
};

/// "512x256" -> entries anywhere, each with the same probability.
BenchmarkMatrix random_matrix(const BenchFlags& flags) {
  int64_t rows = 0, columns = 0;
  int end = 0;
  constexpr int64_t kMost = 1 << 16;
  const bool read = std::sscanf(flags.shape.c_str(), "%ldx%ld%n", &rows, &columns, &end) == 2 &&
                    static_cast<size_t>(end) == flags.shape.size();
  check(read && rows >= 1 && columns >= 1 && rows <= kMost && columns <= kMost, "bench",
        "--shape: expected ROWSxCOLUMNS, each from 1 to {}, got '{}'", kMost, flags.shape);
  check(flags.sparsity >= 0 && flags.sparsity <= 1, "bench", "--sparsity: expected a number in [0,1], got {}",
        flags.sparsity);
  Generator generator(flags.options.seed, 1);
  Csr a{.rows = rows, .columns = columns, .row_offsets = {0}, .column = {}, .value = {}};
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < columns; ++k)
      if (generator.next_uniform() >= flags.sparsity) a.column.push_back(static_cast<int32_t>(k));
    a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
  }
  return {fmt::format("random {}", flags.shape), std::move(a)};
}

std::string time_text(double seconds) {
  return seconds < 1e-3 ? fmt::format("{:.1f} us", seconds * 1e6) : fmt::format("{:.2f} ms", seconds * 1e3);
}

void say_measurement(const SpmmMeasurement& one, Output& output) {
  const std::string name = one.matrix.size() > 34 ? "..." + one.matrix.substr(one.matrix.size() - 31) : one.matrix;
  if (one.kernel == "dense") {
    output.result("\n{}  ({},{}) x {}, {:.1f} % zeros: dense {}, ceiling {} ({})", name, one.rows, one.columns, one.n,
                  100 * one.sparsity, time_text(one.whole.median), time_text(one.ceiling), one.resource);
    return;
  }
  if (!one.is_timed()) {
    output.result("  {:<12} {}", one.kernel, one.problem);
    return;
  }
  const std::optional<double> calls = one.break_even();
  output.result("  {:<12} {:>6.2f}x {:>10}   packed before {:>6.2f}x {:>10}  {:>3.0f} % of ceiling   plan {} {}{}",
                one.kernel, one.speed_up(), time_text(one.whole.median), one.packed_speed_up(),
                time_text(one.packed.median), 100 * one.share_of_ceiling(), time_text(one.plan),
                calls ? fmt::format("({:.0f} calls)", std::ceil(*calls)) : "(never pays)",
                one.drifted ? "  unsteady" : "");
}

int run_spmm(const BenchFlags& flags, Output& output) {
  // Before any kernel runs: their processes are copies of this one.
  std::vector<std::unique_ptr<ForeignKernel>> foreign;
  std::vector<ForeignKernel*> kernels;
  for (const std::string& library : flags.kernels) {
    foreign.push_back(std::make_unique<ForeignKernel>(library));
    kernels.push_back(foreign.back().get());
  }
  std::vector<BenchmarkMatrix> matrices = read_matrices(flags.files);
  if (flags.files.empty()) matrices.push_back(random_matrix(flags));
  const Calibration machine = this_machine();
  output.say("{}, {}, {} thread{}; dense is OpenBLAS; medians of {} rounds in turns", machine.processor,
             name_of(vector_isa()), flags.options.threads, flags.options.threads == 1 ? "" : "s", flags.options.rounds);
  const InterruptGuard guard;
  const auto all = benchmark_spmm(
      matrices, flags.options, machine, kernels, [&](const SpmmMeasurement& one) { say_measurement(one, output); },
      [] { return InterruptGuard::requested(); });
  nlohmann::json measurements = nlohmann::json::array(), summaries = nlohmann::json::array();
  for (const SpmmMeasurement& one : all) measurements.push_back(one.to_json());
  std::vector<std::vector<std::string>> rows = {
      {"kernel", "n", "matrices", "slower", "mean", "p10", "worst", "packed", "p10", "worst", "of ceiling", "p10"}};
  for (const SpmmSummary& s : summarize(all)) {
    const auto times = [](double x) { return fmt::format("{:.2f}x", x); };
    const auto percent = [](double x) { return fmt::format("{:.0f} %", 100 * x); };
    rows.push_back({s.kernel, std::to_string(s.n), std::to_string(s.matrices), std::to_string(s.losses),
                    times(s.whole.mean), times(s.whole.low), times(s.whole.worst), times(s.packed.mean),
                    times(s.packed.low), times(s.packed.worst), percent(s.share.mean), percent(s.share.low)});
    summaries.push_back(s.to_json());
  }
  if (rows.size() > 1)
    output.result("\nspeed-up over dense, geometric means\n{}", table(rows, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  output.finish({{"command", "bench spmm"},
                 {"processor", machine.processor},
                 {"kernels", name_of(vector_isa())},
                 {"threads", flags.options.threads},
                 {"measurements", measurements},
                 {"summary", summaries}});
  return InterruptGuard::requested() ? kInterrupted : kSuccess;
}

}  // namespace

void add_bench(CLI::App& parent, Commands& commands) {
  CLI::App* bench = parent.add_subcommand("bench", "Time kernels, checked and in turns");
  bench->footer("");
  bench->require_subcommand(1);
  CLI::App* app = add_command(*bench, "spmm", "Sparse matrices times dense ones",
                              {"espalier bench spmm --shape 1024x1024 --sparsity 0.95",
                               "espalier bench spmm dlmc/rn50 --n 1,32,128 --threads 2",
                               "espalier bench spmm weights.mtx --kernel ./libmine.so"});
  auto flags = std::make_shared<BenchFlags>();
  SpmmBenchmarkOptions& options = flags->options;
  app->add_option("files", flags->files, "Matrices *.smtx or *.mtx, or folders of them")->type_name("FILE");
  app->add_option("--shape", flags->shape, "Without files: a random matrix (default: 512x512)")->type_name("RxC");
  app->add_option("--sparsity", flags->sparsity, "Its share of zeros (default: 0.9)")->type_name("S");
  app->add_option("--n", options.n, "Columns of the dense matrix (default: 128)")->delimiter(',')->type_name("N,N");
  app->add_option("--threads", options.threads, "Threads of every candidate (default: 1)")->type_name("N");
  app->add_option("--rounds", options.rounds, "Turns of every candidate (default: 11)")->type_name("N");
  app->add_option("--kernel", flags->kernels, "Also somebody's library (core/sparse/spmm_api.h)")->type_name("LIB");
  app->add_flag("--cold", options.cold, "Empty the caches before each call");
  app->add_option("--seed", options.seed, "Of random values (default: 0)")->type_name("N")->check(is_seed());
  add_json_flag(*app);
  commands.push_back({app, [flags](Output& output) { return run_spmm(*flags, output); }});
}

}  // namespace espalier::tools
