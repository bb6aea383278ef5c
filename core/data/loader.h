// Batches of a dataset in a seeded order, made ahead of time by threads, from any position on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/config.h"
#include "core/data/dataset.h"

namespace serpentine {

struct LoaderOptions {
  int64_t batch_size = 32;  // examples of a batch, over all ranks together
  bool shuffle = true;
  bool drop_last = false;  // leave out the last batch of an epoch when it is not full
  int64_t repeats = 1;     // times an example comes in a row (Hoffer et al., arXiv 1901.09335)
  int64_t threads = 1;     // that make batches; 0: made when asked for
  int64_t prefetch = 4;    // batches that may wait
  bool draw = false;       // for training: by Dataset::draw; not a key, the trainer sets it
  void fields(Fields& f);
};

/// The part of every batch that one process reads.
struct Shard {
  int64_t rank = 0, size = 1;
};

/// The order of `size` examples in an epoch: a function of its arguments only, the same on every
/// machine.
std::vector<int64_t> permutation(int64_t size, int64_t seed, int64_t epoch);

/// Whatever the number of ranks, batch b holds the same examples; rank r of R reads the contiguous
/// part [n r / R, n (r + 1) / R) of its n examples, which may be empty.
class Loader {
 public:
  /// The dataset must outlive the loader. `pin`: batches lie in page-locked memory.
  Loader(const Dataset& dataset, LoaderOptions options, int64_t seed = 0, Shard shard = {},
         bool pin = false);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t num_batches() const;
  /// Goes to batch `first_batch` of `epoch`; what was made ahead is dropped.
  void start(int64_t epoch, int64_t first_batch = 0);
  /// The next batch of the epoch, or nothing at its end. Rethrows what the dataset threw.
  std::optional<Batch> next();

 private:
  Batch make(int64_t batch) const;
  void work();
  void stop();

  const Dataset& dataset_;
  LoaderOptions options_;
  int64_t seed_;
  Shard shard_;
  bool pin_;

  std::vector<int64_t> order_;  // of this epoch
  int64_t epoch_ = 0;
  int64_t taken_ = 0;  // batches handed out
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t claimed_ = 0;  // batches that a thread works on or has made
  bool stopping_ = false;
  struct Made {
    Batch batch;
    std::exception_ptr error;
  };
  std::map<int64_t, Made> made_;
};

}  // namespace serpentine
