// Joins the pieces of cut sequences: one short walk over the pieces for each channel and state.
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kBlock = 256;

/// Turns the states that pieces make from zero into the states before them, sequence by sequence.
template <class R>
__global__ void chain_kernel(const ScanCall call, int padded) {
  const int64_t width = call.channels * padded;
  const int64_t x = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (x >= width) return;
  const int64_t s = blockIdx.y, b = blockIdx.z, d = x / padded, n = x % padded;
  const bool real = n < call.states;
  const int64_t channel = call.branch[s] * call.channels + d;
  const R A =
      real ? static_cast<const R*>(call.A)[channel * call.states + n] * static_cast<R>(kLog2e)
           : R(0);
  const int64_t start = call.offsets[s], stop = call.offsets[s + 1];
  int64_t slot = b * call.slots() + start / call.piece + s;
  R h = 0;
  if (real && call.initial_state) {
    const int64_t state = (b * call.sequences + s) * call.channels + d;
    h = static_cast<const R*>(call.initial_state)[state * call.states + n];
  }
  auto* states = static_cast<R*>(call.piece_state);
  const auto* steps = static_cast<const R*>(call.piece_step);
  for (int64_t begin = start; begin == start || begin < stop; begin += call.piece, ++slot) {
    const R made = states[slot * width + x];
    states[slot * width + x] = h;
    h = exp2_fast(steps[slot * call.channels + d] * A) * h + made;
  }
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
  const R A =
      real ? static_cast<const R*>(call.A)[channel * call.states + n] * static_cast<R>(kLog2e)
           : R(0);
  const int64_t start = call.offsets[s], length = call.offsets[s + 1] - start;
  const int64_t pieces = length == 0 ? 1 : (length + call.piece - 1) / call.piece;
  const int64_t first = b * call.slots() + start / call.piece + s;
  R g = 0;
  if (real && call.dfinal) {
    g = static_cast<const R*>(
        call.dfinal)[((b * call.sequences + s) * call.channels + d) * call.states + n];
  }
  auto* grads = static_cast<R*>(call.piece_grad);
  const auto* steps = static_cast<const R*>(call.piece_step);
  for (int64_t slot = first + pieces - 1; slot >= first; --slot) {
    const R made = grads[slot * width + x];
    grads[slot * width + x] = g;
    g = exp2_fast(steps[slot * call.channels + d] * A) * g + made;
  }
}

dim3 grid_of(const ScanCall& call) {
  const int64_t width = call.channels * call.layout().padded();
  return dim3(static_cast<unsigned>((width + kBlock - 1) / kBlock),
              static_cast<unsigned>(call.sequences), static_cast<unsigned>(call.batch));
}

}  // namespace

void chain_states(const ScanCall& call, cudaStream_t stream) {
  const int padded = call.layout().padded();
  if (call.element == Element::kDouble) {
    chain_kernel<double><<<grid_of(call), kBlock, 0, stream>>>(call, padded);
  } else {
    chain_kernel<float><<<grid_of(call), kBlock, 0, stream>>>(call, padded);
  }
}

void chain_gradients(const ScanCall& call, cudaStream_t stream) {
  const int padded = call.layout().padded();
  if (call.element == Element::kDouble) {
    chain_back_kernel<double><<<grid_of(call), kBlock, 0, stream>>>(call, padded);
  } else {
    chain_back_kernel<float><<<grid_of(call), kBlock, 0, stream>>>(call, padded);
  }
}

}  // namespace serpentine::cuda
