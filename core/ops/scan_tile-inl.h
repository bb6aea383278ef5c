// A tile: neighbouring positions of one sequence, with the operands that all channels share.
#include "core/ops/scan_math-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_TILE_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_TILE_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_TILE_INL_H_
#endif

#include <algorithm>
#include <memory>
#include <new>

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

struct Unset {};  // for memory that is written before it is read

/// Memory on a cache line's boundary, zeros unless told otherwise.
template <class T>
class Buffer {
 public:
  Buffer(int64_t size, Unset)
      : data_(static_cast<T*>(::operator new(bytes(size), std::align_val_t{64}))) {}
  explicit Buffer(int64_t size = 0) : Buffer(size, Unset()) {
    std::fill_n(data_.get(), size, T{0});
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  static size_t bytes(int64_t size) {
    return static_cast<size_t>(std::max<int64_t>(size, 1)) * sizeof(T);
  }
  std::unique_ptr<T, Free> data_;
};

/// Channels [first, first + count) of a row, zeros behind; `out` holds a whole block.
template <class T>
HWY_INLINE void read_block(const RowsView& view, int64_t index, int64_t count,
                           T* HWY_RESTRICT out) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (HWY_LIKELY(index >= 0 && count == kBlock)) {
    for (int64_t i = 0; i < kBlock; i += lanes) {
      hn::Store(load_as(d, view.data, view.element, index + i), d, out + i);
    }
    return;
  }
  std::fill_n(out, kBlock, T{0});
  if (index < 0) return;
  const hn::CappedTag<T, 1> one;
  for (int64_t i = 0; i < count; ++i) {
    hn::Store(load_as(one, view.data, view.element, index + i), one, out + i);
  }
}

/// Asks for the next block's channels of a row: rows lie too far apart for the machine to guess.
HWY_INLINE void prefetch_next(const RowsView& view, int64_t index) {
  const int64_t size = view.element == Element::kDouble  ? 8
                       : view.element == Element::kFloat ? 4
                                                         : 2;
  hwy::Prefetch(static_cast<const char*>(view.data) + (index + kBlock) * size);
}

/// The reverse of read_block; a negative index writes nothing.
template <class T>
HWY_INLINE void write_block(const RowsView& view, int64_t index, int64_t count,
                            const T* HWY_RESTRICT in) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (index < 0) return;
  if (HWY_LIKELY(count == kBlock)) {
    for (int64_t i = 0; i < kBlock; i += lanes) {
      store_as(d, hn::Load(d, in + i), view.data, view.element, index + i);
    }
    return;
  }
  const hn::CappedTag<T, 1> one;
  for (int64_t i = 0; i < count; ++i) {
    store_as(one, hn::Load(one, in + i), view.data, view.element, index + i);
  }
}

template <class T>
inline constexpr Element kOwnElement = sizeof(T) == 8 ? Element::kDouble : Element::kFloat;

enum TileRow { kTileU, kTileDelta, kTileY, kTileDu, kTileDdelta, kTileRows };  // y: or dy

template <class T>
class Tile {
 public:
  Tile(const ScanCall& call, int64_t capacity)
      : B(capacity * call.states, Unset()),
        C(capacity * call.states, Unset()),
        call_(call),
        capacity_(capacity),
        tokens_(capacity, Unset()),
        rows_(capacity * kTileRows, Unset()),
        pads_(2 * kPadLanes) {}

  /// Reads the rows' places, B and C of positions [first, first + size).
  void read(int64_t batch, int64_t branch, int64_t first, int64_t size) {
    batch_ = batch;
    branch_ = branch;
    begin = first;
    count = size;
    if (call_.tokens != nullptr) {
      std::copy_n(call_.tokens + batch * call_.tokens_batch + begin, count, tokens_.get());
    }
    read_states(call_.B, B.get());
    read_states(call_.C, C.get());
    const bool backward = call_.dy.data != nullptr;
    find_rows(kTileU, call_.u);
    find_rows(kTileDelta, call_.delta);
    find_rows(kTileY, backward ? call_.dy : call_.y);
    if (!backward) return;
    find_rows(kTileDu, call_.du);
    find_rows(kTileDdelta, call_.ddelta);
  }

  /// The places of channel 0 of the tile's rows, -1 for pads.
  HWY_INLINE const int64_t* rows(TileRow which) const { return rows_.get() + which * capacity_; }
  HWY_INLINE int64_t place(TileRow which, int64_t p, int64_t channel) const {
    const int64_t at = rows(which)[p];
    return at < 0 ? -1 : at + channel;
  }
  /// The kept steps dt of the tile's first position; positions are `channels` apart.
  HWY_INLINE T* steps(int64_t channel) const {
    return static_cast<T*>(call_.steps) + (batch_ * call_.positions + begin) * call_.channels +
           channel;
  }

  /// What a pad's channels are read from and written to, 64 of either.
  T* zeros() const { return pads_.get(); }
  T* sink() const { return pads_.get() + kPadLanes; }

  Buffer<T> B, C;  // [count, N]
  int64_t begin = 0, count = 0;

 private:
  bool is_regular(const RowsView& view) const { return !view.by_token || call_.tokens == nullptr; }

  int64_t row(const RowsView& view, int64_t p) const {
    const int64_t row = is_regular(view) ? begin + p : tokens_.get()[p];
    return row < 0 ? -1 : batch_ * view.batch + row * view.row + branch_ * view.branch;
  }

  void find_rows(TileRow which, const RowsView& view) {
    int64_t* out = rows_.get() + which * capacity_;
    if (is_regular(view)) {
      const int64_t start = row(view, 0), stride = view.row, size = count;
      for (int64_t p = 0; p < size; ++p) out[p] = start + p * stride;
      return;
    }
    for (int64_t p = 0; p < count; ++p) out[p] = row(view, p);
  }

  void read_states(const RowsView& view, T* out) const {
    const hn::CappedTag<T, 1> one;
    const int64_t states = call_.states, size = count;
    if (states == 1 && is_regular(view) && view.element == kOwnElement<T>) {
      const T* from = static_cast<const T*>(view.data) + row(view, 0);
      for (int64_t p = 0; p < size; ++p) out[p] = from[p * view.row];
      return;
    }
    for (int64_t p = 0; p < size; ++p, out += states) {
      const int64_t at = row(view, p);
      int64_t n = 0;
      for (; n + kBlock <= states; n += kBlock) {
        alignas(64) T whole[kBlock];
        read_block(view, at < 0 ? -1 : at + n, kBlock, whole);
        std::copy_n(whole, kBlock, out + n);
      }
      for (; n < states; ++n) {
        out[n] = at < 0 ? T{0} : hn::GetLane(load_as(one, view.data, view.element, at + n));
      }
    }
  }

  static constexpr int64_t kPadLanes = 4 * kBlock;

  const ScanCall& call_;
  int64_t capacity_;
  Buffer<int64_t> tokens_, rows_;
  Buffer<T> pads_;
  int64_t batch_ = 0, branch_ = 0;
};

/// States of channels [channel, channel + count) between [channels, N] and a block [N, 16].
template <class T>
void read_state(const T* from, int64_t states, int64_t count, T* block) {
  for (int64_t n = 0; n < states; ++n) {
    for (int64_t c = 0; c < kBlock; ++c) {
      block[n * kBlock + c] = from != nullptr && c < count ? from[c * states + n] : T{0};
    }
  }
}

template <class T>
void write_state(const T* block, int64_t states, int64_t count, T* to) {
  for (int64_t n = 0; n < states; ++n) {
    for (int64_t c = 0; c < count; ++c) to[c * states + n] = block[n * kBlock + c];
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_TILE_INL_H_
