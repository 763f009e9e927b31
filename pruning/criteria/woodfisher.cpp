#include "pruning/criteria/woodfisher.h"

#include <algorithm>
#include <cmath>

#include "core/linalg.h"
#include "core/threads.h"
#include "pruning/criteria/scoring.h"
#include "pruning/criteria/units.h"

namespace espalier {
namespace {

/// Block b of n weights: weights begin..begin+size-1, its matrix at `matrix`.
struct Block {
  Block(int64_t b, int64_t n, int64_t block_size)
      : begin(b * block_size), size(std::min(block_size, n - begin)), matrix(begin * block_size) {}
  int64_t begin, size, matrix;
};

int64_t num_blocks(int64_t n, int64_t block_size) { return (n + block_size - 1) / block_size; }

}  // namespace

void BrainSurgeon::fields(FieldVisitor& f) {
  f("block_size", options_.block_size, at_least(1), "Weights whose interactions count");
  f("damping", options_.damping, above(0), "lambda: F = lambda*I + mean of g g^T");
  f("gradient_batch", options_.gradient_batch, at_least(1), "Examples averaged in one gradient");
}

BrainSurgeon::BrainSurgeon(const WoodFisherOptions& options) : options_(options) {
  check(options.block_size > 0 && options.gradient_batch > 0 && options.damping > 0, "woodfisher",
        "expected block_size, gradient_batch and damping above 0, got {}, {} and {}", options.block_size,
        options.gradient_batch, options.damping);
}

void BrainSurgeon::add_gradient(Scored& scored, const std::vector<double>& gradient, double share) const {
  const auto n = static_cast<int64_t>(gradient.size());
  parallel_for(num_blocks(n, options_.block_size), 64, [&](int64_t first, int64_t last) {
    std::vector<double> product(static_cast<size_t>(options_.block_size));  // A g
    for (int64_t b = first; b < last; ++b) {
      const Block block(b, n, options_.block_size);
      double* a = scored.inverse.data() + block.matrix;
      const double* g = gradient.data() + block.begin;
      if (std::all_of(g, g + block.size, [](double x) { return x == 0; })) continue;
      double quadratic = 0;  // g^T A g
      for (int64_t i = 0; i < block.size; ++i) {
        double row = 0;
        for (int64_t j = 0; j < block.size; ++j) row += a[i * block.size + j] * g[j];
        product[static_cast<size_t>(i)] = row;
        quadratic += row * g[i];
      }
      const double scale = 1 / (1 / share + quadratic);
      for (int64_t i = 0; i < block.size; ++i) {
        const double row = product[static_cast<size_t>(i)] * scale;
        for (int64_t j = 0; j < block.size; ++j) a[i * block.size + j] -= row * product[static_cast<size_t>(j)];
      }
    }
  });
}

Saliencies BrainSurgeon::score(const std::vector<Parameter>& parameters, const CriterionInput& input) {
  const Scoring scoring(*this, parameters, input);
  std::vector<Scored> scored;
  for (const Parameter& p : parameters) {
    const int64_t n = p.numel();
    // All blocks but the last are full, so block b starts at b * block_size^2.
    scored.push_back({.parameter = p, .weights = p.data().to_vector<double>(), .inverse = {}});
    const int64_t blocks = num_blocks(n, options_.block_size);
    const Block end(std::max<int64_t>(blocks - 1, 0), n, options_.block_size);
    std::vector<double>& inverse = scored.back().inverse;
    inverse.assign(static_cast<size_t>(end.matrix + end.size * end.size), 0.0);
    for (int64_t b = 0; b < blocks; ++b) {
      const Block block(b, n, options_.block_size);
      for (int64_t i = 0; i < block.size; ++i)
        inverse[static_cast<size_t>(block.matrix + i * (block.size + 1))] = 1 / options_.damping;
    }
  }
  scoring.for_each_piece(options_.gradient_batch, [&](const Batch& piece, double share) {
    const Variables g = scoring.gradients(piece);
    for (size_t i = 0; i < scored.size(); ++i) add_gradient(scored[i], g[i].data().to_vector<double>(), share);
  });

  Saliencies result;
  for (const Scored& s : scored) {
    const auto n = static_cast<int64_t>(s.weights.size());
    std::vector<double> score(s.weights.size());
    for (int64_t b = 0; b < num_blocks(n, options_.block_size); ++b) {
      const Block block(b, n, options_.block_size);
      for (int64_t i = 0; i < block.size; ++i) {
        const double w = s.weights[static_cast<size_t>(block.begin + i)];
        score[static_cast<size_t>(block.begin + i)] =
            w * w / (2 * s.inverse[static_cast<size_t>(block.matrix + i * (block.size + 1))]);
      }
    }
    result[s.parameter.id()] = like(s.parameter, score);
  }
  scored_ = std::move(scored);
  return result;
}

std::vector<double> BrainSurgeon::updated(const Scored& scored) const {
  const auto n = static_cast<int64_t>(scored.weights.size());
  const std::vector<bool> exists = existing_weights(scored.parameter);
  std::vector<double> weights = scored.weights;
  // Threads write disjoint blocks.
  parallel_for(num_blocks(n, options_.block_size), 16, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const Block block(b, n, options_.block_size);
      const double* a = scored.inverse.data() + block.matrix;
      std::vector<int64_t> removed;
      for (int64_t i = 0; i < block.size; ++i)
        if (!exists[static_cast<size_t>(block.begin + i)]) removed.push_back(i);
      if (removed.empty()) continue;
      std::vector<double> matrix, x;  // A_QQ; w_Q, then (A_QQ)^-1 w_Q
      for (int64_t i : removed) {
        x.push_back(scored.weights[static_cast<size_t>(block.begin + i)]);
        for (int64_t j : removed) matrix.push_back(a[i * block.size + j]);
      }
      const auto size = static_cast<int64_t>(removed.size());
      if (!cholesky(matrix, size))
        fail<NumericError>(name(),
                           "weights {}..{} of '{}': the block of the inverse Fisher is singular; use a damping "
                           "above {}",
                           block.begin, block.begin + block.size - 1, scored.parameter.name(), options_.damping);
      cholesky_solve(matrix, size, x);
      for (int64_t i = 0; i < block.size; ++i) {
        double& w = weights[static_cast<size_t>(block.begin + i)];
        if (!exists[static_cast<size_t>(block.begin + i)]) {
          w = 0;
          continue;
        }
        for (size_t q = 0; q < removed.size(); ++q) w -= a[i * block.size + removed[q]] * x[q];
      }
    }
  });
  return weights;
}

void BrainSurgeon::update() {
  check(!scored_.empty(), name(), "expected a score() before update(), and one update() for each");
  std::vector<Tensor> values;
  for (const Scored& s : scored_) {
    const std::vector<double> now = s.parameter.data().to_vector<double>();
    const std::vector<bool> exists = existing_weights(s.parameter);
    check(now.size() == s.weights.size(), name(), "'{}' had {} weights when it was scored and has {} now; score again",
          s.parameter.name(), s.weights.size(), now.size());
    for (size_t i = 0; i < now.size(); ++i)
      check(!exists[i] || now[i] == s.weights[i], name(),
            "weight {} of '{}' was {} when it was scored and is {} now; update right after pruning, before training", i,
            s.parameter.name(), s.weights[i], now[i]);
    values.push_back(like(s.parameter, updated(s)));
  }
  for (size_t i = 0; i < scored_.size(); ++i) {
    Tensor data = scored_[i].parameter.data();
    data.copy_(values[i]);
  }
  scored_.clear();
}

void obs_update(const std::vector<Parameter>& parameters, const std::vector<Mask>& masks, const CriterionInput& input,
                const WoodFisherOptions& options, GradientFlow flow) {
  check(masks.size() == parameters.size(), "obs_update", "expected a mask for each of {} parameters, got {}",
        parameters.size(), masks.size());
  for (size_t i = 0; i < masks.size(); ++i)
    check(!masks[i].defined() || masks[i].shape() == parameters[i].shape(), "obs_update",
          "'{}' expects a mask of shape {}, got {}", parameters[i].name(), parameters[i].shape(), masks[i].shape());
  BrainSurgeon surgeon(options);
  surgeon.score(parameters, input);
  for (size_t i = 0; i < masks.size(); ++i) {
    Parameter parameter = parameters[i];
    if (masks[i].defined()) parameter.set_mask(masks[i], flow);
  }
  surgeon.update();
}

CriterionPtr woodfisher_criterion(const WoodFisherOptions& options) { return std::make_shared<BrainSurgeon>(options); }

}  // namespace espalier
