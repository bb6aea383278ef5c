// The backward scan: chunks from the end; each chunk's states are computed again from its saved
// start.
#include "core/ops/scan_tile-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_BACKWARD_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_BACKWARD_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_BACKWARD_INL_H_
#endif

#include "core/ops/scan_adjoint-inl.h"
#include "core/ops/scan_few_adjoint-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

/// The sums of 16-element rows, one a lane: neighbours are added until one of a row's is left.
template <int kVectors, class D, class T>
HWY_INLINE hn::Vec<D> sums_of_rows(D d, const T* rows) {
  if constexpr (kVectors == 1) {
    return hn::Load(d, rows);
  } else {
    const auto half = static_cast<int64_t>(hn::Lanes(d)) * kVectors / 2;
    const auto low = sums_of_rows<kVectors / 2>(d, rows);
    const auto high = sums_of_rows<kVectors / 2>(d, rows + half);
#if HWY_TARGET == HWY_SCALAR
    return hn::Add(low, high);
#else
    return hn::Add(hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low));
#endif
  }
}

template <class T>
class BackwardUnit {
 public:
  explicit BackwardUnit(const ScanCall& call)
      : call_(call),
        most_((call.num_blocks() + call.groups - 1) / call.groups),
        tile_(call, call.chunk),
        rows_(call.steps != nullptr && call.channels % kBlock == 0 ? 0 : call.chunk),
        history_(call.chunk),
        start_(2 * block_size(), Unset()),
        carry_(most_ * block_size(), Unset()),
        dA_(most_ * block_size(), Unset()),
        dD_(most_ * kBlock, Unset()),
        dbias_(most_ * kBlock, Unset()),
        dB_(call.chunk * block_size()),
        dC_(call.chunk * block_size()) {}

  /// The channel blocks of `group`, which has a part of dB and dC.
  void run(int64_t batch, int64_t slab, int64_t group) {
    const int64_t blocks = call_.num_blocks();
    group_ = group;
    first_ = group * blocks / call_.groups;
    last_ = (group + 1) * blocks / call_.groups;
    whole_ = call_.steps == nullptr ? first_
                                    : std::max(first_, std::min(last_, call_.channels / kBlock));
    std::fill_n(dA_.get(), most_ * block_size(), T{0});
    std::fill_n(dD_.get(), most_ * kBlock, T{0});
    std::fill_n(dbias_.get(), most_ * kBlock, T{0});
    batch_ = batch;
    branch_ = call_.slabs[slab].branch;
    for (int64_t s = call_.slabs[slab].first; s < call_.slabs[slab].last; ++s) run_sequence(s);
    const int64_t part = batch * call_.num_slabs + slab;
    for (int64_t block = first_; block < last_; ++block) {
      const int64_t at = part * call_.channels + block * kBlock, count = channels_of(block);
      const int64_t local = block - first_;
      write_state(dA_.get() + local * block_size(), call_.states, count,
                  static_cast<T*>(call_.dA) + at * call_.states);
      if (call_.dD != nullptr) {
        std::copy_n(dD_.get() + local * kBlock, count, static_cast<T*>(call_.dD) + at);
      }
      if (call_.dbias != nullptr) {
        std::copy_n(dbias_.get() + local * kBlock, count, static_cast<T*>(call_.dbias) + at);
      }
    }
  }

 private:
  int64_t block_size() const { return call_.states * kBlock; }
  int64_t channels_of(int64_t block) const {
    return std::min(kBlock, call_.channels - block * kBlock);
  }
  int64_t state_place(int64_t s, int64_t block) const {
    return ((batch_ * call_.sequences + s) * call_.channels + block * kBlock) * call_.states;
  }

  void run_sequence(int64_t s) {
    const int64_t begin = call_.offsets[s], end = call_.offsets[s + 1];
    for (int64_t block = first_; block < last_; ++block) {
      const T* from = static_cast<const T*>(call_.dfinal);
      read_state(from == nullptr ? nullptr : from + state_place(s, block), call_.states,
                 channels_of(block), carry_.get() + (block - first_) * block_size());
    }
    const int64_t chunks = (end - begin + call_.chunk - 1) / call_.chunk;
    for (int64_t chunk = chunks; chunk-- > 0;) {
      const int64_t at = begin + chunk * call_.chunk;
      tile_.read(batch_, branch_, at, std::min(call_.chunk, end - at));
      std::fill_n(dB_.get(), tile_.count * block_size(), T{0});
      std::fill_n(dC_.get(), tile_.count * block_size(), T{0});
      if (whole_ > first_) few_states(s, chunk);
      for (int64_t block = whole_; block < last_; ++block) run_block(s, chunk, block);
      sum_channels(dB_.get(), static_cast<T*>(call_.dB));
      sum_channels(dC_.get(), static_cast<T*>(call_.dC));
    }
    if (call_.dinitial == nullptr) return;
    for (int64_t block = first_; block < last_; ++block) {
      write_state(carry_.get() + (block - first_) * block_size(), call_.states, channels_of(block),
                  static_cast<T*>(call_.dinitial) + state_place(s, block));
    }
  }

  void run_block(int64_t s, int64_t chunk, int64_t block) {
    const int64_t channel = block * kBlock, count = channels_of(block), local = block - first_;
    const T* start = start_of(s, chunk, block);
    rows_.prepare(call_, tile_, branch_, channel, count);
    int64_t n = 0;
    for (; n + 4 <= call_.states; n += 4) states<4>(start, block, n);
    for (; n + 2 <= call_.states; n += 2) states<2>(start, block, n);
    for (; n < call_.states; ++n) states<1>(start, block, n);
    rows_.finish(call_, tile_, branch_, channel, count, dD_.get() + local * kBlock,
                 dbias_.get() + local * kBlock);
  }

  /// The chunk's whole blocks of one or two states.
  void few_states(int64_t s, int64_t chunk) {
    const bool one = call_.states == 1;
    const bool own =
        is_own<T>(call_.u) && is_own<T>(call_.dy) && is_own<T>(call_.du) && is_own<T>(call_.ddelta);
    each_width<2, T>(
        first_, whole_, -call_.chunk, [&](auto vectors, int64_t channel, FewNext next) {
          constexpr int kVectors = decltype(vectors)::value;
          const int64_t place = few_place(channel, call_.states);
          const int64_t unit = place - first_ * block_size(), local = channel - first_ * kBlock;
          const T* A =
              static_cast<const T*>(call_.A) + branch_ * call_.num_blocks() * block_size() + place;
          const FewSums<T> sums{dA_.get() + unit, dD_.get() + local, dbias_.get() + local};
          // the start of two blocks lies together in the saved states; an initial state is gathered
          const T* start = start_of(s, chunk, channel / kBlock, kVectors) + channel % kBlock;
          const FewHistory<T> history{history_.decay.get(), history_.h.get()};
          const auto walk = [&](auto replay, auto retreat) {
            replay(call_, tile_, channel, next, A, start, history);
            retreat(call_, tile_, branch_, channel, A, carry_.get() + unit, sums, history,
                    dB_.get(), dC_.get());
          };
          if (own) {
            one ? walk(few_replay<1, kVectors, true, T>, few_retreat<1, kVectors, true, T>)
                : walk(few_replay<2, kVectors, true, T>, few_retreat<2, kVectors, true, T>);
          } else {
            one ? walk(few_replay<1, kVectors, false, T>, few_retreat<1, kVectors, false, T>)
                : walk(few_replay<2, kVectors, false, T>, few_retreat<2, kVectors, false, T>);
          }
        });
  }

  /// The states [N, 16] of neighbouring blocks before a chunk's first position.
  const T* start_of(int64_t s, int64_t chunk, int64_t block, int64_t count = 1) {
    if (chunk > 0) {
      const int64_t index = batch_ * call_.num_saved + call_.saved_before[s] + chunk - 1;
      return static_cast<const T*>(call_.saved) +
             (index * call_.num_blocks() + block) * block_size();
    }
    const T* from = static_cast<const T*>(call_.initial_state);
    for (int64_t i = 0; i < count && block + i < last_; ++i) {
      read_state(from == nullptr ? nullptr : from + state_place(s, block + i), call_.states,
                 channels_of(block + i), start_.get() + i * block_size());
    }
    return start_.get();
  }

  template <int kStates>
  void states(const T* start, int64_t block, int64_t n) {
    const Lanes<T> d;
    const int64_t local = (block - first_) * block_size() + n * kBlock;
    const T* A = static_cast<const T*>(call_.A) +
                 (branch_ * call_.num_blocks() + block) * block_size() + n * kBlock;
    for (int64_t i = 0; i < kBlock; i += static_cast<int64_t>(hn::Lanes(d))) {
      replay<kStates>(d, tile_, call_.states, n, A + i, start + n * kBlock + i, rows_, i, history_);
      retreat<kStates>(d, tile_, call_.states, n, A + i, carry_.get() + local + i,
                       dA_.get() + local + i, rows_, i, history_, dB_.get() + n * kBlock + i,
                       dC_.get() + n * kBlock + i);
    }
  }

  /// Adds the 16 channels of each [count, N, 16] sum and writes the tile's rows of [groups, B, P,
  /// N].
  void sum_channels(const T* sums, T* out) const {
    const Lanes<T> d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const int64_t size = tile_.count * call_.states;
    out += ((group_ * call_.batch + batch_) * call_.positions + tile_.begin) * call_.states;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes)
      hn::StoreU(sums_of_rows<kBlock>(d, sums + i * kBlock), d, out + i);
    for (; i < size; ++i) {
      auto total = hn::Load(d, sums + i * kBlock);
      for (int64_t c = lanes; c < kBlock; c += lanes) {
        total = hn::Add(total, hn::Load(d, sums + i * kBlock + c));
      }
      out[i] = hn::GetLane(hn::SumOfLanes(d, total));
    }
  }

  const ScanCall& call_;
  int64_t first_ = 0, last_ = 0, group_ = 0, batch_ = 0, branch_ = 0;
  int64_t whole_ = 0;  // blocks [first, whole) have few states
  int64_t most_;       // blocks of a group
  Tile<T> tile_;
  AdjointRows<T> rows_;
  History<T> history_;
  Buffer<T> start_, carry_, dA_, dD_, dbias_, dB_, dC_;
};

template <class T>
void backward_range(const ScanCall& call, int64_t begin, int64_t end) {
  BackwardUnit<T> work(call);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t unit = item / call.groups;
    work.run(unit / call.num_slabs, unit % call.num_slabs, item % call.groups);
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_BACKWARD_INL_H_
