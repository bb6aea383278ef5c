#include "core/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace serpentine {

namespace {

class Numbers : public Dataset {
 public:
  explicit Numbers(int64_t size, int64_t bad = -1) : size_(size), bad_(bad) {}
  int64_t size() const override { return size_; }
  Batch get(int64_t index) const override {
    if (index == bad_) throw std::runtime_error("row 3 of numbers.csv is broken");
    Batch batch;
    batch.input = torch::full({1}, index, torch::kInt64);
    return batch;
  }

 private:
  int64_t size_, bad_;
};

using Order = std::vector<std::vector<int64_t>>;  // a batch a row

Order read_all(Loader& loader) {
  Order order;
  while (auto batch = loader.next()) {
    std::vector<int64_t> row;
    for (int64_t i = 0; i < batch->size(); ++i) row.push_back(batch->input[i][0].item<int64_t>());
    order.push_back(row);
  }
  return order;
}

Order read_epoch(LoaderOptions options, int64_t seed, int64_t epoch, int64_t from = 0,
                 Shard shard = {}) {
  const Numbers numbers(23);
  Loader loader(numbers, options, seed, shard);
  loader.start(epoch, from);
  return read_all(loader);
}

TEST(Permutation, IsTheSameEverywhere) {
  // published nowhere: these numbers pin the order so that resumed runs of later versions keep it
  EXPECT_EQ(permutation(8, 7, 0), permutation(8, 7, 0));
  EXPECT_NE(permutation(64, 7, 0), permutation(64, 7, 1));
  EXPECT_NE(permutation(64, 7, 0), permutation(64, 8, 0));
  EXPECT_NE(permutation(64, 7, 1), permutation(64, 8, 0)) << "seed and epoch are not simply added";
  auto sorted = permutation(64, 7, 3);
  std::sort(sorted.begin(), sorted.end());
  std::vector<int64_t> all(64);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  EXPECT_TRUE(permutation(0, 1, 1).empty());
}

TEST(Permutation, IsUniform) {
  // 6000 orders of 3: each of the 6 comes about 1000 times, standard deviation 29
  std::map<std::vector<int64_t>, int> seen;
  for (int64_t epoch = 0; epoch < 6000; ++epoch) ++seen[permutation(3, 11, epoch)];
  ASSERT_EQ(seen.size(), 6U);
  for (const auto& [order, times] : seen) {
    EXPECT_NEAR(times, 1000, 150);
  }
}

TEST(Loader, ThreadsDoNotChangeTheOrder) {
  LoaderOptions options;
  options.batch_size = 4;
  options.threads = 0;
  const Order expected = read_epoch(options, 5, 2);
  for (const int64_t threads : {1, 3, 8}) {
    options.threads = threads;
    options.prefetch = 2;
    EXPECT_EQ(read_epoch(options, 5, 2), expected);
  }
}

TEST(Loader, GoesOnAtAnyBatch) {
  LoaderOptions options;
  options.batch_size = 4;
  options.threads = 2;
  const Order whole = read_epoch(options, 5, 1);
  for (size_t from = 0; from <= whole.size(); ++from) {
    EXPECT_EQ(read_epoch(options, 5, 1, static_cast<int64_t>(from)),
              Order(whole.begin() + static_cast<int64_t>(from), whole.end()));
  }
}

TEST(Loader, RanksShareTheSameGlobalBatches) {
  LoaderOptions options;
  options.batch_size = 5;
  const Order whole = read_epoch(options, 9, 0);
  for (const int64_t size : {2, 3, 7}) {
    Order joined(whole.size());
    for (int64_t rank = 0; rank < size; ++rank) {
      const Order part = read_epoch(options, 9, 0, 0, {rank, size});
      ASSERT_EQ(part.size(), whole.size()) << "every rank takes part in every batch";
      for (size_t b = 0; b < part.size(); ++b)
        joined[b].insert(joined[b].end(), part[b].begin(), part[b].end());
    }
    EXPECT_EQ(joined, whole);
  }
}

TEST(Loader, DropsTheLastBatchOnlyWhenAsked) {
  LoaderOptions options;
  options.batch_size = 4;
  EXPECT_EQ(read_epoch(options, 1, 0).size(), 6U);
  EXPECT_EQ(read_epoch(options, 1, 0).back().size(), 3U);
  options.drop_last = true;
  EXPECT_EQ(read_epoch(options, 1, 0).size(), 5U);
}

TEST(Loader, PassesOnWhatTheDatasetThrew) {
  const Numbers broken(10, 3);
  LoaderOptions options;
  options.batch_size = 2;
  options.shuffle = false;
  Loader loader(broken, options);
  loader.start(0);
  EXPECT_TRUE(loader.next().has_value());
  EXPECT_THROW(loader.next(), std::runtime_error);
}

TEST(Loader, StopsWhileBatchesWait) {
  const Numbers numbers(1000);
  LoaderOptions options;
  options.batch_size = 1;
  options.threads = 4;
  for (int64_t i = 0; i < 20; ++i) {
    Loader loader(numbers, options);
    loader.start(i);
    loader.next();
    loader.start(i + 1, 7);
  }
}

}  // namespace

}  // namespace serpentine
