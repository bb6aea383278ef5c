// The causal convolution on CUDA: kernels, the lengths of runs, and launches.
#include <algorithm>

#include "core/ops/conv_adjoint_cuda.cuh"

namespace serpentine::cuda {
namespace {

using namespace conv;  // NOLINT(google-build-using-namespace)

/// kAhead positions from `first`; inside: all of them are the piece's.
template <bool kInside, class T, int kWidth, int kSide, class R>
__device__ void forward_rows(const Conv<T, kWidth, kSide>& at, const Column<T>& y, int first,
                             const Pack<T, kSide> (&raw)[kAhead], R (&window)[kWidth][kSide]) {
  const int end = static_cast<int>(at.piece.end);
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
  const int end = static_cast<int>(at.piece.end);
  int first = static_cast<int>(at.piece.begin);
  Pack<T, kSide> raw[kAhead];
  at.load_tokens(raw, first, end);
  at.start(window);
  for (; first + kAhead <= end; first += kAhead) {
    Pack<T, kSide> next[kAhead];  // on its way while these rows are walked
    at.load_tokens(next, first + kAhead, end);
    forward_rows<true>(at, y, first, raw, window);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) raw[i] = next[i];
  }
  if (first < end) forward_rows<false>(at, y, first, raw, window);
  if (call.after && at.piece.last) {
    for (int j = 0; j + 1 < kWidth; ++j) {
      R value[kSide];
      at.sample(at.sequence_end() - (kWidth - 1) + j, value);
#pragma unroll
      for (int c = 0; c < kSide; ++c) static_cast<R*>(call.after)[at.beside(j) + c] = value[c];
    }
  }
}

template <class T, int kWidth, int kSide>
__global__ void __launch_bounds__(kThreads, kSide > 2                     ? 3
                                            : kSide == 1 && sizeof(T) < 8 ? 5
                                                                          : 4)
    backward_kernel(const ConvCall call) {
  using R = Real<T>;
  const Conv<T, kWidth, kSide> at(call);
  if (!at.active) return;
  Adjoint<T, kWidth, kSide> adjoint(at);
  if (at.piece.used) {  // else it may begin behind every row
    if (at.row_of.order) {
      adjoint.template run<Rows::kInside>();
    } else {
      adjoint.template run<Rows::kInOrder>();
    }
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
int64_t blocks_of(const ConvCall& call, Layout) {
  const int64_t units = call.walk.batch * call.walk.slots() * channel_blocks(call, Layout::kLanes);
  return (units + kWarps - 1) / kWarps;
}

/// Runs of positions short enough to fill the device and long enough to spare rows beside them: of
/// their lengths the one whose rounds of blocks read the fewest rows one after the other.
template <class Layout>
int64_t best_run(ConvCall call, Layout layout, int64_t at_once) {
  constexpr int64_t kShortest = 32, kLongest = 1024, kBeside = 12;
  int64_t best = kShortest, least = 0;
  for (int64_t run = kShortest; run <= kLongest; run += kShortest) {
    call.walk.piece = run;
    const int64_t rounds = (blocks_of(call, layout) + at_once - 1) / at_once;
    const int64_t rows = rounds * (run + kBeside);
    if (run == kShortest || rows < least) {
      least = rows;
      best = run;
    }
    if (rounds <= 1) break;  // longer ones leave processors without work
  }
  return best;
}

/// Blocks of a kernel that the device works on at once.
template <class Kernel>
int64_t blocks_at_once(Kernel kernel) {
  int device = 0, processors = 1, each = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, kThreads, 0);
  return std::max(1, each) * int64_t{processors};
}

}  // namespace

int64_t conv_run(const ConvCall& call, bool backward) {
  int64_t run = 32;
  for_width(call, [&](auto like, auto layout) {
    using T = decltype(like);
    using Layout = decltype(layout);
    static const int64_t forth = blocks_at_once(forward_kernel<T, Layout::kEach, Layout::kLanes>);
    static const int64_t back = blocks_at_once(backward_kernel<T, Layout::kEach, Layout::kLanes>);
    run = best_run(call, layout, backward ? back : forth);
  });
  return run;
}

const char* conv_forward(const ConvCall& call, void* stream) {
  if (blocks_of(call, FixedLayout<1, 1>()) == 0) return nullptr;
  for_width(call, [&](auto like, auto layout) {
    using Layout = decltype(layout);
    forward_kernel<decltype(like), Layout::kEach, Layout::kLanes>
        <<<static_cast<unsigned>(blocks_of(call, layout)), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

const char* conv_backward(const ConvCall& call, void* stream) {
  if (blocks_of(call, FixedLayout<1, 1>()) == 0) return nullptr;
  for_width(call, [&](auto like, auto layout) {
    using Layout = decltype(layout);
    backward_kernel<decltype(like), Layout::kEach, Layout::kLanes>
        <<<static_cast<unsigned>(blocks_of(call, layout)), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(call);
  });
  return last_error();
}

}  // namespace serpentine::cuda
