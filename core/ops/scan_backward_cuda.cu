// The backward pass of the selective scan on CUDA: tiles of 16 positions from a piece's end.
//
// The states of a tile are made again from the saved ones and held in shared memory; then the
// gradient of the state walks the tile backwards in registers:
//   g += C dy;  dC = h dy;  dB = g dt u;  d(dt u) = B g;  g *= exp(dt A);
//   d(dt) = u d(dt u) + A g h';  dA += dt g h'   with h' the state before the step
// dB and dC are sums over channels: each thread leaves its terms in shared memory, the block adds
// them in a fixed order and writes one partial row for its channels; no atomics.
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

template <int kLanes>
struct Owned {
  static constexpr int kOwners = kLanes < kTile ? kLanes : kTile;  // lanes that own elements
  static constexpr int kCount = kTile / kOwners;
  static __device__ int step(int i, int state) { return i * kOwners + state; }
};

/// What every lane of a channel needs of an element.
template <class R>
struct __align__(4 * sizeof(R)) Element4 {
  R dt, dtu, dy, unused;
};

/// The block's shared memory. Vectors of kEach states are padded by four every step, so that threads
/// that add up different steps meet different banks.
template <class R, int kEach, int kLanes>
struct Shared {
  static constexpr int kStates = kEach * kLanes, kChannels = kThreads / kLanes;
  static constexpr int kStride = (kThreads + 4) * kEach;
  R states[kTile * kStride];  // after each step; later the terms of dC
  R terms[kTile * kStride];   // of dB
  Element4<R> elements[kTile * kChannels];
  R B[kTile * kStates], C[kTile * kStates];
  int tokens[kTile];
};

template <class T, int kEach, int kLanes>
struct Backward {
  using R = Real<T>;
  using Memory = Shared<R, kEach, kLanes>;
  static constexpr int kStates = Memory::kStates, kStride = Memory::kStride;
  static constexpr int kOwned = Owned<kLanes>::kCount;

  const ScanCall& call;
  Memory& memory;
  const Place<kEach, kLanes> at;
  const Piece piece;
  const int64_t b, k, d;
  const bool active, owner;
  const int first_state;
  R A[kEach], g[kEach], dA[kEach];
  R bias, skip, dD = 0, dbias = 0;
  R value[kOwned], slope[kOwned], step_dt[kOwned], grad[kOwned];  // of the tile's own elements

  __device__ Backward(const ScanCall& of, Memory& shared)
      : call(of), memory(shared), at(of), piece(find_piece(of, at.slot)), b(at.b),
        k(of.branch[piece.sequence]), d(at.channel < of.channels ? at.channel : 0),
        active(at.channel < of.channels), owner(active && at.state < Owned<kLanes>::kOwners),
        first_state(at.state * kEach) {}

  __device__ int64_t slot_channel() const {
    return (b * call.slots() + at.slot) * call.channels + d;
  }
  __device__ int64_t sequence_channel() const {
    return (b * call.sequences + piece.sequence) * call.channels + d;
  }

  __device__ void begin() {
    const int64_t channel = k * call.channels + d;
    load_states(A, static_cast<const R*>(call.A) + channel * call.states, first_state, call.states);
    if (call.piece_grad) {
      load_vector(g, static_cast<const R*>(call.piece_grad) + slot_channel() * kStates + first_state);
    } else {
      const auto* from = static_cast<const R*>(call.dfinal);
      load_states(g, from ? from + sequence_channel() * call.states : from, first_state, call.states);
    }
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      A[n] *= static_cast<R>(kLog2e);
      dA[n] = 0;
    }
    bias = call.delta_bias ? static_cast<const R*>(call.delta_bias)[channel] : R(0);
    skip = call.D ? static_cast<const R*>(call.D)[channel] : R(0);
  }

  /// Tokens, B, C and the elements of the tile at `first` into shared memory and registers.
  template <bool kGradients>
  __device__ void read(int64_t first) {
    const int count = static_cast<int>(min(int64_t{kTile}, piece.end - first));
    __syncthreads();  // the last tile is used up
    if (threadIdx.x < kTile) {
      const int64_t position = first + threadIdx.x;
      const int32_t* order = call.tokens ? call.tokens + b * call.tokens_batch : nullptr;
      memory.tokens[threadIdx.x] =
          position >= piece.end ? kNoToken : order ? order[position] : static_cast<int>(position);
    }
    __syncthreads();
    const Column<const T> B(call.B, b, k, 0), C(call.C, b, k, 0);
    for (int i = threadIdx.x; i < kTile * kStates; i += kThreads) {
      const int step = i / kStates, n = i % kStates, position = static_cast<int>(first) + step;
      const bool real = step < count && n < call.states;
      const T* row = real ? B.at(position, memory.tokens[step]) : nullptr;
      memory.B[i] = row ? wide(row[n]) : R(0);
      row = real && kGradients ? C.at(position, memory.tokens[step]) : nullptr;
      if (kGradients) memory.C[i] = row ? wide(row[n]) : R(0);
    }
    const Column<const T> u(call.u, b, k, d), delta(call.delta, b, k, d);
    T raw_u[kOwned], raw_delta[kOwned];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state), position = static_cast<int>(first) + step;
      raw_u[i] = raw_delta[i] = zero<T>();
      if (!owner || step >= count) continue;
      if (const T* row = u.at(position, memory.tokens[step])) raw_u[i] = *row;
      if (const T* row = delta.at(position, memory.tokens[step])) raw_delta[i] = *row;
    }
    if (kGradients) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        const int step = Owned<kLanes>::step(i, at.state);
        const int row = call.dy.by_token ? memory.tokens[step] : static_cast<int>(first) + step;
        grad[i] = 0;
        if (!owner || step >= count || row < 0) continue;
        const int64_t index = b * call.dy.batch + int64_t{row} * call.dy.row + d;
        grad[i] = call.wide_dy ? static_cast<const R*>(call.dy.data)[index]
                               : R(wide(static_cast<const T*>(call.dy.data)[index]));
      }
    }
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      const R x = wide(raw_delta[i]) + bias;
      value[i] = wide(raw_u[i]);
      slope[i] = call.softplus ? softplus_slope(x) : R(1);
      step_dt[i] = step < count ? (call.softplus ? softplus(x) : x) : R(0);
      if (at.state < Owned<kLanes>::kOwners) {
        memory.elements[step * Memory::kChannels + threadIdx.x / kLanes] = {
            step_dt[i], step_dt[i] * value[i], kGradients ? grad[i] : R(0), R(0)};
      }
    }
    __syncthreads();
  }

  __device__ const Element4<R>& element(int step) const {
    return memory.elements[step * Memory::kChannels + threadIdx.x / kLanes];
  }
  __device__ R* own(R* vectors, int step) const {
    return vectors + step * kStride + threadIdx.x * kEach;
  }

  /// Walks the tile forward from h; leaves the states after each step in shared memory if asked.
  template <bool kKeep>
  __device__ void walk(R (&h)[kEach]) {
#pragma unroll
    for (int step = 0; step < kTile; ++step) {
      const R dt = element(step).dt, dtu = element(step).dtu;
      R row_b[kEach];
      load_vector(row_b, memory.B + step * kStates + first_state);
#pragma unroll
      for (int n = 0; n < kEach; ++n) h[n] = exp2_fast(dt * A[n]) * h[n] + dtu * row_b[n];
      if (kKeep) store_vector(own(memory.states, step), h);
    }
  }

  /// Walks the tile backwards; `before` is the state before it and h the one behind it.
  __device__ void walk_back(const R (&before)[kEach], R (&h)[kEach], int64_t first) {
    const int count = static_cast<int>(min(int64_t{kTile}, piece.end - first));
#pragma unroll
    for (int half = kTile - 8; half >= 0; half -= 8) {
      R through_b[8], through_a[8];
#pragma unroll
      for (int i = 7; i >= 0; --i) {
        const int step = half + i;
        const Element4<R> now = element(step);
        R row_b[kEach], row_c[kEach], term_b[kEach], term_c[kEach], last[kEach];
        load_vector(row_b, memory.B + step * kStates + first_state);
        load_vector(row_c, memory.C + step * kStates + first_state);
        if (step > 0) load_vector(last, own(memory.states, step > 0 ? step - 1 : 0));
        R sum_b = 0, sum_a = 0;
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          if (step == 0) last[n] = before[n];
          g[n] += now.dy * row_c[n];
          term_c[n] = now.dy * h[n];
          term_b[n] = g[n] * now.dtu;
          sum_b += g[n] * row_b[n];
          g[n] *= exp2_fast(now.dt * A[n]);
          const R flow = g[n] * last[n];
          sum_a += flow * A[n];
          dA[n] += flow * now.dt;
          h[n] = last[n];
        }
        store_vector(own(memory.states, step), term_c);
        store_vector(own(memory.terms, step), term_b);
        through_b[i] = sum_b;
        through_a[i] = sum_a;
      }
      sum_over_lanes<kLanes>(through_b, at.state);
      sum_over_lanes<kLanes>(through_a, at.state);
      finish(half, first, count, through_b, through_a);
    }
  }

  /// Gradients of u and delta of the elements of eight steps, from the sums over states. The sums of
  /// step half + q * owners8 + s lie in lane s of the first eight.
  __device__ void finish(int half, int64_t first, int count, const R (&through_b)[8],
                         const R (&through_a)[8]) {
    constexpr int kSummed = kLanes < 8 ? kLanes : 8;
#pragma unroll
    for (int q = 0; q < 8 / kSummed; ++q) {
      const int step = half + q * kSummed + at.state % kSummed;
      // with 16 or more lanes a channel, lane s owns step s and the sums lie in lane s % 8
      const int i = kLanes >= kTile ? 0 : half / kSummed + q;
      const bool mine = owner && step < count && Owned<kLanes>::step(i, at.state) == step;
      if (!mine) continue;
      const R du = step_dt[i] * through_b[q] + skip * grad[i];
      const R ddt = value[i] * through_b[q] + through_a[q] * static_cast<R>(kLn2);
      const R ddelta = ddt * slope[i];
      dD += grad[i] * value[i];
      dbias += ddelta;
      const int position = static_cast<int>(first) + step, token = memory.tokens[step];
      const int row_u = call.du.by_token ? token : position;
      const int row_delta = call.ddelta.by_token ? token : position;
      if (row_u >= 0) {
        store<T>(call.du.data, call.wide_du,
                 b * call.du.batch + k * call.du.branch + int64_t{row_u} * call.du.row + d, du);
      }
      if (row_delta >= 0) {
        store<T>(call.ddelta.data, call.wide_ddelta,
                 b * call.ddelta.batch + k * call.ddelta.branch + int64_t{row_delta} * call.ddelta.row + d,
                 ddelta);
      }
    }
  }

  /// Adds the terms of dB and dC over the block's channels and writes them.
  __device__ void sum_terms(int64_t first) {
    const int count = static_cast<int>(min(int64_t{kTile}, piece.end - first));
    __syncthreads();
    constexpr int kGroups = 2 * kTile * kLanes;  // (dB or dC, step, state lane)
    constexpr int kParts = kGroups >= kThreads ? 1 : kThreads / kGroups;
    constexpr int kMembers = kThreads / kLanes / kParts;
    for (int i = threadIdx.x; i < kGroups * kParts; i += kThreads) {
      const int part = i % kParts, lane = i / kParts % kLanes, step = i / kParts / kLanes % kTile;
      const bool of_c = i / kParts / kLanes / kTile != 0;
      const R* from = (of_c ? memory.states : memory.terms) + step * kStride;
      R sum[kEach] = {};
#pragma unroll 8
      for (int j = 0; j < kMembers; ++j) {
        R term[kEach];
        load_vector(term, from + ((j * kParts + part) * kLanes + lane) * kEach);
#pragma unroll
        for (int n = 0; n < kEach; ++n) sum[n] += term[n];
      }
#pragma unroll
      for (int m = 1; m < kParts; m *= 2) {
#pragma unroll
        for (int n = 0; n < kEach; ++n) sum[n] += __shfl_xor_sync(kAllLanes, sum[n], m);
      }
      if (part != 0 || step >= count) continue;
      R* to = static_cast<R*>(of_c ? call.dC : call.dB) +
              ((at.block * call.batch + b) * call.positions + first + step) * call.states;
      store_states(to, sum, lane * kEach, call.states);
    }
  }

  /// Chunk by chunk from the end. A chunk of several tiles is walked once to find where each begins.
  __device__ void run() {
    begin();
    const int64_t chunks = (piece.end - piece.begin + call.chunk - 1) / call.chunk;
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t first = piece.begin + chunk * call.chunk;
      const int64_t end = min(first + call.chunk, piece.end);
      R start[kEach];
      load_vector(start, static_cast<const R*>(call.saved) +
                             ((b * call.saved_slots() + piece.first_chunk + chunk) * call.channels + d) *
                                 kStates + first_state);
      for (int64_t tile = (end - first - 1) / kTile; tile >= 0; --tile) {
        R h[kEach], before[kEach];
#pragma unroll
        for (int n = 0; n < kEach; ++n) h[n] = start[n];
        for (int64_t skipped = 0; skipped < tile; ++skipped) {
          read<false>(first + skipped * kTile);
          walk<false>(h);
        }
        const int64_t here = first + tile * kTile;
        read<true>(here);
#pragma unroll
        for (int n = 0; n < kEach; ++n) before[n] = h[n];
        walk<true>(h);
        walk_back(before, h, here);
        sum_terms(here);
      }
    }
    finish_piece();
  }

  __device__ void finish_piece() {
#pragma unroll
    for (int m = 1; m < kLanes; m *= 2) {
      dD += __shfl_xor_sync(kAllLanes, dD, m);
      dbias += __shfl_xor_sync(kAllLanes, dbias, m);
    }
    if (!active) return;
    store_vector(static_cast<R*>(call.dA) + slot_channel() * kStates + first_state, dA);
    if (at.state == 0) {
      if (call.dD) static_cast<R*>(call.dD)[slot_channel()] = dD;
      if (call.dbias) static_cast<R*>(call.dbias)[slot_channel()] = dbias;
    }
    if (call.dinitial && piece.first) {
      store_states(static_cast<R*>(call.dinitial) + sequence_channel() * call.states, g, first_state,
                   call.states);
    }
  }

  /// A slot without a piece adds nothing to the sums.
  __device__ void clear() {
    if (!active) return;
    const R none[kEach] = {};
    store_vector(static_cast<R*>(call.dA) + slot_channel() * kStates + first_state, none);
    if (at.state != 0) return;
    if (call.dD) static_cast<R*>(call.dD)[slot_channel()] = 0;
    if (call.dbias) static_cast<R*>(call.dbias)[slot_channel()] = 0;
  }

  /// The gradient of the state before the piece, made from none behind it: g alone.
  __device__ void summarize() {
    const int64_t channel = k * call.channels + d;
    load_states(A, static_cast<const R*>(call.A) + channel * call.states, first_state, call.states);
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      A[n] *= static_cast<R>(kLog2e);
      g[n] = 0;
    }
    bias = call.delta_bias ? static_cast<const R*>(call.delta_bias)[channel] : R(0);
    for (int64_t tile = (piece.end - piece.begin - 1) / kTile; tile >= 0; --tile) {
      read<true>(piece.begin + tile * kTile);
#pragma unroll
      for (int step = kTile - 1; step >= 0; --step) {
        const Element4<R> now = element(step);
        R row_c[kEach];
        load_vector(row_c, memory.C + step * kStates + first_state);
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          g[n] = (g[n] + now.dy * row_c[n]) * exp2_fast(now.dt * A[n]);
        }
      }
    }
    if (active) {
      store_vector(static_cast<R*>(call.piece_grad) + slot_channel() * kStates + first_state, g);
    }
  }
};

template <class T, int kEach, int kLanes>
__global__ void __launch_bounds__(kThreads) backward_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<Real<T>, kEach, kLanes>*>(memory));
  if (work.piece.used) {
    work.run();
  } else {
    work.clear();
  }
}

template <class T, int kEach, int kLanes>
__global__ void __launch_bounds__(kThreads) summary_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<Real<T>, kEach, kLanes>*>(memory));
  if (work.piece.used) work.summarize();
}

/// Turns each piece's own gradient into the one that enters it from behind.
template <class R>
__global__ void chain_back_kernel(const ScanCall call, int padded) {
  const int64_t width = call.channels * padded;
  const int64_t x = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (x >= width) return;
  const int64_t s = blockIdx.y, b = blockIdx.z, d = x / padded, n = x % padded;
  const bool real = n < call.states;
  const int64_t channel = call.branch[s] * call.channels + d;
  const R A = real ? static_cast<const R*>(call.A)[channel * call.states + n] * static_cast<R>(kLog2e)
                   : R(0);
  const int64_t start = call.offsets[s], length = call.offsets[s + 1] - start;
  const int64_t pieces = length == 0 ? 1 : (length + call.piece - 1) / call.piece;
  const int64_t first = b * call.slots() + start / call.piece + s;
  R g = 0;
  if (real && call.dfinal) {
    g = static_cast<const R*>(call.dfinal)[((b * call.sequences + s) * call.channels + d) * call.states + n];
  }
  auto* grads = static_cast<R*>(call.piece_grad);
  const auto* steps = static_cast<const R*>(call.piece_step);
  for (int64_t slot = first + pieces - 1; slot >= first; --slot) {
    const R made = grads[slot * width + x];
    grads[slot * width + x] = g;
    g = exp2_fast(steps[slot * call.channels + d] * A) * g + made;
  }
}

template <class T, int kEach, int kLanes>
void run(const ScanCall& call, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<Real<T>, kEach, kLanes>);
  const auto blocks = static_cast<unsigned>(block_count(call));
  const auto launch = [&](auto kernel) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    kernel<<<blocks, kThreads, kBytes, stream>>>(call);
  };
  if (call.piece != 0) {
    launch(summary_kernel<T, kEach, kLanes>);
    const int64_t width = call.channels * kEach * kLanes;
    const dim3 grid(static_cast<unsigned>((width + 255) / 256),
                    static_cast<unsigned>(call.sequences), static_cast<unsigned>(call.batch));
    chain_back_kernel<Real<T>><<<grid, 256, 0, stream>>>(call, kEach * kLanes);
  }
  launch(backward_kernel<T, kEach, kLanes>);
}

}  // namespace

const char* scan_backward(const ScanCall& call, void* stream) {
  if (block_count(call) == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    for_layout(call.layout(), [&](auto layout) {
      using L = decltype(layout);
      run<T, L::kEach, L::kLanes>(call, queue);
    });
  });
  return last_error();
}

}  // namespace serpentine::cuda
