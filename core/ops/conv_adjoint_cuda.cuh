// One lane of the backward pass of the causal convolution on CUDA.
#pragma once

#include "core/ops/conv_cuda.cuh"

namespace serpentine::cuda::conv {

/// dx of position q is the sum of weight[W - 1 - i] g[q + i]: it leaves W - 1 steps after its g.
template <class T, int kWidth, int kSide>
struct Adjoint {
  using R = Real<T>;
  static constexpr int kBefore = kWidth - 1;
  static constexpr int kCount = kSide > 1 && sizeof(Pack<T, kSide>) > 4 ? kAhead / 2 : kAhead;
  static_assert(kCount >= kBefore, "only the first rows of a piece may lead before it");

  const Conv<T, kWidth, kSide>& at;
  const Column<const T> dy;
  const Column<T> dx;
  const int begin, end;                            // of the sequence
  R window[kWidth][kSide], g[kWidth][kSide] = {};  // the last samples and the gradients of sums
  R dweight[kWidth][kSide] = {}, dbias[kSide] = {};

  __device__ explicit Adjoint(const Conv<T, kWidth, kSide>& of)
      : at(of),
        dy(of.call.dy, of.b, 0, of.d),
        dx(of.call.dx, of.b, 0, of.d),
        begin(static_cast<int>(of.sequence_begin())),
        end(static_cast<int>(of.sequence_end())) {}

  __device__ void add_weights() {
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      dbias[c] += g[kBefore][c];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) dweight[j][c] += g[kBefore][c] * window[j][c];
    }
  }
  __device__ void input_gradient(R (&value)[kSide]) const {
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      value[c] = 0;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) value[c] += at.weight[kBefore - j][c] * g[j][c];
    }
  }
  __device__ void store_gradient(int q, const R (&value)[kSide]) const {
    const int to = at.call.dx.by_token ? at.row(q) : q;
    if (to >= 0) store_row(dx, to, value);
  }
  /// The gradient at q, which may be a sample before the sequence, near its borders.
  __device__ void leave_at_border(int q) const {
    const bool is_initial = q < begin;
    if (q < at.piece.begin && !(is_initial && at.piece.first)) return;
    R value[kSide];
    input_gradient(value);
    const int in_final = q - (end - kBefore);
    if (at.call.dafter && in_final >= 0) {
#pragma unroll
      for (int c = 0; c < kSide; ++c) {
        value[c] += static_cast<const R*>(at.call.dafter)[at.beside(in_final) + c];
      }
    }
    if (!is_initial) {
      store_gradient(q, value);
    } else if (at.call.dbefore) {
      R* to = static_cast<R*>(at.call.dbefore) + at.beside(q - begin + kBefore);
#pragma unroll
      for (int c = 0; c < kSide; ++c) to[c] = value[c];
    }
  }

  struct Raw {
    Pack<T, kSide> x[kCount], dy[kCount];
  };
  /// kCount positions from `first`: a piece's own, and those behind it that its dx needs.
  __device__ void load(Raw& raw, int first) const {
    const int stop = min(static_cast<int>(at.piece.end) + kBefore, end);  // g is zero behind
    at.load_tokens(raw.x, first, stop);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      raw.dy[i] = load_row<kSide>(dy, first + i < stop ? first + i : kNoRow);
    }
  }
  template <Rows kRows>
  __device__ void walk(const Raw& raw, int first) {
    constexpr bool kInside = kRows != Rows::kAny;
    const int stop = static_cast<int>(at.piece.end) + kBefore;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int p = first + i;
      if (!kInside && p >= stop) return;
      R value[kSide], grad[kSide];
      widen(value, raw.x[i]);
      widen(grad, raw.dy[i]);
      push(window, value);
#pragma unroll
      for (int c = 0; c < kSide; ++c) {
        const R sum = at.inner(window, c), s = sigmoid(sum);
        grad[c] *= at.call.silu ? s * (1 + sum * (1 - s)) : R(1);
      }
      push(g, grad);
      if (kInside) {
        add_weights();
        input_gradient(value);
        if (kRows == Rows::kInOrder) {
          store_row(dx, p - kBefore, value);
        } else {
          store_gradient(p - kBefore, value);
        }
      } else {
        if (p < at.piece.end) add_weights();
        leave_at_border(p - kBefore);
      }
    }
  }
  /// The piece, group by group; the next group is on its way while one is walked.
  template <Rows kInner>
  __device__ void run() {
    const int stop = static_cast<int>(at.piece.end);
    int first = static_cast<int>(at.piece.begin);
    Raw raw, next;
    load(raw, first);
    at.start(window);
    load(next, first + kCount);
    walk<Rows::kAny>(raw, first);
    for (first += kCount; first + kCount <= stop; first += kCount) {
      raw = next;
      load(next, first + kCount);
      walk<kInner>(raw, first);
    }
    for (; first < stop + kBefore; first += kCount) {
      raw = next;
      load(next, first + kCount);
      walk<Rows::kAny>(raw, first);
    }
  }
};

}  // namespace serpentine::cuda::conv
