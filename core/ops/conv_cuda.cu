// The causal convolution on CUDA: a lane walks one channel through a run of positions with the last
// samples in registers, so that every row is read once (and width - 1 more at a run's beginning).
#include "core/ops/conv_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kAhead = 8;  // rows that are requested together

template <class R>
__device__ R sigmoid(R x) {
  if constexpr (sizeof(R) == 8) {
    return 1. / (1. + exp(-x));
  } else {
    return reciprocal(1.f + exp2_fast(-x * static_cast<float>(kLog2e)));
  }
}

template <class T, int kWidth>
struct Conv {
  using R = Real<T>;
  static constexpr int kBefore = kWidth - 1;

  const ConvCall& call;
  const int64_t unit, blocks, slot, b, channel;
  const Piece piece;
  const int64_t k, d;
  const bool active;
  const RowFinder row_of;
  const Column<const T> x;
  R weight[kWidth], bias;

  __device__ explicit Conv(const ConvCall& of)
      : call(of),
        unit(blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp),
        blocks((of.walk.channels + kWarp - 1) / kWarp),
        slot(unit / blocks % of.walk.slots()),
        b(unit / blocks / of.walk.slots()),
        channel(unit % blocks * kWarp + threadIdx.x % kWarp),
        piece(b < of.walk.batch ? find_piece(of.walk, slot) : Piece{}),
        k(b < of.walk.batch ? of.walk.branch[piece.sequence] : 0),
        d(channel < of.walk.channels ? channel : 0),
        active(b < of.walk.batch && channel < of.walk.channels),
        row_of(of.walk, piece, b < of.walk.batch ? b : 0),
        x(of.x, b < of.walk.batch ? b : 0, 0, d) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      weight[j] = static_cast<const R*>(of.weight)[(k * kWidth + j) * of.walk.channels + d];
    }
    bias = of.bias ? static_cast<const R*>(of.bias)[k * of.walk.channels + d] : R(0);
  }

  __device__ int64_t sequence_begin() const { return call.walk.offsets[piece.sequence]; }
  __device__ int64_t sequence_end() const { return call.walk.offsets[piece.sequence + 1]; }
  /// Sample j of the W - 1 before a sequence, or of its last ones, in a [B, S, W - 1, D] array.
  __device__ int64_t beside(int64_t j) const {
    return ((b * call.walk.sequences + piece.sequence) * kBefore + j) * call.walk.channels + d;
  }
  /// The row of x at a position of this sequence, -1 for a pad.
  __device__ int row(int64_t position) const {
    return row_of.order ? row_of.order[position] : static_cast<int>(position);
  }
  /// The sample at a position, which may lie up to W - 1 before the sequence.
  __device__ R sample(int64_t position) const {
    const int64_t begin = sequence_begin();
    if (position >= begin) return wide(load(x, row(position)));
    const auto* before = static_cast<const R*>(call.before);
    return before ? before[beside(position - begin + kBefore)] : R(0);
  }
  /// window: the last W samples, the newest at W - 1.
  __device__ R inner(const R (&window)[kWidth]) const {
    R sum = bias;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += weight[j] * window[j];
    return sum;
  }
};

template <int kWidth, class R>
__device__ void push(R (&window)[kWidth], R value) {
#pragma unroll
  for (int j = 0; j + 1 < kWidth; ++j) window[j] = window[j + 1];
  window[kWidth - 1] = value;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(const ConvCall call) {
  using R = Real<T>;
  const Conv<T, kWidth> at(call);
  if (!at.active || !at.piece.used) return;
  const Column<T> y(call.y, at.b, 0, at.d);
  R window[kWidth];
  window[0] = 0;
#pragma unroll
  for (int j = 1; j < kWidth; ++j) window[j] = at.sample(at.piece.begin - kWidth + j);
  for (int64_t first = at.piece.begin; first < at.piece.end; first += kAhead) {
    T raw[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      raw[i] = load(at.x, first + i < at.piece.end ? at.row(first + i) : kNoRow);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= at.piece.end) break;
      push(window, R(wide(raw[i])));
      const R sum = at.inner(window);
      store(y, static_cast<int>(first) + i, call.silu ? sum * sigmoid(sum) : sum);
    }
  }
  if (call.after && at.piece.last) {
    for (int j = 0; j + 1 < kWidth; ++j) {
      static_cast<R*>(call.after)[at.beside(j)] = at.sample(at.sequence_end() - (kWidth - 1) + j);
    }
  }
}

/// dx of position q is the sum of weight[W - 1 - i] g[q + i]: it leaves W - 1 steps after its g.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) backward_kernel(const ConvCall call) {
  using R = Real<T>;
  constexpr int kBefore = kWidth - 1;
  const Conv<T, kWidth> at(call);
  if (!at.active) return;
  R dweight[kWidth] = {}, dbias = 0;
  if (at.piece.used) {
    const Column<const T> dy(call.dy, at.b, 0, at.d);
    const Column<T> dx(call.dx, at.b, 0, at.d);
    const int64_t begin = at.sequence_begin(), end = at.sequence_end();
    R window[kWidth], g[kWidth] = {};
    window[0] = 0;
#pragma unroll
    for (int j = 1; j < kWidth; ++j) window[j] = at.sample(at.piece.begin - kWidth + j);
    const int64_t stop = at.piece.end + kBefore;  // behind the sequence g is zero
    for (int64_t first = at.piece.begin; first < stop; first += kAhead) {
      T raw[kAhead], raw_dy[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t p = first + i;
        const bool inside = p < stop && p < end;
        raw[i] = load(at.x, inside ? at.row(p) : kNoRow);
        raw_dy[i] = load(dy, inside ? static_cast<int>(p) : kNoRow);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t p = first + i;
        if (p >= stop) break;
        push(window, R(wide(raw[i])));
        R grad = wide(raw_dy[i]);
        if (call.silu) {
          const R sum = at.inner(window), s = sigmoid(sum);
          grad *= s * (1 + sum * (1 - s));
        }
        if (p >= end) grad = 0;
        push(g, grad);
        if (p < at.piece.end) {
          dbias += grad;
#pragma unroll
          for (int j = 0; j < kWidth; ++j) dweight[j] += grad * window[j];
        }
        const int64_t q = p - kBefore;
        const bool is_initial = q < begin;  // the gradient of a sample before the sequence
        if (q < at.piece.begin && !(is_initial && at.piece.first)) continue;
        R sum = 0;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) sum += at.weight[kWidth - 1 - j] * g[j];
        const int64_t in_final = q - (end - kBefore);
        if (call.dafter && in_final >= 0) {
          sum += static_cast<const R*>(call.dafter)[at.beside(in_final)];
        }
        if (is_initial) {
          if (call.dbefore) static_cast<R*>(call.dbefore)[at.beside(q - begin + kBefore)] = sum;
        } else {
          store(dx, call.dx.by_token ? at.row(q) : static_cast<int>(q), sum);
        }
      }
    }
  }
  R* to = static_cast<R*>(call.dweight) +
          (at.b * call.walk.slots() + at.slot) * (kWidth + 1) * call.walk.channels + at.d;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) to[j * call.walk.channels] = dweight[j];
  to[kWidth * call.walk.channels] = dbias;
}

template <class Run>
void for_width(const ConvCall& call, const Run& run) {
  for_element(call.walk.element, [&](auto like) {
    if (call.width == 1) run(like, FixedLayout<1, 1>());
    if (call.width == 2) run(like, FixedLayout<2, 1>());
    if (call.width == 3) run(like, FixedLayout<3, 1>());
    if (call.width == 4) run(like, FixedLayout<4, 1>());
    if (call.width == 5) run(like, FixedLayout<5, 1>());
    if (call.width == 6) run(like, FixedLayout<6, 1>());
    if (call.width == 7) run(like, FixedLayout<7, 1>());
  });
}

unsigned blocks_of(const ConvCall& call) {
  const int64_t units =
      call.walk.batch * call.walk.slots() * ((call.walk.channels + kWarp - 1) / kWarp);
  return static_cast<unsigned>((units + kWarps - 1) / kWarps);
}

}  // namespace

const char* conv_forward(const ConvCall& call, void* stream) {
  if (blocks_of(call) == 0) return nullptr;
  for_width(call, [&](auto like, auto width) {
    forward_kernel<decltype(like), decltype(width)::kEach>
        <<<blocks_of(call), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

const char* conv_backward(const ConvCall& call, void* stream) {
  if (blocks_of(call) == 0) return nullptr;
  for_width(call, [&](auto like, auto width) {
    backward_kernel<decltype(like), decltype(width)::kEach>
        <<<blocks_of(call), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

}  // namespace serpentine::cuda
