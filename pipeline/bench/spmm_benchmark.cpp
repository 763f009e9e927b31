#include "pipeline/bench/spmm_benchmark.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>

#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "core/random.h"
#include "core/sparse/matrix_file.h"
#include "core/sparse/spmm.h"
#include "core/threads.h"
#include "pipeline/bench/ceiling.h"
#include "pipeline/bench/clock.h"
#include "pipeline/bench/foreign_kernel.h"

namespace espalier {
namespace {

/// One way to compute Y. Its functions may throw UnavailableError.
class Candidate {
 public:
  explicit Candidate(std::string name) : name_(std::move(name)) {}
  virtual ~Candidate() = default;
  const std::string& name() const { return name_; }
  /// Makes the plan; its seconds. Nothing when this kernel can't.
  virtual std::optional<double> prepare() = 0;
  virtual std::vector<float> output(bool packed) = 0;
  /// Seconds of a call, the mean over `calls`.
  virtual double time(bool packed, int64_t calls) = 0;
  virtual bool packs() const { return true; }

 private:
  std::string name_;
};

/// What the candidates compute.
struct Problem {
  const Csr& a;
  const std::vector<float>& x;
  int64_t n;
  const SpmmBenchmarkOptions& options;
};

class Dense : public Candidate {
 public:
  explicit Dense(const Problem& problem)
      : Candidate("dense"),
        a_(to_dense(problem.a).unsqueeze(0)),
        x_(Tensor::from(problem.x, {1, problem.a.columns, problem.n})),
        y_(Tensor::empty({1, problem.a.rows, problem.n})) {}
  std::optional<double> prepare() override { return 0; }
  std::vector<float> output(bool) override {
    y_.fill_(std::nan(""));
    once();
    return y_.to_vector<float>();
  }
  double time(bool, int64_t calls) override {
    return time_calls(calls, [&] { once(); });
  }
  bool packs() const override { return false; }

 private:
  void once() { kernels(Device::cpu()).matmul(a_, x_, false, y_); }
  Tensor a_, x_, y_;
};

class Own : public Candidate {
 public:
  Own(const Problem& problem, bool generate)
      : Candidate(generate ? "generated" : "loops"),
        problem_(problem),
        generate_(generate),
        x_(Tensor::from(problem.x, {problem.a.columns, problem.n})),
        y_(Tensor::empty({problem.a.rows, problem.n})) {}
  std::optional<double> prepare() override {
    const double start = clock_seconds();
    plan_ = std::make_unique<SpmmPlan>(problem_.a, SpmmOptions{.generate = generate_});
    const double seconds = clock_seconds() - start;
    if (generate_ && !plan_->is_generated()) return std::nullopt;
    packed_ = Tensor::empty({plan_->packed_floats(problem_.n)});
    plan_->pack(x_.data<float>(), problem_.n, problem_.n, packed_.data<float>());
    return seconds;
  }
  std::vector<float> output(bool packed) override {
    y_.fill_(std::nan(""));
    once(packed);
    return y_.to_vector<float>();
  }
  double time(bool packed, int64_t calls) override {
    return time_calls(calls, [&] { once(packed); });
  }

 private:
  void once(bool packed) {
    if (packed)
      plan_->run(packed_.data<float>(), problem_.n, y_.data<float>(), problem_.n);
    else
      plan_->multiply(x_.data<float>(), problem_.n, problem_.n, y_.data<float>(), problem_.n);
  }
  const Problem problem_;
  bool generate_;
  Tensor x_, packed_, y_;
  std::unique_ptr<SpmmPlan> plan_;
};

class Foreign : public Candidate {
 public:
  Foreign(const Problem& problem, ForeignKernel& kernel)
      : Candidate(kernel.name()), problem_(problem), kernel_(kernel) {}
  std::optional<double> prepare() override {
    return kernel_.prepare(problem_.a, problem_.x, problem_.n, static_cast<int>(problem_.options.threads));
  }
  std::vector<float> output(bool packed) override { return kernel_.output(packed); }
  double time(bool packed, int64_t calls) override { return kernel_.time(packed, calls); }

 private:
  const Problem problem_;
  ForeignKernel& kernel_;
};

/// The product in float64, and the sum of its terms' sizes.
struct Reference {
  std::vector<double> y, size;
};
Reference reference_of(const Problem& problem) {
  const auto& [a, x, n, options] = problem;
  Reference reference{std::vector<double>(static_cast<size_t>(a.rows * n)), {}};
  reference.size = reference.y;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e) {
      const double weight = a.value[static_cast<size_t>(e)];
      const float* from = x.data() + a.column[static_cast<size_t>(e)] * n;
      for (int64_t j = 0; j < n; ++j) {
        reference.y[static_cast<size_t>(i * n + j)] += weight * from[j];
        reference.size[static_cast<size_t>(i * n + j)] += std::abs(weight * from[j]);
      }
    }
  }
  return reference;
}

/// The largest error, in units of what rounding each of a sum's operations may cost (Higham 2002, section 3.1): above 1
/// the result is wrong. NaN is infinite.
double error_of(const std::vector<float>& y, const Reference& reference, const Csr& a, int64_t n) {
  double worst = 0;
  for (int64_t i = 0; i < a.rows; ++i) {
    // A dense product adds the columns without an entry too.
    const auto terms = static_cast<double>(a.columns + 1);
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>(i * n + j);
      const double allowed = terms * 0x1p-24 * reference.size[at] + 1e-37;
      const double error = std::abs(y[at] - reference.y[at]) / allowed;
      worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
    }
  }
  return worst;
}

/// Reads more than the caches hold.
void empty_caches() {
  static std::vector<char> data(size_t{128} << 20, 1);
  volatile char sum = 0;
  for (size_t i = 0; i < data.size(); i += 64) sum = static_cast<char>(sum + data[i]);
}

/// Times of a candidate in each round.
struct Turns {
  Candidate* candidate = nullptr;
  bool packed = false;
  int64_t calls = 1;
  std::vector<double> seconds = {};

  SpmmMeasurement::Times times() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted.empty() ? SpmmMeasurement::Times{}
                          : SpmmMeasurement::Times{sorted.front(), sorted[sorted.size() / 2]};
  }
};

/// All turns of all rounds, again while the machine's speed drifts, at most five times. Returns whether it still did.
/// A candidate that fails is told of by `failed` and has no further turn.
bool take_turns(std::vector<Turns>& all, const SpmmBenchmarkOptions& options,
                const std::function<void(Candidate&, const std::string&)>& failed) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    for (Turns& turns : all) turns.seconds.clear();
    const double before = probe_flops(vector_isa());
    for (int64_t round = 0; round < options.rounds; ++round) {
      for (size_t i = 0; i < all.size(); ++i) {
        Turns& turns = all[(i + static_cast<size_t>(round)) % all.size()];  // nobody is always the first
        if (turns.candidate == nullptr) continue;
        try {
          if (turns.seconds.empty() && attempt == 0) {
            turns.candidate->time(turns.packed, 1);  // warms up
            const double once = turns.candidate->time(turns.packed, 1);
            turns.calls = options.cold ? 1
                                       : std::max<int64_t>(
                                             1, static_cast<int64_t>(std::ceil(options.turn / std::max(once, 1e-7))));
          }
          if (options.cold) empty_caches();
          turns.seconds.push_back(turns.candidate->time(turns.packed, turns.calls));
        } catch (const UnavailableError& error) {
          Candidate* candidate = turns.candidate;
          for (Turns& other : all)
            if (other.candidate == candidate) other = {};
          failed(*candidate, error.what());
        }
      }
    }
    const double after = probe_flops(vector_isa());
    if (std::abs(after / before - 1) <= 0.03) return false;
  }
  return true;
}

/// Restores the number of threads.
class ThreadsGuard {
 public:
  explicit ThreadsGuard(int64_t threads) : before_(num_threads()) { set_num_threads(static_cast<int>(threads)); }
  ~ThreadsGuard() { set_num_threads(before_); }
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;

 private:
  int before_;
};

std::vector<SpmmMeasurement> measure_one(const BenchmarkMatrix& matrix, int64_t n, const SpmmBenchmarkOptions& options,
                                         const Calibration& machine, const std::vector<ForeignKernel*>& foreign) {
  Generator generator(options.seed);
  Csr a = matrix.matrix;
  if (a.value.empty())
    for (int64_t e = 0; e < a.nnz(); ++e) a.value.push_back(generator.next_normal());
  std::vector<float> x(static_cast<size_t>(a.columns * n));
  for (float& value : x) value = generator.next_normal();
  const Problem problem{a, x, n, options};
  std::vector<std::unique_ptr<Candidate>> candidates;
  candidates.push_back(std::make_unique<Dense>(problem));
  candidates.push_back(std::make_unique<Own>(problem, true));
  candidates.push_back(std::make_unique<Own>(problem, false));
  for (ForeignKernel* kernel : foreign) candidates.push_back(std::make_unique<Foreign>(problem, *kernel));

  const Reference reference = reference_of(problem);
  const Ceiling ceiling = spmm_ceiling(a, n, machine, vector_isa());
  std::vector<SpmmMeasurement> results;
  std::vector<Turns> turns;
  for (const auto& candidate : candidates) {
    SpmmMeasurement result;
    result.matrix = matrix.name;
    result.rows = a.rows;
    result.columns = a.columns;
    result.nnz = a.nnz();
    result.n = n;
    result.sparsity = a.sparsity();
    result.kernel = candidate->name();
    result.ceiling = ceiling.seconds / static_cast<double>(options.threads);
    result.resource = ceiling.resource;
    try {
      if (const std::optional<double> seconds = candidate->prepare()) {
        result.plan = *seconds;
        for (const bool packed : {false, true})
          if (!packed || candidate->packs())
            result.error = std::max(result.error, error_of(candidate->output(packed), reference, a, n));
        if (result.error > 1)
          result.problem = fmt::format("wrong by {:.3g} times what rounding explains", result.error);
      } else {
        result.problem = "not supported";
      }
    } catch (const UnavailableError& error) {
      result.problem = error.what();
    }
    if (result.is_timed())
      for (const bool packed : {false, true})
        if (!packed || candidate->packs()) turns.push_back({.candidate = candidate.get(), .packed = packed});
    results.push_back(std::move(result));
  }
  const auto result_of = [&](const Candidate& candidate) -> SpmmMeasurement& {
    return *std::find_if(results.begin(), results.end(), [&](const auto& r) { return r.kernel == candidate.name(); });
  };
  const bool drifted = take_turns(
      turns, options, [&](Candidate& candidate, const std::string& why) { result_of(candidate).problem = why; });
  double dense = 0;
  for (const Turns& one : turns) {
    if (one.candidate == nullptr) continue;
    SpmmMeasurement& result = result_of(*one.candidate);
    (one.packed ? result.packed : result.whole) = one.times();
    if (!one.candidate->packs()) result.packed = result.whole;
    if (one.candidate == candidates.front().get()) dense = result.whole.median;
  }
  for (SpmmMeasurement& result : results) {
    result.dense = dense;
    result.drifted = drifted;
  }
  return results;
}

SpmmSummary::Speed speed_of(const std::vector<const SpmmMeasurement*>& all, double (SpmmMeasurement::*value)() const) {
  SpmmSummary::Speed speed;
  std::vector<std::pair<double, const SpmmMeasurement*>> sorted;
  double logarithms = 0;
  for (const SpmmMeasurement* one : all) {
    sorted.emplace_back((one->*value)(), one);
    logarithms += std::log(sorted.back().first);
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  speed.mean = std::exp(logarithms / static_cast<double>(sorted.size()));
  speed.low = sorted[sorted.size() / 10].first;
  speed.worst = sorted.front().first;
  speed.worst_matrix = sorted.front().second->matrix;
  return speed;
}

}  // namespace

std::vector<BenchmarkMatrix> read_matrices(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
      if (entry.path().extension() == ".smtx" || entry.path().extension() == ".mtx")
        inside.push_back(entry.path().string());
    if (inside.empty()) fail<FileError>("bench", "expected files *.smtx or *.mtx in {}, found none", path);
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  std::vector<BenchmarkMatrix> matrices;
  for (const std::string& file : files) {
    // The collection's files have one name for each layer: the folders say how it was pruned.
    const fs::path path(file);
    std::string name = path.stem().string();
    if (path.has_parent_path()) name = path.parent_path().filename().string() + "/" + name;
    matrices.push_back({std::move(name), read_matrix(file)});
  }
  return matrices;
}

std::optional<double> SpmmMeasurement::break_even() const {
  const double saved = dense - whole.median;
  return saved > 0 ? std::optional(plan / saved) : std::nullopt;
}

nlohmann::json SpmmMeasurement::to_json() const {
  nlohmann::json json = {{"matrix", matrix},     {"rows", rows}, {"columns", columns}, {"nnz", nnz},
                         {"sparsity", sparsity}, {"n", n},       {"kernel", kernel}};
  if (!is_timed()) {
    json["problem"] = problem;
    return json;
  }
  const auto times = [](const Times& t) { return nlohmann::json{{"least", t.least}, {"median", t.median}}; };
  json["seconds"] = times(whole);
  json["seconds_packed"] = times(packed);
  json["dense_seconds"] = dense;
  json["speed_up"] = speed_up();
  json["speed_up_packed"] = packed_speed_up();
  json["plan_seconds"] = plan;
  const std::optional<double> calls = break_even();
  json["break_even_calls"] = calls ? nlohmann::json(*calls) : nlohmann::json();
  json["ceiling_seconds"] = ceiling;
  json["ceiling_resource"] = resource;
  json["share_of_ceiling"] = share_of_ceiling();
  json["error"] = error;
  json["drifted"] = drifted;
  return json;
}

nlohmann::json SpmmSummary::to_json() const {
  const auto json = [](const Speed& s) {
    return nlohmann::json{
        {"geometric_mean", s.mean}, {"p10", s.low}, {"worst", s.worst}, {"worst_matrix", s.worst_matrix}};
  };
  return {{"kernel", kernel},
          {"n", n},
          {"matrices", matrices},
          {"losses", losses},
          {"speed_up", json(whole)},
          {"speed_up_packed", json(packed)},
          {"share_of_ceiling", json(share)}};
}

std::vector<SpmmSummary> summarize(const std::vector<SpmmMeasurement>& all) {
  std::vector<SpmmSummary> summaries;
  for (const SpmmMeasurement& one : all) {
    const bool is_new = std::none_of(summaries.begin(), summaries.end(),
                                     [&](const SpmmSummary& s) { return s.kernel == one.kernel && s.n == one.n; });
    if (!one.is_timed() || one.kernel == "dense" || !is_new) continue;
    summaries.emplace_back();
    summaries.back().kernel = one.kernel;
    summaries.back().n = one.n;
  }
  for (SpmmSummary& summary : summaries) {
    std::vector<const SpmmMeasurement*> mine;
    for (const SpmmMeasurement& one : all)
      if (one.is_timed() && one.kernel == summary.kernel && one.n == summary.n) mine.push_back(&one);
    summary.matrices = static_cast<int64_t>(mine.size());
    for (const SpmmMeasurement* one : mine) summary.losses += one->speed_up() < 1 ? 1 : 0;
    summary.whole = speed_of(mine, &SpmmMeasurement::speed_up);
    summary.packed = speed_of(mine, &SpmmMeasurement::packed_speed_up);
    summary.share = speed_of(mine, &SpmmMeasurement::share_of_ceiling);
  }
  return summaries;
}

std::vector<SpmmMeasurement> benchmark_spmm(const std::vector<BenchmarkMatrix>& matrices,
                                            const SpmmBenchmarkOptions& options, const Calibration& machine,
                                            const std::vector<ForeignKernel*>& foreign,
                                            const std::function<void(const SpmmMeasurement&)>& tell,
                                            const std::function<bool()>& stop) {
  check(options.threads >= 1 && options.rounds >= 1 && options.turn > 0, "bench",
        "expected at least one thread, one round and turns above 0 s, got {}, {}, {}", options.threads, options.rounds,
        options.turn);
  const ThreadsGuard threads(options.threads);
  std::vector<SpmmMeasurement> all;
  for (const BenchmarkMatrix& matrix : matrices) {
    for (const int64_t n : options.n) {
      check(n >= 1, "bench", "expected at least one column, got {}", n);
      if (stop && stop()) return all;
      for (SpmmMeasurement& one : measure_one(matrix, n, options, machine, foreign)) {
        if (tell) tell(one);
        all.push_back(std::move(one));
      }
    }
  }
  return all;
}

}  // namespace espalier
