#include "core/data/loader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/data/random.h"

namespace serpentine {

void LoaderOptions::fields(Fields& f) {
  f("batch_size", batch_size, "examples of a batch, over all ranks together", {.least = 1});
  f("shuffle", shuffle, "whether training examples come in a new order every epoch");
  f("drop_last", drop_last, "leave out the last batch of a training epoch when it is not full");
  f("threads", threads, "threads that make batches ahead; 0 makes them when asked for",
    {.least = 0, .most = 256});
  f("repeats", repeats,
    "repeated augmentation: how often an example comes in a row, drawn anew each time; an epoch "
    "then holds fewer examples, not more batches",
    {.least = 1, .most = 64});
  f("prefetch", prefetch, "batches that may wait", {.least = 1});
}

std::vector<int64_t> permutation(int64_t size, int64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), int64_t{0});
  Random random(seed, epoch);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(static_cast<uint64_t>(i))]);
  return order;
}

namespace {

/// Each of the first examples `repeats` times in a row, as many as there were.
void repeat(std::vector<int64_t>& order, int64_t repeats) {
  for (size_t i = order.size(); i > 0; --i)
    order[i - 1] = order[(i - 1) / static_cast<size_t>(repeats)];
}

}  // namespace

Loader::Loader(const Dataset& dataset, LoaderOptions options, int64_t seed, Shard shard, bool pin)
    : dataset_(dataset), options_(options), seed_(seed), shard_(shard), pin_(pin) {
  SERPENTINE_CHECK(options_.batch_size >= 1, "loader", "batch_size must be at least 1, got ",
                   options_.batch_size);
  SERPENTINE_CHECK(options_.threads >= 0 && options_.prefetch >= 1, "loader",
                   "threads must be at least 0 and prefetch at least 1, got ", options_.threads,
                   " and ", options_.prefetch);
  SERPENTINE_CHECK(options_.repeats >= 1, "loader", "repeats must be at least 1, got ",
                   options_.repeats);
  SERPENTINE_CHECK(shard_.rank >= 0 && shard_.rank < shard_.size, "loader",
                   "the rank must lie in [0, ", shard_.size, "), got ", shard_.rank);
}

Loader::~Loader() { stop(); }

int64_t Loader::num_batches() const {
  const int64_t size = dataset_.size();
  return options_.drop_last ? size / options_.batch_size
                            : (size + options_.batch_size - 1) / options_.batch_size;
}

void Loader::start(int64_t epoch, int64_t first_batch) {
  stop();
  SERPENTINE_CHECK(first_batch >= 0 && first_batch <= num_batches(), "loader", "an epoch has ",
                   num_batches(), " batches, cannot start at batch ", first_batch);
  if (options_.shuffle) {
    order_ = permutation(dataset_.size(), seed_, epoch);
    repeat(order_, options_.repeats);
  } else {
    order_.resize(static_cast<size_t>(dataset_.size()));
    std::iota(order_.begin(), order_.end(), int64_t{0});
  }
  taken_ = claimed_ = first_batch;
  stopping_ = false;
  epoch_ = epoch;
  const int64_t wanted = std::min(options_.threads, num_batches() - first_batch);
  for (int64_t i = 0; i < wanted; ++i) threads_.emplace_back([this] { work(); });
}

Batch Loader::make(int64_t batch) const {
  const int64_t begin = batch * options_.batch_size;
  const int64_t size = std::min(options_.batch_size, static_cast<int64_t>(order_.size()) - begin);
  const int64_t from = begin + size * shard_.rank / shard_.size;
  const int64_t to = begin + size * (shard_.rank + 1) / shard_.size;
  if (from == to) return {};
  const at::ArrayRef<int64_t> indices(order_.data() + from, static_cast<size_t>(to - from));
  Batch made;
  if (options_.draw) {
    std::vector<int64_t> copies(indices.size());
    for (size_t i = 0; i < copies.size(); ++i)
      copies[i] = (from + static_cast<int64_t>(i)) % options_.repeats;
    made = dataset_.draw(indices, {seed_, epoch_, copies});
  } else {
    made = dataset_.get_batch(indices);
  }
  return pin_ ? made.pinned() : made;
}

void Loader::work() {
  const torch::NoGradGuard no_grad;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || claimed_ < taken_ + options_.prefetch; });
    if (stopping_ || claimed_ >= num_batches()) return;
    const int64_t batch = claimed_++;
    lock.unlock();
    Made made;
    try {
      made.batch = make(batch);
    } catch (...) {
      made.error = std::current_exception();
    }
    lock.lock();
    made_[batch] = std::move(made);
    changed_.notify_all();
  }
}

std::optional<Batch> Loader::next() {
  if (taken_ >= num_batches()) return std::nullopt;
  if (threads_.empty()) return make(taken_++);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return made_.count(taken_) > 0; });
  Made made = std::move(made_.at(taken_));
  made_.erase(taken_++);
  changed_.notify_all();
  lock.unlock();
  if (made.error) std::rethrow_exception(made.error);
  return std::move(made.batch);
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  made_.clear();
}

}  // namespace serpentine
