// The causal convolution on CUDA: a lane walks a few channels through a run of positions with the
// last samples in registers, so that every row is read once (and width - 1 more at a run's
// beginning).
#include "core/ops/conv_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kAhead = 8;  // rows that are requested together

/// What is known of a group of rows: nothing; that it lies inside of its piece; and that position p
/// is token p besides.
enum class Rows { kAny, kInside, kInOrder };

template <class R>
__device__ R sigmoid(R x) {
  if constexpr (sizeof(R) == 8) {
    return 1. / (1. + exp(-x));
  } else {
    return reciprocal(1.f + exp2_fast(-x * static_cast<float>(kLog2e)));
  }
}

/// Warps that lie side by side over the channels, `side` channels a lane.
__host__ __device__ int64_t channel_blocks(const ConvCall& call, int64_t side) {
  return (call.walk.channels + kWarp * side - 1) / (kWarp * side);
}

template <int kSide, class T>
__device__ Pack<T, kSide> load_row(const Column<const T>& column, int row) {
  Pack<T, kSide> raw;
#pragma unroll
  for (int c = 0; c < kSide; ++c) raw.value[c] = T(0.f);
  if (row >= 0) raw = *reinterpret_cast<const Pack<T, kSide>*>(column.at(row));
  return raw;
}
template <int kSide, class T, class R>
__device__ void store_row(const Column<T>& column, int row, const R (&value)[kSide]) {
  Pack<T, kSide> raw;
#pragma unroll
  for (int c = 0; c < kSide; ++c) raw.value[c] = narrow<T>(value[c]);
  *reinterpret_cast<Pack<T, kSide>*>(column.at(row)) = raw;
}

/// Of one lane: kSide neighbouring channels through one piece.
template <class T, int kWidth, int kSide>
struct Conv {
  using R = Real<T>;
  using Row = Pack<T, kSide>;
  static constexpr int kBefore = kWidth - 1;

  const ConvCall& call;
  const int64_t unit, blocks, slot, b, channel;
  const Piece piece;
  const int64_t k, d;
  const bool active;
  const RowFinder row_of;
  const Column<const T> x;
  R weight[kWidth][kSide], bias[kSide];

  __device__ explicit Conv(const ConvCall& of)
      : call(of),
        unit(blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp),
        blocks(channel_blocks(of, kSide)),
        slot(unit / blocks % of.walk.slots()),
        b(unit / blocks / of.walk.slots()),
        channel((unit % blocks * kWarp + threadIdx.x % kWarp) * kSide),
        piece(b < of.walk.batch ? find_piece(of.walk, slot) : Piece{}),
        k(b < of.walk.batch ? of.walk.branch[piece.sequence] : 0),
        d(channel < of.walk.channels ? channel : 0),
        active(b < of.walk.batch && channel < of.walk.channels),
        row_of(of.walk, piece, b < of.walk.batch ? b : 0),
        x(of.x, b < of.walk.batch ? b : 0, 0, d) {
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        weight[j][c] =
            static_cast<const R*>(of.weight)[(k * kWidth + j) * of.walk.channels + d + c];
      }
      bias[c] = of.bias ? static_cast<const R*>(of.bias)[k * of.walk.channels + d + c] : R(0);
    }
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
  /// The samples at a position; zeros for none (kNoRow) and for a pad.
  template <Rows kRows>
  __device__ Row load_token(int position) const {
    if (kRows == Rows::kInOrder) return *reinterpret_cast<const Row*>(x.at(position));
    return load_row<kSide>(x, position >= 0 ? row(position) : kNoRow);
  }
  /// The samples at a position, which may lie up to W - 1 before the sequence.
  __device__ void sample(int64_t position, R (&value)[kSide]) const {
    const int64_t begin = sequence_begin();
    const auto* before = static_cast<const R*>(call.before);
    const Row raw = load_row<kSide>(x, position >= begin ? row(position) : kNoRow);
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      value[c] = wide(raw.value[c]);
      if (position < begin && before) value[c] = before[beside(position - begin + kBefore) + c];
    }
  }
  __device__ void start(R (&window)[kWidth][kSide]) const {
#pragma unroll
    for (int c = 0; c < kSide; ++c) window[0][c] = 0;
#pragma unroll
    for (int j = 1; j < kWidth; ++j) sample(piece.begin - kWidth + j, window[j]);
  }
  /// window: the last W samples, the newest at W - 1.
  __device__ R inner(const R (&window)[kWidth][kSide], int c) const {
    R sum = bias[c];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += weight[j][c] * window[j][c];
    return sum;
  }
};

template <int kWidth, int kSide, class R>
__device__ void push(R (&window)[kWidth][kSide], const R (&value)[kSide]) {
#pragma unroll
  for (int c = 0; c < kSide; ++c) {
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) window[j][c] = window[j + 1][c];
    window[kWidth - 1][c] = value[c];
  }
}

template <int kSide, class T, class R>
__device__ void widen(R (&value)[kSide], const Pack<T, kSide>& raw) {
#pragma unroll
  for (int c = 0; c < kSide; ++c) value[c] = wide(raw.value[c]);
}

/// kAhead positions from `first`.
template <Rows kRows, class T, int kWidth, int kSide, class R>
__device__ void forward_rows(const Conv<T, kWidth, kSide>& at, const Column<T>& y, int first,
                             R (&window)[kWidth][kSide]) {
  constexpr bool kInside = kRows != Rows::kAny;
  const int end = static_cast<int>(at.piece.end);
  Pack<T, kSide> raw[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    raw[i] = at.template load_token<kRows>(kInside || first + i < end ? first + i : kNoRow);
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    R value[kSide];
    widen(value, raw[i]);
    push(window, value);
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      const R sum = at.inner(window, c);
      value[c] = at.call.silu ? sum * sigmoid(sum) : sum;
    }
    if (kInside || first + i < end) store_row(y, first + i, value);
  }
}

template <class T, int kWidth, int kSide>
__global__ void __launch_bounds__(kThreads) forward_kernel(const ConvCall call) {
  using R = Real<T>;
  const Conv<T, kWidth, kSide> at(call);
  if (!at.active || !at.piece.used) return;
  const Column<T> y(call.y, at.b, 0, at.d);
  R window[kWidth][kSide];
  at.start(window);
  const int end = static_cast<int>(at.piece.end);
  int first = static_cast<int>(at.piece.begin);
  if (at.row_of.order) {
    for (; first + kAhead <= end; first += kAhead) {
      forward_rows<Rows::kInside>(at, y, first, window);
    }
  } else {
    for (; first + kAhead <= end; first += kAhead) {
      forward_rows<Rows::kInOrder>(at, y, first, window);
    }
  }
  if (first < end) forward_rows<Rows::kAny>(at, y, first, window);
  if (call.after && at.piece.last) {
    for (int j = 0; j + 1 < kWidth; ++j) {
      R value[kSide];
      at.sample(at.sequence_end() - (kWidth - 1) + j, value);
#pragma unroll
      for (int c = 0; c < kSide; ++c) static_cast<R*>(call.after)[at.beside(j) + c] = value[c];
    }
  }
}

/// dx of position q is the sum of weight[W - 1 - i] g[q + i]: it leaves W - 1 steps after its g.
template <class T, int kWidth, int kSide>
struct Adjoint {
  using R = Real<T>;
  static constexpr int kBefore = kWidth - 1, kCount = kSide > 1 ? kAhead / 2 : kAhead;
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

  /// kCount positions from `first`; inside are those that they lead to as well.
  template <Rows kRows>
  __device__ void rows(int first) {
    constexpr bool kInside = kRows != Rows::kAny;
    Pack<T, kSide> raw[kCount], raw_dy[kCount];
    const int stop = static_cast<int>(at.piece.end) + kBefore;  // behind the end g is zero
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int p = kInside || (first + i < stop && first + i < end) ? first + i : kNoRow;
      raw[i] = at.template load_token<kRows>(p);
      raw_dy[i] =
          kInside ? *reinterpret_cast<const Pack<T, kSide>*>(dy.at(p)) : load_row<kSide>(dy, p);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int p = first + i;
      if (!kInside && p >= stop) return;
      R value[kSide], grad[kSide];
      widen(value, raw[i]);
      widen(grad, raw_dy[i]);
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
};

template <class T, int kWidth, int kSide>
__global__ void __launch_bounds__(kThreads, 4) backward_kernel(const ConvCall call) {
  using R = Real<T>;
  const Conv<T, kWidth, kSide> at(call);
  if (!at.active) return;
  Adjoint<T, kWidth, kSide> adjoint(at);
  if (at.piece.used) {
    constexpr int kCount = Adjoint<T, kWidth, kSide>::kCount;
    const int end = static_cast<int>(at.piece.end);
    int first = static_cast<int>(at.piece.begin);
    at.start(adjoint.window);  // a piece that is not used may begin behind every row
    adjoint.template rows<Rows::kAny>(first);
    first += kCount;
    if (at.row_of.order) {
      for (; first + kCount <= end; first += kCount) adjoint.template rows<Rows::kInside>(first);
    } else {
      for (; first + kCount <= end; first += kCount) adjoint.template rows<Rows::kInOrder>(first);
    }
    for (; first < end + kWidth - 1; first += kCount) adjoint.template rows<Rows::kAny>(first);
  }
  R* to = static_cast<R*>(call.dweight) +
          (at.b * call.walk.slots() + at.slot) * (kWidth + 1) * call.walk.channels + at.d;
#pragma unroll
  for (int c = 0; c < kSide; ++c) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) to[j * call.walk.channels + c] = adjoint.dweight[j][c];
    to[kWidth * call.walk.channels + c] = adjoint.dbias[c];
  }
}

/// Whether every row of the view can be read kSide values at once.
bool is_aligned(const RowsView& view, int64_t side, int64_t bytes) {
  return !view.data || (view.row % side == 0 && view.batch % side == 0 &&
                        reinterpret_cast<uintptr_t>(view.data) % (side * bytes) == 0);
}

/// run(element, width and neighbouring channels of a lane)
template <class Run>
void for_width(const ConvCall& call, const Run& run) {
  for_element(call.walk.element, [&](auto like) {
    constexpr int kBytes = sizeof(like), kSide = kBytes >= 8 ? 1 : 8 / kBytes;
    const bool wide_rows = call.walk.channels % kSide == 0 && is_aligned(call.x, kSide, kBytes) &&
                           is_aligned(call.y, kSide, kBytes) &&
                           is_aligned(call.dx, kSide, kBytes) && is_aligned(call.dy, kSide, kBytes);
    if (call.width == 1) run(like, FixedLayout<1, 1>());
    if (call.width == 2 && wide_rows) run(like, FixedLayout<2, kSide>());
    if (call.width == 3 && wide_rows) run(like, FixedLayout<3, kSide>());
    if (call.width == 4 && wide_rows) run(like, FixedLayout<4, kSide>());
    if (call.width == 2 && !wide_rows) run(like, FixedLayout<2, 1>());
    if (call.width == 3 && !wide_rows) run(like, FixedLayout<3, 1>());
    if (call.width == 4 && !wide_rows) run(like, FixedLayout<4, 1>());
    if (call.width == 5) run(like, FixedLayout<5, 1>());
    if (call.width == 6) run(like, FixedLayout<6, 1>());
    if (call.width == 7) run(like, FixedLayout<7, 1>());
  });
}

template <class Layout>
unsigned blocks_of(const ConvCall& call, Layout) {
  const int64_t units = call.walk.batch * call.walk.slots() * channel_blocks(call, Layout::kLanes);
  return static_cast<unsigned>((units + kWarps - 1) / kWarps);
}

}  // namespace

const char* conv_forward(const ConvCall& call, void* stream) {
  if (blocks_of(call, FixedLayout<1, 1>()) == 0) return nullptr;
  for_width(call, [&](auto like, auto layout) {
    using Layout = decltype(layout);
    forward_kernel<decltype(like), Layout::kEach, Layout::kLanes>
        <<<blocks_of(call, layout), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

const char* conv_backward(const ConvCall& call, void* stream) {
  if (blocks_of(call, FixedLayout<1, 1>()) == 0) return nullptr;
  for_width(call, [&](auto like, auto layout) {
    using Layout = decltype(layout);
    backward_kernel<decltype(like), Layout::kEach, Layout::kLanes>
        <<<blocks_of(call, layout), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

}  // namespace serpentine::cuda
