// The forward scan: time inside tiles, tiles inside channel blocks, a vector of channels a state.
#include "core/ops/scan_few-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_FORWARD_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_FORWARD_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_FORWARD_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

inline constexpr int64_t kForwardTile = 64;

/// The per-channel inputs of a tile, [count, 16] each.
template <class T>
struct Inputs {
  explicit Inputs(int64_t capacity)
      : dt(capacity * kBlock), dtu(capacity * kBlock), y(capacity * kBlock) {}
  Buffer<T> dt, dtu, y;
};

/// Runs `kStates` states of one vector of channels through the tile. h, A: [kStates, 16].
template <int kStates, class D, class T>
HWY_INLINE void advance(D d, const Tile<T>& tile, int64_t states, int64_t first, const T* A, T* h,
                        const T* dt, const T* dtu, T* y) {
  using V = hn::Vec<D>;
  V state[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) state[n] = hn::Load(d, h + n * kBlock);
  const T* B = tile.B.get() + first;
  const T* C = tile.C.get() + first;
  for (int64_t p = 0; p < tile.count; ++p, B += states, C += states) {
    const V step = hn::Load(d, dt + p * kBlock), input = hn::Load(d, dtu + p * kBlock);
    V sum = hn::Load(d, y + p * kBlock);
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      const V kept = decay(d, hn::Mul(step, hn::Load(d, A + n * kBlock)));
      state[n] = hn::MulAdd(kept, state[n], hn::Mul(input, hn::Set(d, B[n])));
      sum = hn::MulAdd(hn::Set(d, C[n]), state[n], sum);
    }
    hn::Store(sum, d, y + p * kBlock);
  }
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) hn::Store(state[n], d, h + n * kBlock);
}

/// As many states at once as the registers hold.
inline constexpr int kForwardStates = HWY_MAX_BYTES >= 64 ? 16 : 4;

template <class T>
class ForwardUnit {
 public:
  explicit ForwardUnit(const ScanCall& call)
      : call_(call),
        tile_(call, kForwardTile),
        inputs_(call.states <= kStatesWithSteps && call.channels % kBlock == 0 ? 0 : kForwardTile),
        h_(call.num_blocks() * call.states * kBlock, Unset()) {}

  /// Channel blocks [first, last) of one sample and slab.
  void run(int64_t batch, const Slab& slab, int64_t first, int64_t last) {
    first_ = first;
    last_ = last;
    whole_ = call_.states > kStatesWithSteps
                 ? first
                 : std::max(first, std::min(last, call_.channels / kBlock));
    batch_ = batch;
    branch_ = slab.branch;
    for (int64_t s = slab.first; s < slab.last; ++s) run_sequence(s);
  }

 private:
  int64_t block_size() const { return call_.states * kBlock; }
  int64_t channels_of(int64_t block) const {
    return std::min(kBlock, call_.channels - block * kBlock);
  }

  void run_sequence(int64_t s) {
    const int64_t begin = call_.offsets[s], end = call_.offsets[s + 1];
    exchange_states(s, /*read=*/true);
    int64_t next_saved = call_.saved != nullptr ? call_.saved_before[s] : 0;
    for (int64_t at = begin; at < end; at += kForwardTile) {
      if (call_.saved != nullptr && at > begin && (at - begin) % call_.chunk == 0) {
        save(next_saved++);
      }
      tile_.read(batch_, branch_, at, std::min(kForwardTile, end - at));
      if (whole_ > first_) few_states();
      for (int64_t block = whole_; block < last_; ++block) {
        prepare(block);
        scan(block);
        for (int64_t p = 0; p < tile_.count; ++p) {
          write_block(call_.y, tile_.place(kTileY, p, block * kBlock), channels_of(block),
                      inputs_.y.get() + p * kBlock);
        }
      }
    }
    if (call_.final_state != nullptr) exchange_states(s, /*read=*/false);
  }

  void exchange_states(int64_t s, bool read) {
    for (int64_t block = first_; block < last_; ++block) {
      const int64_t at =
          ((batch_ * call_.sequences + s) * call_.channels + block * kBlock) * call_.states;
      T* h = h_.get() + (block - first_) * block_size();
      if (read) {
        const T* from = static_cast<const T*>(call_.initial_state);
        read_state(from == nullptr ? nullptr : from + at, call_.states, channels_of(block), h);
      } else {
        write_state(h, call_.states, channels_of(block), static_cast<T*>(call_.final_state) + at);
      }
    }
  }

  void save(int64_t index) {
    T* to = static_cast<T*>(call_.saved) +
            ((batch_ * call_.num_saved + index) * call_.num_blocks() + first_) * block_size();
    std::copy_n(h_.get(), (last_ - first_) * block_size(), to);
  }

  /// The tile's whole blocks of one or two states.
  void few_states() {
    const bool one = call_.states == 1;
    const bool own = is_own<T>(call_.u) && is_own<T>(call_.delta) && is_own<T>(call_.y);
    each_width<kTogether, T>(
        first_, whole_, kForwardTile, [&](auto vectors, int64_t channel, FewNext next) {
          constexpr int kVectors = decltype(vectors)::value;
          const T* A = static_cast<const T*>(call_.A) +
                       branch_ * call_.num_blocks() * block_size() +
                       few_place(channel, call_.states);
          T* h = h_.get() + few_place(channel, call_.states) - first_ * block_size();
          const auto run =
              own ? (one ? few_forward<1, kVectors, true, T> : few_forward<2, kVectors, true, T>)
                  : (one ? few_forward<1, kVectors, false, T> : few_forward<2, kVectors, false, T>);
          run(call_, tile_, branch_, channel, next, A, h);
        });
  }

  /// dt, dt u and D u of the tile's rows.
  void prepare(int64_t block) {
    const Lanes<T> d;
    const int64_t channel = block * kBlock, count = channels_of(block);
    alignas(64) T skip[kBlock], bias[kBlock], u[kBlock], delta[kBlock];
    const RowsView row{nullptr, sizeof(T) == 8 ? Element::kDouble : Element::kFloat, false, 0, 0,
                       0};
    read_row(call_.D, row, channel, count, skip);
    read_row(call_.delta_bias, row, channel, count, bias);
    for (int64_t p = 0; p < tile_.count; ++p) {
      const int64_t u_at = tile_.place(kTileU, p, channel);
      const int64_t delta_at = tile_.place(kTileDelta, p, channel);
      read_block(call_.u, u_at, count, u);
      read_block(call_.delta, delta_at, count, delta);
      prefetch_next(call_.u, u_at);
      prefetch_next(call_.delta, delta_at);
      prefetch_next(call_.y, tile_.place(kTileY, p, channel));
      for (int64_t i = 0; i < kBlock; i += static_cast<int64_t>(hn::Lanes(d))) {
        const auto x = hn::Load(d, u + i);
        auto step = hn::Add(hn::Load(d, delta + i), hn::Load(d, bias + i));
        if (call_.softplus) step = softplus(d, step);
        hn::Store(step, d, inputs_.dt.get() + p * kBlock + i);
        hn::Store(hn::Mul(step, x), d, inputs_.dtu.get() + p * kBlock + i);
        hn::Store(hn::Mul(hn::Load(d, skip + i), x), d, inputs_.y.get() + p * kBlock + i);
      }
    }
  }

  /// This branch's row of [K, channels], zeros when it is absent.
  void read_row(const void* data, RowsView view, int64_t channel, int64_t count, T* out) const {
    view.data = const_cast<void*>(data);
    read_block(view, data == nullptr ? -1 : branch_ * call_.channels + channel, count, out);
  }

  void scan(int64_t block) {
    int64_t n = 0;
    for (; n + kForwardStates <= call_.states; n += kForwardStates) group<kForwardStates>(block, n);
    if constexpr (kForwardStates > 8) {
      for (; n + 8 <= call_.states; n += 8) group<8>(block, n);
    }
    if constexpr (kForwardStates > 4) {
      for (; n + 4 <= call_.states; n += 4) group<4>(block, n);
    }
    for (; n + 2 <= call_.states; n += 2) group<2>(block, n);
    for (; n < call_.states; ++n) group<1>(block, n);
  }

  template <int kStates>
  void group(int64_t block, int64_t n) {
    const Lanes<T> d;
    const T* A = static_cast<const T*>(call_.A) +
                 (branch_ * call_.num_blocks() + block) * block_size() + n * kBlock;
    T* h = h_.get() + (block - first_) * block_size() + n * kBlock;
    for (int64_t i = 0; i < kBlock; i += static_cast<int64_t>(hn::Lanes(d))) {
      advance<kStates>(d, tile_, call_.states, n, A + i, h + i, inputs_.dt.get() + i,
                       inputs_.dtu.get() + i, inputs_.y.get() + i);
    }
  }

  const ScanCall& call_;
  int64_t first_ = 0, last_ = 0, batch_ = 0, branch_ = 0;
  int64_t whole_ = 0;  // blocks [first, whole) have few states
  Tile<T> tile_;
  Inputs<T> inputs_;
  Buffer<T> h_;
};

template <class T>
void forward_range(const ScanCall& call, int64_t begin, int64_t end) {
  const int64_t blocks = call.num_blocks();
  ForwardUnit<T> work(call);
  while (begin < end) {
    const int64_t unit = begin / blocks, first = begin % blocks;
    const int64_t last = std::min(blocks, first + end - begin);
    work.run(unit / call.num_slabs, call.slabs[unit % call.num_slabs], first, last);
    begin += last - first;
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_FORWARD_INL_H_
