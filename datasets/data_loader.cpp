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

namespace espalier {
namespace {

// Keeps the order apart from everything else that draws from the same seed.
constexpr uint64_t kShuffleDomain = 0x73687566666c6501;

}  // namespace

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
  check(dataset_.labels.defined() && dataset_.labels.numel() == dataset_.size(), "data_loader",
        "expected one label for each of the {} images of '{}', got {}", dataset_.size(), dataset_.name,
        dataset_.labels.numel());
  check(options_.batch_size >= 1, "data_loader", "expected a batch_size of at least 1, got {}", options_.batch_size);
  check(options_.batch_size <= dataset_.size() || !(options_.shuffle || options_.drop_last), "data_loader",
        "expected a batch_size of at most {}, the number of training examples of '{}', got {}; use a smaller batch",
        dataset_.size(), dataset_.name, options_.batch_size);
  check(options_.prefetch >= 0, "data_loader", "expected prefetch of at least 0, got {}", options_.prefetch);
  dataset_.images = dataset_.images.contiguous();
  dataset_.labels = dataset_.labels.contiguous();
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
    Batch batch{transform(dataset.images, chosen, seed, epoch), Tensor::empty({count}, DType::i64),
                Tensor::empty({count}, DType::i64)};
    const int64_t* labels = dataset.labels.data<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = chosen[static_cast<size_t>(i)];
      batch.labels.data<int64_t>()[i] = labels[index];
      batch.indices.data<int64_t>()[i] = index;
    }
    return batch;
  };
  return BatchStream(std::move(make), start_batch, num_batches(), options_.prefetch);
}

}  // namespace espalier
