// The loader gives the same batches whatever the timing, and its thread never outlives it.
#include "datasets/data_loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "core/ops.h"
#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

const Dataset& digits() {
  static const Dataset train = load_dataset("digits").train;
  return train;
}

std::vector<Batch> take_all(BatchStream stream, int pause_ms = 0) {
  std::vector<Batch> batches;
  for (Batch& batch : stream) {
    batches.push_back(batch);
    if (pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
  }
  return batches;
}

void expect_same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(identical(a[i].images, b[i].images)) << "batch " << i;
    EXPECT_TRUE(identical(a[i].labels, b[i].labels)) << "batch " << i;
    EXPECT_TRUE(identical(a[i].indices, b[i].indices)) << "batch " << i;
  }
}

DataLoaderOptions training() {
  return {.batch_size = 100, .shuffle = true, .seed = 3, .augmentations = {RandomCrop{1}, HorizontalFlip{}}};
}

TEST(DataLoader, GivesEveryExampleOnce) {
  const DataLoader loader(digits(), {.batch_size = 100, .shuffle = true});
  EXPECT_EQ(loader.num_batches(), 15);
  std::set<int64_t> seen;
  for (const Batch& batch : take_all(loader.batches())) {
    EXPECT_EQ(batch.images.shape(), Shape({batch.size(), 1, 8, 8}));
    EXPECT_EQ(batch.images.dtype(), DType::f32);
    const std::vector<int64_t> indices = batch.indices.to_vector<int64_t>(), labels = batch.labels.to_vector<int64_t>();
    for (size_t i = 0; i < indices.size(); ++i) {
      EXPECT_TRUE(seen.insert(indices[i]).second);
      EXPECT_EQ(labels[i], digits().labels.data<int64_t>()[indices[i]]);
    }
  }
  EXPECT_EQ(seen.size(), 1437u);
}

TEST(DataLoader, LastBatchIsShortOrLeftOut) {
  const std::vector<Batch> kept = take_all(DataLoader(digits(), {.batch_size = 100}).batches());
  EXPECT_EQ(kept.back().size(), 37);
  const DataLoader dropping(digits(), {.batch_size = 100, .drop_last = true});
  EXPECT_EQ(dropping.num_batches(), 14);
  EXPECT_EQ(take_all(dropping.batches()).back().size(), 100);
}

TEST(DataLoader, NormalizesToMeanZeroAndDeviationOne) {
  const std::vector<Batch> batches = take_all(DataLoader(digits(), {.batch_size = 1437}).batches());
  const Tensor all = batches[0].images;
  EXPECT_NEAR(mean(all).item(), 0, 1e-4);
  EXPECT_NEAR(variance(all).item(), 1, 1e-3);
}

TEST(DataLoader, SameBatchesWhateverThePrefetchAndTheTiming) {
  DataLoaderOptions options = training();
  options.prefetch = 0;
  const std::vector<Batch> expected = take_all(DataLoader(digits(), options).batches(5));
  for (const int prefetch : {1, 2, 7, 100}) {
    options.prefetch = prefetch;
    expect_same(take_all(DataLoader(digits(), options).batches(5)), expected);
    expect_same(take_all(DataLoader(digits(), options).batches(5), 2), expected);
  }
}

TEST(DataLoader, OrderDependsOnSeedAndEpochOnly) {
  const DataLoader loader(digits(), training());
  expect_same(take_all(loader.batches(1)), take_all(loader.batches(1)));
  EXPECT_NE(loader.order(1), loader.order(2));
  DataLoaderOptions other = training();
  other.seed = 4;
  EXPECT_NE(DataLoader(digits(), other).order(1), loader.order(1));
  const std::vector<int64_t> plain = DataLoader(digits(), {}).order(9);
  EXPECT_TRUE(std::is_sorted(plain.begin(), plain.end()));
}

TEST(DataLoader, StartsInTheMiddleOfAnEpoch) {
  const DataLoader loader(digits(), training());
  std::vector<Batch> expected = take_all(loader.batches(2));
  expected.erase(expected.begin(), expected.begin() + 9);
  expect_same(take_all(loader.batches(2, 9)), expected);
  EXPECT_TRUE(take_all(loader.batches(2, 15)).empty());
  EXPECT_THROW(loader.batches(2, 16), ArgumentError);
}

TEST(DataLoader, RefusesABatchLargerThanTheTrainingData) {
  for (const DataLoaderOptions& options : {DataLoaderOptions{.batch_size = 1438, .shuffle = true},
                                           DataLoaderOptions{.batch_size = 1438, .drop_last = true}}) {
    try {
      const DataLoader loader(digits(), options);
      FAIL() << "expected an ArgumentError";
    } catch (const ArgumentError& error) {
      EXPECT_NE(std::string(error.what()).find("at most 1437"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("got 1438"), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(DataLoader(digits(), {.batch_size = 2000}).num_batches(), 1);
  EXPECT_THROW(DataLoader(digits(), {.batch_size = 0}), ArgumentError);
  EXPECT_THROW(DataLoader(digits().first(0), {}), ArgumentError);
}

TEST(DataLoader, StreamOutlivesTheLoader) {
  BatchStream stream = [] { return DataLoader(digits(), {.batch_size = 500}).batches(); }();
  EXPECT_EQ(take_all(std::move(stream)).size(), 3u);
}

Batch numbered(int64_t i) {
  return {Tensor::zeros({1}), Tensor::full({1}, static_cast<double>(i), DType::i64), Tensor::zeros({1}, DType::i64)};
}

TEST(BatchStream, RethrowsAfterTheBatchesBefore) {
  for (const int prefetch : {0, 1, 4}) {
    BatchStream stream(
        [](int64_t i) -> Batch {
          if (i == 3) fail<FileError>("test", "no more");
          return numbered(i);
        },
        0, 10, prefetch);
    for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(stream.next()->labels.item(), static_cast<double>(i));
    EXPECT_THROW(stream.next(), FileError);
    EXPECT_FALSE(stream.next());
  }
}

TEST(BatchStream, StaysWithinItsBoundAndStopsEarly) {
  std::atomic<int64_t> made = 0;
  {
    BatchStream stream([&](int64_t i) { return ++made, numbered(i); }, 0, 1000000, 3);
    EXPECT_EQ(stream.next()->labels.item(), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_LE(made, 5);  // one taken, three ready, one just made
  }                      // joins without making the rest
  EXPECT_LE(made, 6);
}

}  // namespace
}  // namespace espalier
