// Batches of a data set, made ahead of time by one thread, in an order that depends on seed and epoch only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "datasets/augment.h"
#include "datasets/dataset.h"

namespace espalier {

/// As in a Dataset, `images` and `labels` are the first input and the first target.
struct Batch {
  Tensor images;                           ///< f32 (B,C,H,W) or of another shape, normalised; or i64
  Tensor labels;                           ///< i64 (B) classes, i64 (B,T) classes of steps, or f32 (B,...)
  Tensor indices;                          ///< i64 (B): which examples of the data set
  NamedTensors inputs = {}, targets = {};  ///< the others by name
  std::string loss = {};                   ///< Dataset::loss

  int64_t size() const { return labels.size(0); }
  /// Examples begin..end-1 of it.
  Batch slice(int64_t begin, int64_t end) const;
};

struct DataLoaderOptions {
  int64_t batch_size = 64;
  bool shuffle = false;
  bool drop_last = false;  ///< leave out a last batch that is not full
  uint64_t seed = 0;       ///< of the order and of the augmentation
  int prefetch = 2;        ///< batches made ahead by a thread; 0: made when asked for, no thread
  std::vector<Augmentation> augmentations = {};
  bool normalize = true;  ///< with the data set's mean and stddev; else pixels are only scaled to [0,1]
};

/// The batches of one epoch, to be taken once. Leaving early stops and joins the thread.
class BatchStream {
 public:
  /// Makes batch number i; called on the prefetch thread, in order.
  using Producer = std::function<Batch(int64_t)>;

  /// Batches first..last-1.
  BatchStream(Producer producer, int64_t first, int64_t last, int prefetch);
  ~BatchStream();
  BatchStream(BatchStream&&) noexcept;
  BatchStream& operator=(BatchStream&&) noexcept;

  /// The next batch, or nothing at the end. Rethrows what the producer threw.
  std::optional<Batch> next();

  struct End {};
  class Iterator {
   public:
    explicit Iterator(BatchStream& stream) : stream_(&stream), batch_(stream.next()) {}
    Batch& operator*() { return *batch_; }
    Iterator& operator++() {
      batch_.reset();  // gives its memory back before the next one is taken
      batch_ = stream_->next();
      return *this;
    }
    bool operator==(End) const { return !batch_; }

   private:
    BatchStream* stream_;
    std::optional<Batch> batch_;
  };
  Iterator begin() { return Iterator(*this); }
  End end() const { return {}; }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// for (Batch& batch : loader.batches(epoch)) ...
class DataLoader {
 public:
  /// Throws ArgumentError for an empty data set and, for training (shuffle or drop_last), for a batch larger than the
  /// data; without either, a small data set is one small batch.
  DataLoader(Dataset dataset, DataLoaderOptions options = {});

  int64_t num_batches() const;
  const Dataset& dataset() const { return dataset_; }
  const DataLoaderOptions& options() const { return options_; }

  /// The order of examples in an epoch.
  std::vector<int64_t> order(int64_t epoch) const;

  /// The batches of an epoch from number `start_batch` on: the same ones whatever was read before, so that training
  /// can resume in the middle. The loader may go away before the stream.
  BatchStream batches(int64_t epoch = 0, int64_t start_batch = 0) const;

 private:
  Dataset dataset_;
  DataLoaderOptions options_;
  Transform transform_;
};

}  // namespace espalier
