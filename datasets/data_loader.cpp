#include "datasets/data_loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <span>
#include <thread>
#include <utility>

#include "core/random.h"
#include "datasets/rows.h"

namespace espalier {
namespace {

// Keeps the order apart from everything else that draws from the same seed.
constexpr uint64_t kShuffleDomain = 0x73687566666c6501;

/// Rows of f32 (N,...), each channel less its mean, divided by its deviation; `mean` may be empty.
Tensor normalized_rows(const Tensor& all, std::span<const int64_t> chosen, const std::vector<float>& mean,
                       const std::vector<float>& stddev) {
  Shape shape = all.shape();
  const int64_t each = all.numel() / all.size(0);
  shape[0] = static_cast<int64_t>(chosen.size());
  const auto channels = static_cast<int64_t>(mean.size());
  const int64_t inner = shape.rank() == 4 ? shape[2] * shape[3] : 1;
  Tensor rows = Tensor::empty(shape, DType::f32);
  float* out = rows.data<float>();
  for (const int64_t index : chosen) {
    const float* in = all.data<float>() + index * each;
    for (int64_t i = 0; i < each; ++i, ++out) {
      const auto c = static_cast<size_t>(channels > 0 ? i / inner % channels : 0);
      *out = channels > 0 ? (in[i] - mean[c]) / stddev[c] : in[i];
    }
  }
  return rows;
}

/// A row for each example, in memory as the loader reads it.
void check_rows(const Dataset& dataset, const char* what, const std::string& name, Tensor& values) {
  check(values.defined() && values.rank() >= 1 && values.size(0) == dataset.size(), "data_loader",
        "expected one {} '{}' for each of the {} examples of '{}', got {}", what, name, dataset.size(), dataset.name,
        values.defined() ? describe(values) : "none");
  values = values.contiguous();
}

}  // namespace

Batch Batch::slice(int64_t begin, int64_t end) const {
  const auto part = [&](const Tensor& all) { return all.slice(0, begin, end).contiguous(); };
  Batch result{part(images), part(labels), part(indices)};
  for (const auto& [name, values] : inputs) result.inputs.emplace_back(name, part(values));
  for (const auto& [name, values] : targets) result.targets.emplace_back(name, part(values));
  result.loss = loss;
  return result;
}

// Shared by the consumer and the thread. The thread makes batches in order, so timing decides only how far ahead it is.
struct BatchStream::State {
  State(Producer p, int64_t first, int64_t last, int prefetch)
      : producer(std::move(p)), next(first), end(last), capacity(static_cast<size_t>(std::max(prefetch, 0))) {
    if (capacity > 0 && first < last) thread = std::thread([this, first, last] { run(first, last); });
  }

  ~State() {
    if (!thread.joinable()) return;
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    thread.join();
  }

  void run(int64_t first, int64_t last) {
    try {
      for (int64_t i = first; i < last; ++i) {
        {
          std::unique_lock lock(mutex);
          changed.wait(lock, [&] { return stop || ready.size() < capacity; });
          if (stop) return;
        }
        Batch batch = producer(i);
        {
          const std::lock_guard lock(mutex);
          ready.push_back(std::move(batch));
        }
        changed.notify_all();
      }
    } catch (...) {
      {
        const std::lock_guard lock(mutex);
        error = std::current_exception();
      }
      changed.notify_all();
    }
  }

  std::optional<Batch> take() {
    if (next >= end) return std::nullopt;
    if (!thread.joinable()) {
      const int64_t number = std::exchange(next, end);  // when the producer throws, that was the end
      Batch batch = producer(number);
      next = number + 1;
      return batch;
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !ready.empty() || error; });
    if (ready.empty()) {  // the batches made before the error have been taken
      end = next;
      std::rethrow_exception(error);
    }
    ++next;
    Batch batch = std::move(ready.front());
    ready.pop_front();
    lock.unlock();
    changed.notify_all();
    return batch;
  }

  Producer producer;
  int64_t next, end;  // the consumer's
  size_t capacity;
  std::mutex mutex;  // of all below
  std::condition_variable changed;
  std::deque<Batch> ready;
  std::exception_ptr error;
  bool stop = false;
  std::thread thread;  // last: it uses the others
};

BatchStream::BatchStream(Producer producer, int64_t first, int64_t last, int prefetch)
    : state_(std::make_unique<State>(std::move(producer), first, last, prefetch)) {}
BatchStream::~BatchStream() = default;
BatchStream::BatchStream(BatchStream&&) noexcept = default;
BatchStream& BatchStream::operator=(BatchStream&&) noexcept = default;

std::optional<Batch> BatchStream::next() { return state_->take(); }

DataLoader::DataLoader(Dataset dataset, DataLoaderOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
  check(dataset_.size() > 0, "data_loader", "expected a data set with examples, got '{}' without any", dataset_.name);
  check(dataset_.reconstructs ||
            (dataset_.labels.defined() && dataset_.labels.rank() >= 1 && dataset_.labels.size(0) == dataset_.size()),
        "data_loader", "expected one label for each of the {} images of '{}', got {}", dataset_.size(), dataset_.name,
        dataset_.labels.defined() ? dataset_.labels.numel() : 0);
  check(dataset_.reconstructs || dataset_.labels.dtype() == DType::i64 || dataset_.labels.dtype() == DType::f32,
        "data_loader", "expected classes (i64) or values (f32) as labels of '{}', got {}", dataset_.name,
        dataset_.reconstructs ? "none" : describe(dataset_.labels));
  const DType dtype = dataset_.images.dtype();
  check(dataset_.has_images() || dtype == DType::f32 || dtype == DType::i64, "data_loader",
        "expected u8 images (N,C,H,W), or inputs of f32 or i64, of '{}', got {}", dataset_.name,
        describe(dataset_.images));
  check(!dataset_.reconstructs || dtype != DType::i64, "data_loader",
        "expected inputs of '{}' that a network can give back, got whole numbers", dataset_.name);
  check(options_.augmentations.empty() || dataset_.has_images(), "data_loader",
        "expected no augmentations: '{}' holds no images", dataset_.name);
  check(options_.batch_size >= 1, "data_loader", "expected a batch_size of at least 1, got {}", options_.batch_size);
  check(options_.batch_size <= dataset_.size() || !(options_.shuffle || options_.drop_last), "data_loader",
        "expected a batch_size of at most {}, the number of training examples of '{}', got {}; use a smaller batch",
        dataset_.size(), dataset_.name, options_.batch_size);
  check(options_.prefetch >= 0, "data_loader", "expected prefetch of at least 0, got {}", options_.prefetch);
  dataset_.images = dataset_.images.contiguous();
  if (dataset_.labels.defined()) dataset_.labels = dataset_.labels.contiguous();
  for (auto& [name, values] : dataset_.inputs) check_rows(dataset_, "input", name, values);
  for (Target& target : dataset_.targets) check_rows(dataset_, "target", target.name, target.values);
  if (!options_.normalize && !dataset_.has_images()) dataset_.mean = dataset_.stddev = {};
  if (dtype == DType::f32 && !dataset_.mean.empty()) {
    const int64_t channels = dataset_.images.rank() == 4 ? dataset_.images.size(1) : dataset_.images.size(-1);
    check(static_cast<int64_t>(dataset_.mean.size()) == channels && dataset_.mean.size() == dataset_.stddev.size(),
          "data_loader", "expected a mean and a deviation for each of the {} channels of '{}', got {} and {}", channels,
          dataset_.name, dataset_.mean.size(), dataset_.stddev.size());
  }
  transform_ = options_.normalize ? Transform(dataset_.mean, dataset_.stddev, options_.augmentations)
                                  : Transform({}, {}, options_.augmentations);
}

int64_t DataLoader::num_batches() const {
  const int64_t rounded_up = options_.drop_last ? 0 : options_.batch_size - 1;
  return (dataset_.size() + rounded_up) / options_.batch_size;
}

std::vector<int64_t> DataLoader::order(int64_t epoch) const {
  if (options_.shuffle) {
    return Generator(options_.seed ^ kShuffleDomain, static_cast<uint64_t>(epoch)).permutation(dataset_.size());
  }
  std::vector<int64_t> indices(static_cast<size_t>(dataset_.size()));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

BatchStream DataLoader::batches(int64_t epoch, int64_t start_batch) const {
  check(epoch >= 0 && start_batch >= 0 && start_batch <= num_batches(), "data_loader",
        "expected an epoch of at least 0 and a start_batch in 0..{}, got {} and {}", num_batches(), epoch, start_batch);
  // Copies share the tensors, so that the stream may outlive the loader.
  auto make = [dataset = dataset_, transform = transform_, indices = order(epoch), seed = options_.seed,
               batch_size = options_.batch_size, epoch](int64_t number) {
    const int64_t begin = number * batch_size;
    const int64_t count = std::min(batch_size, dataset.size() - begin);
    const std::span<const int64_t> chosen(indices.data() + begin, static_cast<size_t>(count));
    Batch batch;
    batch.images = dataset.has_images() ? transform(dataset.images, chosen, seed, epoch)
                   : dataset.images.dtype() == DType::f32
                       ? normalized_rows(dataset.images, chosen, dataset.mean, dataset.stddev)
                       : rows_of(dataset.images, chosen);
    batch.labels = dataset.reconstructs ? batch.images : rows_of(dataset.labels, chosen);
    batch.indices = Tensor::from(std::vector<int64_t>(chosen.begin(), chosen.end()), {count});
    for (const auto& [name, values] : dataset.inputs) batch.inputs.emplace_back(name, rows_of(values, chosen));
    for (const Target& target : dataset.targets)
      batch.targets.emplace_back(target.name, rows_of(target.values, chosen));
    batch.loss = dataset.loss;
    return batch;
  };
  return BatchStream(std::move(make), start_batch, num_batches(), options_.prefetch);
}

}  // namespace espalier
