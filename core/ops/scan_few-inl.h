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

/// Calls run(vectors, channel) over the channels of whole blocks [first, last), at most `kMost`
/// vectors at once where they fit.
template <int kMost, class T, class Run>
HWY_INLINE void each_width(int64_t first, int64_t last, Run run) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Lanes<T>()));
  int64_t channel = first * kBlock;
  const int64_t end = last * kBlock;
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
/// first, and nobody finds it in a cache afterwards anyway.
inline constexpr int64_t kStreamBytes = int64_t{8} << 20;

template <class T>
bool few_streams(const ScanCall& call, const void* data) {
  return call.batch * call.positions * call.channels * static_cast<int64_t>(sizeof(T)) >=
             kStreamBytes &&
         call.channels % kBlock == 0 && reinterpret_cast<uintptr_t>(data) % 64 == 0;
}

/// The same for rows, which must be of T and begin on a cache line each.
template <class T>
bool few_streams(const ScanCall& call, const RowsView& view) {
  const Element own = sizeof(T) == 8 ? Element::kDouble : Element::kFloat;
  const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  return view.element == own && view.row % line == 0 && view.batch % line == 0 &&
         view.branch % line == 0 && few_streams<T>(call, view.data);
}

/// A row's operand and where it is for each position of the tile.
template <class D>
struct FewRows {
  FewRows(const RowsView& of, const int64_t* at, int64_t first, bool past_caches = false)
      : view(of), rows(at), channel(first), stream(past_caches) {}

  HWY_INLINE hn::Vec<D> load(D d, int64_t p, int64_t lane) const {
    if (HWY_UNLIKELY(rows[p] < 0)) return hn::Zero(d);
    return load_as(d, view.data, view.element, rows[p] + channel + lane);
  }
  HWY_INLINE void store(D d, hn::Vec<D> value, int64_t p, int64_t lane) const {
    if (HWY_UNLIKELY(rows[p] < 0)) return;
    if (stream) {
      hn::Stream(value, d, static_cast<hn::TFromD<D>*>(view.data) + rows[p] + channel + lane);
      return;
    }
    store_as(d, value, view.data, view.element, rows[p] + channel + lane);
  }
  /// Asks for `width` channels of a row, from `from` channels behind the first on: rows lie too far
  /// apart for the machine to guess, and a page holds few of them.
  HWY_INLINE void prefetch(int64_t p, int64_t from, int64_t width) const {
    if (stream) return;
    for (int64_t i = 0; i < width; i += kBlock) {
      prefetch_next(view, rows[p] + channel + from + i - kBlock);
    }
  }

  const RowsView view;
  const int64_t* rows;
  int64_t channel;
  bool stream;
};

/// The same for a row of kept steps.
template <class T>
HWY_INLINE void prefetch_steps(const T* steps, int64_t width) {
  for (int64_t i = 0; i < width; i += kBlock) hwy::Prefetch(steps + i);
}

/// This branch's row of [K, channels] from `channel` on, zeros when it is absent.
template <class D>
HWY_INLINE hn::Vec<D> few_row(D d, const void* data, int64_t index) {
  return data == nullptr ? hn::Zero(d)
                         : hn::LoadU(d, static_cast<const hn::TFromD<D>*>(data) + index);
}

/// Walks the tile for `kVectors` vectors of channels from `channel` on. A, h: the blocks of channel
/// 0 of this branch; h starts with the unit's first block.
template <int kStates, int kVectors, class T>
HWY_NOINLINE void few_forward(const ScanCall& call, const Tile<T>& tile, int64_t branch,
                              int64_t channel, const T* A, T* h) {
  const Lanes<T> d;
  using D = Lanes<T>;
  using V = hn::Vec<D>;
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
  const FewRows<D> u(call.u, tile.rows(kTileU), channel);
  const FewRows<D> delta(call.delta, tile.rows(kTileDelta), channel);
  const FewRows<D> y(call.y, tile.rows(kTileY), channel, few_streams<T>(call, call.y));
  T* steps = call.steps == nullptr ? nullptr : tile.steps(channel);
  const bool stream_steps = steps != nullptr && few_streams<T>(call, call.steps);
  const T* B = tile.B.get();
  const T* C = tile.C.get();
  for (int64_t p = 0; p < tile.count; ++p, B += kStates, C += kStates) {
    u.prefetch(p, width, width);
    delta.prefetch(p, width, width);
    y.prefetch(p, width, width);
    if (steps != nullptr && !stream_steps)
      prefetch_steps<T>(steps + p * call.channels + width, width);
    V x[kVectors], step[kVectors], sum[kVectors], kept[kVectors];
    each_vector<kVectors>([&](int v) { step[v] = delta.load(d, p, v * lanes); });
    each_vector<kVectors>([&](int v) { step[v] = hn::Add(step[v], bias[v]); });
    if (call.softplus) softplus(d, step);
    if (stream_steps) {
      each_vector<kVectors>(
          [&](int v) { hn::Stream(step[v], d, steps + p * call.channels + v * lanes); });
    } else if (steps != nullptr) {
      each_vector<kVectors>(
          [&](int v) { hn::StoreU(step[v], d, steps + p * call.channels + v * lanes); });
    }
    each_vector<kVectors>([&](int v) { x[v] = u.load(d, p, v * lanes); });
    each_vector<kVectors>([&](int v) { sum[v] = hn::Mul(skip[v], x[v]); });
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
    each_vector<kVectors>([&](int v) { y.store(d, sum[v], p, v * lanes); });
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) hn::StoreU(state[v][n], d, h + at + n * kBlock);
  }
}

/// 1 - e^-dt, which is softplus's derivative in terms of its value; no digits are lost at small dt.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V softplus_slope(D d, V step) {
  using T = hn::TFromD<D>;
  const V linear = hn::Set(d, T{20});
  if constexpr (sizeof(T) == 8) {
    const V slope = hn::Neg(hn::Expm1(d, hn::Neg(step)));
    return hn::IfThenElse(hn::Gt(step, linear), hn::Set(d, T{1}), slope);
  } else {
    // e^x = 2^k 2^f with x log2(e) = k + f; at 20 and above the result rounds to 1
    const V x = hn::Mul(hn::Min(step, linear), hn::Set(d, -1.44269504f));
    const V magic = hn::Set(d, 0x1.8p23f);
    const V shifted = hn::Add(x, magic);
    const V f = hn::Sub(x, hn::Sub(shifted, magic));
    V q = hn::MulAdd(hn::Set(d, 0.0013264727f), f, hn::Set(d, 0.009671513f));
    q = hn::MulAdd(q, f, hn::Set(d, 0.055507336f));
    q = hn::MulAdd(q, f, hn::Set(d, 0.24022242f));
    q = hn::Mul(f, hn::MulAdd(q, f, hn::Set(d, 0.693147f)));  // 2^f - 1
    const hn::RebindToSigned<D> di;
    const V scale = hn::BitCast(
        d, hn::Add(hn::BitCast(di, hn::Set(d, 1.0f)), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
    return hn::NegMulAdd(scale, q, hn::Sub(hn::Set(d, 1.0f), scale));
  }
}

/// The sums over positions of one unit's channels; each array starts with the unit's first channel.
template <class T>
struct FewSums {
  T *dA, *dD, *dbias;
};

/// What the two walks of a chunk hand over: [count (+ 1), vectors, kStates, lanes].
template <class T>
struct FewHistory {
  T *decays, *states;
};

/// Computes the states of a chunk again. start: blocks [N, 16] of `channel` and on.
template <int kStates, int kVectors, class T>
HWY_NOINLINE void few_replay(const ScanCall& call, const Tile<T>& tile, int64_t channel, const T* A,
                             const T* start, FewHistory<T> history) {
  const Lanes<T> d;
  using D = Lanes<T>;
  using V = hn::Vec<D>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), width = kVectors * lanes;
  const FewRows<D> u(call.u, tile.rows(kTileU), channel);
  const FewRows<D> dy(call.dy, tile.rows(kTileY), channel);
  const T* step_row = tile.steps(channel);
  V rate[kVectors][kStates], state[kVectors][kStates];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      rate[v][n] = hn::LoadU(d, A + at + n * kBlock);
      state[v][n] = hn::LoadU(d, start + at + n * kBlock);
    }
  }
  const T* B = tile.B.get();
  for (int64_t p = 0; p < tile.count; ++p, B += kStates, step_row += call.channels) {
    dy.prefetch(p, 0, width);
    u.prefetch(p, width, width);
    prefetch_steps<T>(step_row + width, width);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const V step = hn::LoadU(d, step_row + v * lanes);
      const V input = hn::Mul(step, u.load(d, p, v * lanes));
#pragma GCC unroll 2
      for (int n = 0; n < kStates; ++n) {
        const V kept = decay(d, hn::Mul(step, rate[v][n]));
        hn::StoreU(state[v][n], d, history.states);
        hn::StoreU(kept, d, history.decays);
        history.states += lanes;
        history.decays += lanes;
        state[v][n] = hn::MulAdd(kept, state[v][n], hn::Mul(input, hn::Set(d, B[n])));
      }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n, history.states += lanes) {
      hn::StoreU(state[v][n], d, history.states);
    }
  }
}

/// Walks a chunk from its end (scan_adjoint-inl.h has the formulas). carry, dA: blocks [N, 16] of
/// `channel` and on; dB, dC: [count, N, 16].
template <int kStates, int kVectors, class T>
HWY_NOINLINE void few_retreat(const ScanCall& call, const Tile<T>& tile, int64_t branch,
                              int64_t channel, const T* A, T* carry, FewSums<T> sums,
                              FewHistory<T> history, T* dB, T* dC) {
  const Lanes<T> d;
  using D = Lanes<T>;
  using V = hn::Vec<D>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kEach = kVectors * kStates;
  const FewRows<D> u(call.u, tile.rows(kTileU), channel);
  const FewRows<D> dy(call.dy, tile.rows(kTileY), channel);
  const FewRows<D> du(call.du, tile.rows(kTileDu), channel, few_streams<T>(call, call.du));
  const FewRows<D> ddelta(call.ddelta, tile.rows(kTileDdelta), channel,
                          few_streams<T>(call, call.ddelta));
  V rate[kVectors][kStates], after[kVectors][kStates], back[kVectors][kStates];
  V dA[kVectors][kStates], skip[kVectors], dD[kVectors], dbias[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
    skip[v] = few_row(d, call.D, branch * call.channels + channel + v * lanes);
    dD[v] = dbias[v] = hn::Zero(d);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      rate[v][n] = hn::LoadU(d, A + at + n * kBlock);
      after[v][n] = hn::LoadU(d, history.states + (tile.count * kEach + v * kStates + n) * lanes);
      back[v][n] = hn::LoadU(d, carry + at + n * kBlock);
      dA[v][n] = hn::Zero(d);
    }
  }
  const V ln2 = hn::Set(d, static_cast<T>(1 / (sizeof(T) == 8 ? kDoubleScale : kFloatScale)));
  constexpr int64_t kAhead = 6;  // positions: later than that, and the first cache has lost them
  for (int64_t p = tile.count; p-- > 0;) {
    if (p >= kAhead) {
      du.prefetch(p - kAhead, 0, kVectors * lanes);
      ddelta.prefetch(p - kAhead, 0, kVectors * lanes);
    }
    const T* B = tile.B.get() + p * kStates;
    const T* C = tile.C.get() + p * kStates;
    T* dB_row = dB + p * kStates * kBlock;
    T* dC_row = dC + p * kStates * kBlock;
    V B_sum[kStates], C_sum[kStates];
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      B_sum[n] = hn::LoadU(d, dB_row + n * kBlock);
      C_sum[n] = hn::LoadU(d, dC_row + n * kBlock);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const V grad = dy.load(d, p, v * lanes), x = u.load(d, p, v * lanes);
      const V step = hn::LoadU(d, tile.steps(channel) + p * call.channels + v * lanes);
      const V input = hn::Mul(step, x);
      V dstep = hn::Zero(d), dinput = hn::Zero(d);
#pragma GCC unroll 2
      for (int n = 0; n < kStates; ++n) {
        const int64_t at = (p * kEach + v * kStates + n) * lanes;
        const V g = hn::MulAdd(hn::Set(d, C[n]), grad, back[v][n]);
        C_sum[n] = hn::MulAdd(grad, after[v][n], C_sum[n]);
        B_sum[n] = hn::MulAdd(g, input, B_sum[n]);
        dinput = hn::MulAdd(g, hn::Set(d, B[n]), dinput);
        back[v][n] = hn::Mul(g, hn::LoadU(d, history.decays + at));
        after[v][n] = hn::LoadU(d, history.states + at);
        const V q = hn::Mul(back[v][n], after[v][n]);
        dstep = hn::MulAdd(q, rate[v][n], dstep);
        dA[v][n] = hn::MulAdd(q, step, dA[v][n]);
      }
      dstep = hn::MulAdd(ln2, dstep, hn::Mul(x, dinput));
      if (call.softplus) dstep = hn::Mul(dstep, softplus_slope(d, step));
      dD[v] = hn::MulAdd(grad, x, dD[v]);
      dbias[v] = hn::Add(dstep, dbias[v]);
      du.store(d, hn::MulAdd(step, dinput, hn::Mul(skip[v], grad)), p, v * lanes);
      ddelta.store(d, dstep, p, v * lanes);
    }
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      hn::StoreU(B_sum[n], d, dB_row + n * kBlock);
      hn::StoreU(C_sum[n], d, dC_row + n * kBlock);
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
    const auto add = [&](V value, T* to) { hn::StoreU(hn::Add(hn::LoadU(d, to), value), d, to); };
    add(dD[v], sums.dD + v * lanes);
    add(dbias[v], sums.dbias + v * lanes);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      hn::StoreU(back[v][n], d, carry + at + n * kBlock);
      add(dA[v][n], sums.dA + at + n * kBlock);
    }
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_FEW_INL_H_
