// The backward pass of one or two states. It takes the steps dt that the forward pass kept instead
// of forming softplus again.
#include "core/ops/scan_few-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_FEW_ADJOINT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_FEW_ADJOINT_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_FEW_ADJOINT_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_FEW_ADJOINT_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

/// 1 - e^-dt, which is softplus's derivative in terms of its value; no digits are lost at small dt.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void softplus_slope(D d, V (&step)[K]) {
  using T = hn::TFromD<D>;
  const V linear = hn::Set(d, T{20}), one = hn::Set(d, T{1});
  if constexpr (sizeof(T) == 8) {
    each_vector<K>([&](int k) {
      const V slope = hn::Neg(hn::Expm1(d, hn::Neg(step[k])));
      step[k] = hn::IfThenElse(hn::Gt(step[k], linear), one, slope);
    });
  } else {
    // e^x = 2^k 2^f with x log2(e) = k + f; at 20 and above the result rounds to 1
    const V magic = hn::Set(d, 0x1.8p23f);
    const hn::RebindToSigned<D> di;
    V f[K], q[K];
    each_vector<K>(
        [&](int k) { f[k] = hn::Mul(hn::Min(step[k], linear), hn::Set(d, -1.44269504f)); });
    each_vector<K>([&](int k) { step[k] = hn::Add(f[k], magic); });
    each_vector<K>([&](int k) { f[k] = hn::Sub(f[k], hn::Sub(step[k], magic)); });
    each_vector<K>([&](int k) {
      q[k] = hn::MulAdd(hn::Set(d, 0.0013264727f), f[k], hn::Set(d, 0.009671513f));
    });
    for (const float next : {0.055507336f, 0.24022242f, 0.693147f}) {
      const V constant = hn::Set(d, next);
      each_vector<K>([&](int k) { q[k] = hn::MulAdd(q[k], f[k], constant); });
    }
    each_vector<K>([&](int k) { q[k] = hn::Mul(q[k], f[k]); });  // 2^f - 1
    each_vector<K>([&](int k) {
      const auto power = hn::ShiftLeft<23>(hn::BitCast(di, step[k]));
      const V scale = hn::BitCast(d, hn::Add(hn::BitCast(di, one), power));
      step[k] = hn::NegMulAdd(scale, q[k], hn::Sub(one, scale));
    });
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

/// Positions ahead of which lines are asked for: what comes earlier, the first cache has lost,
/// since the rows of one channel block lie in few of its sets.
inline constexpr int64_t kFewAhead = 6;

/// Computes the states of a chunk again. start: blocks [N, 16] of `channel` and on.
template <int kStates, int kVectors, bool kOwn, class T>
HWY_NOINLINE void few_replay(const ScanCall& call, const Tile<T>& tile, int64_t channel,
                             FewNext next, const T* A, const T* start, FewHistory<T> history) {
  const Lanes<T> d;
  using V = hn::Vec<Lanes<T>>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), width = kVectors * lanes;
  const FewRows<kOwn, T> u_rows(call.u, tile.rows(kTileU), channel, tile.zeros());
  const FewRows<kOwn, T> dy_rows(call.dy, tile.rows(kTileY), channel, tile.zeros());
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
  const int64_t count = tile.count, stride = call.channels;
  const int64_t u_next = u_rows.distance(next);
  const int64_t steps_next = next.channels + next.positions * stride;
  for (int64_t p = 0; p < count; ++p, B += kStates, step_row += stride) {
    const FewRow<kOwn, T> u = u_rows.at(p);
    dy_rows.prefetch(dy_rows.at(p), 0, width);
    u_rows.prefetch(u, u_next, width);
    prefetch_steps<T>(step_row + steps_next, width);
    V x[kVectors], step[kVectors], kept[kVectors];
    each_vector<kVectors>([&](int v) { step[v] = hn::LoadU(d, step_row + v * lanes); });
    each_vector<kVectors>([&](int v) { x[v] = hn::Mul(step[v], u.load(d, v * lanes)); });
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      const V b = hn::Set(d, B[n]);
      each_vector<kVectors>([&](int v) { kept[v] = hn::Mul(step[v], rate[v][n]); });
      decay(d, kept);
      each_vector<kVectors>([&](int v) {
        hn::StoreU(state[v][n], d, history.states + (v * kStates + n) * lanes);
        hn::StoreU(kept[v], d, history.decays + (v * kStates + n) * lanes);
        state[v][n] = hn::MulAdd(kept[v], state[v][n], hn::Mul(x[v], b));
      });
    }
    history.states += kVectors * kStates * lanes;
    history.decays += kVectors * kStates * lanes;
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
template <int kStates, int kVectors, bool kOwn, class T>
HWY_NOINLINE void few_retreat(const ScanCall& call, const Tile<T>& tile, int64_t branch,
                              int64_t channel, const T* A, T* carry, FewSums<T> sums,
                              FewHistory<T> history, T* dB, T* dC) {
  const Lanes<T> d;
  using V = hn::Vec<Lanes<T>>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), width = kVectors * lanes;
  constexpr int kEach = kVectors * kStates;
  const FewRows<kOwn, T> u_rows(call.u, tile.rows(kTileU), channel, tile.zeros());
  const FewRows<kOwn, T> dy_rows(call.dy, tile.rows(kTileY), channel, tile.zeros());
  const FewRows<kOwn, T> du_rows(call.du, tile.rows(kTileDu), channel, tile.sink());
  const FewRows<kOwn, T> ddelta_rows(call.ddelta, tile.rows(kTileDdelta), channel, tile.sink());
  const bool stream_u = few_streams<T>(call, call.du);
  const bool stream_delta = few_streams<T>(call, call.ddelta);
  const bool with_softplus = call.softplus, with_skip = call.D != nullptr;
  const bool with_bias = call.delta_bias != nullptr;
  const V ln2 = hn::Set(d, static_cast<T>(1 / (sizeof(T) == 8 ? kDoubleScale : kFloatScale)));
  V rate[kVectors][kStates], after[kVectors][kStates], back[kVectors][kStates];
  V dA[kVectors][kStates], skip[kVectors], dD[kVectors], dbias[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = few_place(channel + v * lanes, kStates) - few_place(channel, kStates);
    skip[v] = few_row(d, call.D, branch * call.channels + channel + v * lanes);
    dD[v] = dbias[v] = hn::Zero(d);
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      rate[v][n] = hn::Mul(ln2, hn::LoadU(d, A + at + n * kBlock));
      after[v][n] = hn::LoadU(d, history.states + (tile.count * kEach + v * kStates + n) * lanes);
      back[v][n] = hn::LoadU(d, carry + at + n * kBlock);
      dA[v][n] = hn::Zero(d);
    }
  }
  const int64_t stride = call.channels;
  const T* steps = tile.steps(channel) + tile.count * stride;
  const T* B = tile.B.get() + tile.count * kStates;
  const T* C = tile.C.get() + tile.count * kStates;
  const T* states = history.states + tile.count * kEach * lanes;
  const T* decays = history.decays + tile.count * kEach * lanes;
  for (int64_t p = tile.count; p-- > 0;) {
    if (p >= kFewAhead) {
      if (!stream_u) du_rows.prefetch(du_rows.at(p - kFewAhead), 0, width);
      if (!stream_delta) ddelta_rows.prefetch(ddelta_rows.at(p - kFewAhead), 0, width);
    }
    const FewRow<kOwn, T> u = u_rows.at(p), dy = dy_rows.at(p);
    const FewRow<kOwn, T> du = du_rows.at(p), ddelta = ddelta_rows.at(p);
    steps -= stride;
    B -= kStates;
    C -= kStates;
    states -= kEach * lanes;
    decays -= kEach * lanes;
    T* dB_row = dB + p * kStates * kBlock;
    T* dC_row = dC + p * kStates * kBlock;
    V B_sum[kStates], C_sum[kStates];
#pragma GCC unroll 2
    for (int n = 0; n < kStates; ++n) {
      B_sum[n] = hn::LoadU(d, dB_row + n * kBlock);
      C_sum[n] = hn::LoadU(d, dC_row + n * kBlock);
    }
    V step[kVectors], slope[kVectors];
    each_vector<kVectors>([&](int v) { slope[v] = step[v] = hn::LoadU(d, steps + v * lanes); });
    if (with_softplus) softplus_slope(d, slope);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const V grad = dy.load(d, v * lanes), x = u.load(d, v * lanes);
      const V input = hn::Mul(step[v], x);
      V dstep, dinput;
#pragma GCC unroll 2
      for (int n = 0; n < kStates; ++n) {
        const V g = hn::MulAdd(hn::Set(d, C[n]), grad, back[v][n]), b = hn::Set(d, B[n]);
        C_sum[n] = hn::MulAdd(grad, after[v][n], C_sum[n]);
        B_sum[n] = hn::MulAdd(g, input, B_sum[n]);
        dinput = n == 0 ? hn::Mul(g, b) : hn::MulAdd(g, b, dinput);
        back[v][n] = hn::Mul(g, hn::LoadU(d, decays + (v * kStates + n) * lanes));
        after[v][n] = hn::LoadU(d, states + (v * kStates + n) * lanes);
        const V q = hn::Mul(back[v][n], after[v][n]);
        dstep = n == 0 ? hn::Mul(q, rate[v][n]) : hn::MulAdd(q, rate[v][n], dstep);
        dA[v][n] = hn::MulAdd(q, step[v], dA[v][n]);
      }
      dstep = hn::MulAdd(x, dinput, dstep);
      if (with_softplus) dstep = hn::Mul(dstep, slope[v]);
      ddelta.store(d, dstep, v * lanes, stream_delta);
      V dx = hn::Mul(step[v], dinput);
      if (with_skip) {
        dx = hn::MulAdd(skip[v], grad, dx);
        dD[v] = hn::MulAdd(grad, x, dD[v]);
      }
      du.store(d, dx, v * lanes, stream_u);
      if (with_bias) dbias[v] = hn::Add(dstep, dbias[v]);
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

#endif  // SERPENTINE_CORE_OPS_SCAN_FEW_ADJOINT_INL_H_
