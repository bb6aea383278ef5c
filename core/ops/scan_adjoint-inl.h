// One block of channels in the backward scan: rows in, replay of the states, rows out.
//
// With g the gradient of h_p, a the decay and carry = a g of the position behind:
//   g = C dy + carry;  dC = sum_d h dy;  dB = sum_d g dt u;  d(dt u) = sum_n g B;
//   q = a g h_before;  d(dt) = sum_n q A + u d(dt u);  dA = sum_p q dt;  carry = a g.
#include "core/ops/scan_tile-inl.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_ADJOINT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_ADJOINT_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_ADJOINT_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_ADJOINT_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

inline constexpr int64_t kAdjointStates = 4;  // states replayed at once

/// The decays and states of a chunk: [capacity, 4, 16] and [capacity + 1, 4, 16].
template <class T>
struct History {
  explicit History(int64_t capacity)
      : decay(capacity * kAdjointStates * kBlock, Unset()),
        h((capacity + 1) * kAdjointStates * kBlock, Unset()) {}
  Buffer<T> decay, h;
};

/// What a chunk's rows hold for one block of channels, [count, 16] each.
template <class T>
struct AdjointRows {
  explicit AdjointRows(int64_t capacity)
      : u(capacity * kBlock, Unset()),
        dt(capacity * kBlock, Unset()),
        dtu(capacity * kBlock, Unset()),
        slope(capacity * kBlock, Unset()),
        dy(capacity * kBlock, Unset()),
        ddt(capacity * kBlock, Unset()),
        ddtu(capacity * kBlock, Unset()) {}

  static RowsView dense(const void* data) {
    return {const_cast<void*>(data),
            sizeof(T) == 8 ? Element::kDouble : Element::kFloat,
            false,
            0,
            0,
            0};
  }

  void prepare(const ScanCall& call, const Tile<T>& tile, int64_t branch, int64_t channel,
               int64_t count) {
    const Lanes<T> d;
    alignas(64) T bias[kBlock];
    read_block(dense(call.delta_bias),
               call.delta_bias == nullptr ? -1 : branch * call.channels + channel, count, bias);
    for (int64_t p = 0; p < tile.count; ++p) {
      const int64_t at = p * kBlock;
      const int64_t u_at = tile.place(kTileU, p, channel);
      const int64_t delta_at = tile.place(kTileDelta, p, channel);
      const int64_t dy_at = tile.place(kTileY, p, channel);
      read_block(call.u, u_at, count, u.get() + at);
      read_block(call.delta, delta_at, count, dt.get() + at);
      read_block(call.dy, dy_at, count, dy.get() + at);
      prefetch_next(call.u, u_at);
      prefetch_next(call.delta, delta_at);
      prefetch_next(call.dy, dy_at);
      for (int64_t i = 0; i < kBlock; i += static_cast<int64_t>(hn::Lanes(d))) {
        auto step = hn::Add(hn::Load(d, dt.get() + at + i), hn::Load(d, bias + i));
        auto rate = hn::Set(d, T{1});
        if (call.softplus) step = softplus(d, step, &rate);
        hn::Store(step, d, dt.get() + at + i);
        hn::Store(rate, d, slope.get() + at + i);
        hn::Store(hn::Mul(step, hn::Load(d, u.get() + at + i)), d, dtu.get() + at + i);
        hn::Store(hn::Zero(d), d, ddt.get() + at + i);
        hn::Store(hn::Zero(d), d, ddtu.get() + at + i);
      }
    }
  }

  /// Writes the rows of du and ddelta; adds the chunk's sums to dD and dbias [16].
  void finish(const ScanCall& call, const Tile<T>& tile, int64_t branch, int64_t channel,
              int64_t count, T* dD, T* dbias) {
    const Lanes<T> d;
    const auto ln2 = hn::Set(d, static_cast<T>(1 / (sizeof(T) == 8 ? kDoubleScale : kFloatScale)));
    alignas(64) T skip[kBlock], sum_D[kBlock] = {}, sum_bias[kBlock] = {};
    read_block(dense(call.D), call.D == nullptr ? -1 : branch * call.channels + channel, count,
               skip);
    for (int64_t p = tile.count; p-- > 0;) {
      for (int64_t i = 0; i < kBlock; i += static_cast<int64_t>(hn::Lanes(d))) {
        const int64_t at = p * kBlock + i;
        const auto x = hn::Load(d, u.get() + at), grad = hn::Load(d, dy.get() + at);
        const auto dinput = hn::Load(d, ddtu.get() + at);
        auto dstep = hn::MulAdd(ln2, hn::Load(d, ddt.get() + at), hn::Mul(x, dinput));
        dstep = hn::Mul(dstep, hn::Load(d, slope.get() + at));
        const auto dx =
            hn::MulAdd(hn::Load(d, dt.get() + at), dinput, hn::Mul(hn::Load(d, skip + i), grad));
        hn::Store(hn::MulAdd(grad, x, hn::Load(d, sum_D + i)), d, sum_D + i);
        hn::Store(hn::Add(dstep, hn::Load(d, sum_bias + i)), d, sum_bias + i);
        hn::Store(dx, d, ddtu.get() + at);
        hn::Store(dstep, d, ddt.get() + at);
      }
      write_block(call.du, tile.place(kTileDu, p, channel), count, ddtu.get() + p * kBlock);
      write_block(call.ddelta, tile.place(kTileDdelta, p, channel), count, ddt.get() + p * kBlock);
    }
    for (int64_t i = 0; i < kBlock; ++i) {
      dD[i] += sum_D[i];
      dbias[i] += sum_bias[i];
    }
  }

  Buffer<T> u, dt, dtu, slope, dy, ddt, ddtu;
};

/// Computes the states of a chunk again. A, h: [kStates, 16]; `lane` is the vector's first channel.
template <int kStates, class D, class T>
HWY_INLINE void replay(D d, const Tile<T>& tile, int64_t states, int64_t first, const T* A,
                       const T* h, const AdjointRows<T>& rows, int64_t lane, History<T>& history) {
  using V = hn::Vec<D>;
  V state[kStates];
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) state[n] = hn::Load(d, h + n * kBlock);
  const T* B = tile.B.get() + first;
  T* past = history.h.get() + lane;
  T* decays = history.decay.get() + lane;
  for (int64_t p = 0; p < tile.count; ++p, B += states) {
    const V step = hn::Load(d, rows.dt.get() + p * kBlock + lane);
    const V input = hn::Load(d, rows.dtu.get() + p * kBlock + lane);
#pragma GCC unroll 4
    for (int n = 0; n < kStates; ++n, past += kBlock, decays += kBlock) {
      const V kept = decay(d, hn::Mul(step, hn::Load(d, A + n * kBlock)));
      hn::Store(state[n], d, past);
      hn::Store(kept, d, decays);
      state[n] = hn::MulAdd(kept, state[n], hn::Mul(input, hn::Set(d, B[n])));
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) hn::Store(state[n], d, past + n * kBlock);
}

/// Walks a chunk from its end. carry, dA: [kStates, 16]; dB, dC: [count, N, 16] from state `first`
/// on. dA grows by the chunk's sum at once: long sums in steps of one would lose digits.
template <int kStates, class D, class T>
HWY_INLINE void retreat(D d, const Tile<T>& tile, int64_t states, int64_t first, const T* A,
                        T* carry, T* dA, AdjointRows<T>& rows, int64_t lane,
                        const History<T>& history, T* dB, T* dC) {
  using V = hn::Vec<D>;
  V back[kStates], slope[kStates];
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) {
    back[n] = hn::Load(d, carry + n * kBlock);
    slope[n] = hn::Zero(d);
  }
  for (int64_t p = tile.count; p-- > 0;) {
    const int64_t at = p * kBlock + lane;
    const T* B = tile.B.get() + p * states + first;
    const T* C = tile.C.get() + p * states + first;
    const T* past = history.h.get() + p * kStates * kBlock + lane;
    const T* decays = history.decay.get() + p * kStates * kBlock + lane;
    T* dB_row = dB + p * states * kBlock;
    T* dC_row = dC + p * states * kBlock;
    const V grad = hn::Load(d, rows.dy.get() + at), step = hn::Load(d, rows.dt.get() + at);
    const V input = hn::Load(d, rows.dtu.get() + at);
    V dstep = hn::Load(d, rows.ddt.get() + at), dinput = hn::Load(d, rows.ddtu.get() + at);
#pragma GCC unroll 4
    for (int n = 0; n < kStates; ++n) {
      const V g = hn::MulAdd(hn::Set(d, C[n]), grad, back[n]);
      const V after = hn::Load(d, past + (kStates + n) * kBlock);
      hn::Store(hn::MulAdd(grad, after, hn::Load(d, dC_row + n * kBlock)), d, dC_row + n * kBlock);
      hn::Store(hn::MulAdd(g, input, hn::Load(d, dB_row + n * kBlock)), d, dB_row + n * kBlock);
      dinput = hn::MulAdd(g, hn::Set(d, B[n]), dinput);
      back[n] = hn::Mul(g, hn::Load(d, decays + n * kBlock));
      const V q = hn::Mul(back[n], hn::Load(d, past + n * kBlock));
      dstep = hn::MulAdd(q, hn::Load(d, A + n * kBlock), dstep);
      slope[n] = hn::MulAdd(q, step, slope[n]);
    }
    hn::Store(dstep, d, rows.ddt.get() + at);
    hn::Store(dinput, d, rows.ddtu.get() + at);
  }
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) {
    hn::Store(back[n], d, carry + n * kBlock);
    hn::Store(hn::Add(hn::Load(d, dA + n * kBlock), slope[n]), d, dA + n * kBlock);
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_ADJOINT_INL_H_
