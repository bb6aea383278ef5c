// One or two states: what a row costs beside its states decides, so it is done once. Everything of
// a position stays in registers from its operands to its result, and the backward pass takes the
// steps dt that the forward pass kept instead of forming softplus again.
#include "core/ops/scan_tile-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_
#endif

#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

template <class T>
bool is_own(const RowsView& view) {
  return view.element == kOwnElement<T>;
}

/// How far the next walk is from this one, where rows lie in the order of positions: to the next
/// channels, or to the first ones of the next tile.
struct FewNext {
  int64_t channels, positions;
};

/// Calls run(vectors, channel, next) over the channels of whole blocks [first, last), at most
/// `kMost` vectors at once where they fit; the next tile is `positions` away.
template <int kMost, class T, class Run>
HWY_INLINE void each_width(int64_t first, int64_t last, int64_t positions, Run walk) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Lanes<T>()));
  int64_t channel = first * kBlock;
  const int64_t end = last * kBlock;
  const auto run = [&](auto vectors, int64_t at) {
    const int64_t next = at + decltype(vectors)::value * lanes;
    walk(vectors, at, next < end ? FewNext{next - at, 0} : FewNext{first * kBlock - at, positions});
  };
  if constexpr (kMost >= 4) {
    for (; channel + 4 * lanes <= end; channel += 4 * lanes) {
      run(std::integral_constant<int, 4>(), channel);
    }
  }
  for (; channel + 2 * lanes <= end; channel += 2 * lanes) {
    run(std::integral_constant<int, 2>(), channel);
  }
  if (channel < end) run(std::integral_constant<int, 1>(), channel);
}

/// Where vector v of the channels from a multiple of the width lies in blocks [N, 16].
HWY_INLINE int64_t few_place(int64_t channel, int64_t states) {
  return channel / kBlock * kBlock * states + channel % kBlock;
}

/// Results of this size are written past the caches: a line that is written whole need not be read
/// first, and the operands stay in the cache. The kept steps are read again: only what no cache
/// holds until then leaves it.
inline constexpr int64_t kStreamBytes = int64_t{2} << 20, kStreamStepBytes = int64_t{8} << 20;

template <class T>
bool few_streams(const ScanCall& call, const void* data, int64_t least) {
  return data != nullptr &&
         call.batch * call.positions * call.channels * static_cast<int64_t>(sizeof(T)) >= least &&
         call.channels % kBlock == 0 && reinterpret_cast<uintptr_t>(data) % 64 == 0;
}

/// The same for rows, which must be of T and begin on a cache line each.
template <class T>
bool few_streams(const ScanCall& call, const RowsView& view) {
  const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  return view.element == kOwnElement<T> && view.row % line == 0 && view.batch % line == 0 &&
         view.branch % line == 0 && few_streams<T>(call, view.data, kStreamBytes);
}

/// Into the second cache: what the next walk needs, the first one would lose before, and the core
/// waits for few lines of the first at a time.
HWY_INLINE void prefetch_far(const void* line) { __builtin_prefetch(line, 0, 2); }

/// Elements of one row from a channel on; kOwn: they are of type T.
template <bool kOwn, class T>
struct FewRow {
  using D = Lanes<T>;
  char* data;
  Element element;

  HWY_INLINE hn::Vec<D> load(D d, int64_t lane) const {
    return load_as(d, data, kOwn ? kOwnElement<T> : element, lane);
  }
  HWY_INLINE void store(D d, hn::Vec<D> value, int64_t lane, bool past_caches) const {
    if (kOwn && past_caches) {
      hn::Stream(value, d, reinterpret_cast<T*>(data) + lane);
    } else {
      store_as(d, value, data, kOwn ? kOwnElement<T> : element, lane);
    }
  }
};

/// Where each position of the tile has its row. A pad reads zeros and writes what nobody reads.
template <bool kOwn, class T>
class FewRows {
 public:
  FewRows(const RowsView& view, const int64_t* rows, int64_t channel, T* pad)
      : data_(static_cast<char*>(view.data)),
        rows_(rows),
        channel_(channel),
        pad_(reinterpret_cast<char*>(pad)),
        element_(view.element),
        stride_(view.row),
        size_(kOwn ? static_cast<int64_t>(sizeof(T)) : element_size(view.element)) {}

  HWY_INLINE FewRow<kOwn, T> at(int64_t p) const {
    const int64_t row = rows_[p];
    return {row < 0 ? pad_ : data_ + (row + channel_) * size_, element_};
  }
  /// Asks for `width` channels, `distance` elements behind a row's: rows lie too far apart for the
  /// machine to guess, and a page holds few of them.
  HWY_INLINE void prefetch(const FewRow<kOwn, T>& row, int64_t distance, int64_t width) const {
    const char* from = row.data + distance * size_;
    for (int64_t i = 0; i < width; i += kBlock) prefetch_far(from + i * size_);
  }
  /// From a row to the one that the next walk reads at the same time.
  HWY_INLINE int64_t distance(const FewNext& next) const {
    return next.channels + next.positions * stride_;
  }

 private:
  static int64_t element_size(Element element) {
    return element == Element::kDouble ? 8 : element == Element::kFloat ? 4 : 2;
  }
  char* data_;
  const int64_t* rows_;
  int64_t channel_;
  char* pad_;
  Element element_;
  int64_t stride_, size_;
};

/// The same for a row of kept steps.
template <class T>
HWY_INLINE void prefetch_steps(const T* steps, int64_t width) {
  for (int64_t i = 0; i < width; i += kBlock) prefetch_far(steps + i);
}

/// This branch's row of [K, channels] from `channel` on, zeros when it is absent.
template <class D>
HWY_INLINE hn::Vec<D> few_row(D d, const void* data, int64_t index) {
  return data == nullptr ? hn::Zero(d)
                         : hn::LoadU(d, static_cast<const hn::TFromD<D>*>(data) + index);
}

/// Walks the tile for `kVectors` vectors of channels from `channel` on. A, h: the blocks of channel
/// 0 of this branch; h starts with the unit's first block.
template <int kStates, int kVectors, bool kOwn, class T>
HWY_NOINLINE void few_forward(const ScanCall& call, const Tile<T>& tile, int64_t branch,
                              int64_t channel, FewNext next, const T* A, T* h) {
  const Lanes<T> d;
  using V = hn::Vec<Lanes<T>>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), width = kVectors * lanes;
  V state[kVectors][kStates], rate[kVectors][kStates], skip[kVectors], bias[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
    skip[v] = few_row(d, call.D, branch * call.channels + channel + v * lanes);
    bias[v] = few_row(d, call.delta_bias, branch * call.channels + channel + v * lanes);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      state[v][n] = hn::LoadU(d, h + at + n * kBlock);
      rate[v][n] = hn::LoadU(d, A + at + n * kBlock);
    }
  }
  const FewRows<kOwn, T> u_rows(call.u, tile.rows(kTileU), channel, tile.zeros());
  const FewRows<kOwn, T> delta_rows(call.delta, tile.rows(kTileDelta), channel, tile.zeros());
  const FewRows<kOwn, T> y_rows(call.y, tile.rows(kTileY), channel, tile.sink());
  const bool stream = few_streams<T>(call, call.y), with_skip = call.D != nullptr;
  const bool with_bias = call.delta_bias != nullptr, with_softplus = call.softplus;
  T* steps = call.steps == nullptr ? nullptr : tile.steps(channel);
  const bool stream_steps = few_streams<T>(call, call.steps, kStreamStepBytes);
  const SoftplusTable& table = softplus_table();
  const T* B = tile.B.get();
  const T* C = tile.C.get();
  const int64_t count = tile.count, stride = call.channels;
  const int64_t u_next = u_rows.distance(next), delta_next = delta_rows.distance(next);
  const int64_t y_next = y_rows.distance(next);
  const int64_t steps_next = next.channels + next.positions * stride;
  for (int64_t p = 0; p < count; ++p, B += kStates, C += kStates) {
    const FewRow<kOwn, T> u = u_rows.at(p), delta = delta_rows.at(p), y = y_rows.at(p);
    u_rows.prefetch(u, u_next, width);
    delta_rows.prefetch(delta, delta_next, width);
    if (!stream) y_rows.prefetch(y, y_next, width);
    V x[kVectors], step[kVectors], sum[kVectors], kept[kVectors];
    each_vector<kVectors>([&](int v) { step[v] = delta.load(d, v * lanes); });
    if (with_bias) each_vector<kVectors>([&](int v) { step[v] = hn::Add(step[v], bias[v]); });
    if (with_softplus) softplus(d, table, step);
    if (steps != nullptr) {
      if (stream_steps) {
        each_vector<kVectors>([&](int v) { hn::Stream(step[v], d, steps + v * lanes); });
      } else {
        prefetch_steps<T>(steps + steps_next, width);
        each_vector<kVectors>([&](int v) { hn::StoreU(step[v], d, steps + v * lanes); });
      }
      steps += stride;
    }
    each_vector<kVectors>([&](int v) { x[v] = u.load(d, v * lanes); });
    each_vector<kVectors>([&](int v) { sum[v] = hn::Zero(d); });
    if (with_skip) each_vector<kVectors>([&](int v) { sum[v] = hn::Mul(skip[v], x[v]); });
    each_vector<kVectors>([&](int v) { x[v] = hn::Mul(step[v], x[v]); });
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      const V b = hn::Set(d, B[n]), c = hn::Set(d, C[n]);
      each_vector<kVectors>([&](int v) { kept[v] = hn::Mul(step[v], rate[v][n]); });
      decay(d, kept);
      each_vector<kVectors>(
          [&](int v) { state[v][n] = hn::MulAdd(kept[v], state[v][n], hn::Mul(x[v], b)); });
      each_vector<kVectors>([&](int v) { sum[v] = hn::MulAdd(c, state[v][n], sum[v]); });
    }
    each_vector<kVectors>([&](int v) { y.store(d, sum[v], v * lanes, stream); });
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) hn::StoreU(state[v][n], d, h + at + n * kBlock);
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_
