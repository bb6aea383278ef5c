// Sums of rows over parts, visits and slots on CUDA, each in a fixed order: no atomics.
#include <algorithm>

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kBlock = 256;

/// The branch of the sequence that owns position p.
__device__ int64_t branch_of(const RowSum& sum, int64_t p) {
  int64_t low = 0, high = sum.sequences;  // the last s with offsets[s] <= p
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (sum.offsets[middle] <= p) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return sum.branch[low];
}

constexpr int kColumns = 32, kRows = 8, kVector = 4;
constexpr int kSlotRows = 32;  // threads that share a column's parts: few loads wait for another

/// kWide neighbouring values of a row a thread.
template <class From, class To, int kWide>
__global__ void row_kernel(const RowSum sum) {
  const int64_t i = blockIdx.x * int64_t{kBlock} + threadIdx.x;
  const int64_t width = sum.width / kWide;
  if (i >= sum.batch * sum.tokens * sum.branches * width) return;
  const int64_t x = i % width, k = i / width % sum.branches;
  const int64_t t = i / width / sum.branches % sum.tokens;
  const int64_t b = i / width / sum.branches / sum.tokens;
  const int32_t* visits =
      sum.visits ? sum.visits + b * sum.visits_batch + t * sum.num_visits : nullptr;
  const auto* parts =
      static_cast<const Pack<From, kWide>*>(sum.parts) + b * sum.positions * width + x;
  const int64_t group = sum.batch * sum.positions * width;
  Real<From> total[kWide] = {};
  int found = 0;
  const bool one = sum.branches > 1 && sum.complete;
  for (int64_t v = one ? k : 0; v < (one ? k + 1 : sum.num_visits); ++v) {
    const int64_t p = visits ? visits[v] : t;
    if (p < 0) continue;
    ++found;
    if (sum.branches > 1 && !one && branch_of(sum, p) != k) continue;
#pragma unroll 8
    for (int64_t g = 0; g < sum.groups; ++g) {
      const Pack<From, kWide> term = parts[g * group + p * width];
#pragma unroll
      for (int n = 0; n < kWide; ++n) total[n] += wide(term.value[n]);
    }
  }
  Pack<To, kWide> result;
#pragma unroll
  for (int n = 0; n < kWide; ++n) {
    result.value[n] = narrow<To>(sum.mean && found > 1 ? total[n] / found : total[n]);
  }
  static_cast<Pack<To, kWide>*>(sum.out)[i] = result;
}

/// Wide rows over their visits: a warp a row, four values a lane at once.
template <class T>
__global__ void visit_kernel(const RowSum sum) {
  const int64_t row = blockIdx.x * int64_t{kRows} + threadIdx.y;
  if (row >= sum.batch * sum.tokens) return;
  const int64_t b = row / sum.tokens, t = row % sum.tokens;
  const int32_t* visits = sum.visits + b * sum.visits_batch + t * sum.num_visits;
  const auto* parts = static_cast<const T*>(sum.parts) + b * sum.positions * sum.width;
  auto* out = static_cast<T*>(sum.out) + row * sum.width;
  for (int64_t x = threadIdx.x * kVector; x < sum.width; x += kWarp * kVector) {
    Real<T> total[kVector] = {};
    int found = 0;
#pragma unroll 4
    for (int64_t v = 0; v < sum.num_visits; ++v) {
      const int64_t p = visits[v];
      if (p < 0) continue;
      ++found;
      const auto term = *reinterpret_cast<const Pack<T, kVector>*>(parts + p * sum.width + x);
#pragma unroll
      for (int i = 0; i < kVector; ++i) total[i] += wide(term.value[i]);
    }
    Pack<T, kVector> result;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      result.value[i] = narrow<T>(sum.mean && found > 1 ? total[i] / found : total[i]);
    }
    *reinterpret_cast<Pack<T, kVector>*>(out + x) = result;
  }
}

struct SlotSums {
  SlotSum of[kMostSums];
};

/// A block adds 32 columns; its rows of threads take every kSlotRows-th part, then theirs are
/// added.
template <class R>
__global__ void slot_kernel(const ScanCall call, const SlotSums sums) {
  __shared__ R partial[kSlotRows][kColumns];
  const SlotSum& sum = sums.of[blockIdx.z];
  const int64_t k = blockIdx.y, total_width = sum.rows * sum.width;
  if (blockIdx.x * int64_t{kColumns} >= total_width) return;
  const int64_t x = blockIdx.x * int64_t{kColumns} + threadIdx.x;
  int64_t first = 0, last = 0;  // sequences of branch k
  while (first < call.sequences && call.branch[first] < k) ++first;
  last = first;
  while (last < call.sequences && call.branch[last] == k) ++last;
  int64_t from = first, to = last;  // their slots
  if (call.piece != 0) {
    from = call.offsets[first] / call.piece + first;
    to = last == call.sequences ? call.slots() : call.offsets[last] / call.piece + last;
  }
  const int64_t slots = call.slots(), part = sum.rows * sum.padded,
                count = (to - from) * call.batch;
  R total = 0;
  if (x < total_width) {
    const auto* parts =
        static_cast<const R*>(sum.parts) + x / sum.width * sum.padded + x % sum.width;
#pragma unroll 4
    for (int64_t i = threadIdx.y; i < count; i += kSlotRows) {
      const int64_t b = i / (to - from), slot = from + i % (to - from);
      total += parts[(b * slots + slot) * part];
    }
  }
  partial[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || x >= total_width) return;
#pragma unroll
  for (int row = 1; row < kSlotRows; ++row) total += partial[row][threadIdx.x];
  static_cast<R*>(sum.out)[k * total_width + x] = total;
}

}  // namespace

const char* sum_rows(const RowSum& sum, void* stream) {
  const int64_t count = sum.batch * sum.tokens * sum.branches * sum.width;
  if (count == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (sum.visits && sum.groups == 1 && sum.branches == 1 && sum.width % kVector == 0 &&
      sum.from == sum.to) {
    const auto rows = static_cast<unsigned>((sum.batch * sum.tokens + kRows - 1) / kRows);
    for_element(sum.from, [&](auto like) {
      using T = decltype(like);
      visit_kernel<T><<<rows, dim3(kWarp, kRows), 0, queue>>>(sum);
    });
    return last_error();
  }
  const bool is_wide = sum.width % kVector == 0;
  const int64_t threads = is_wide ? count / kVector : count;
  const auto blocks = static_cast<unsigned>((threads + kBlock - 1) / kBlock);
  for_element(sum.from, [&](auto from) {
    for_element(sum.to, [&](auto to) {
      const auto kernel = is_wide ? row_kernel<decltype(from), decltype(to), kVector>
                                  : row_kernel<decltype(from), decltype(to), 1>;
      kernel<<<blocks, kBlock, 0, queue>>>(sum);
    });
  });
  return last_error();
}

const char* sum_slots(const ScanCall& call, const SlotSum* sums, int count, void* stream) {
  SlotSums all;
  int64_t width = 0;
  for (int i = 0; i < count; ++i) {
    all.of[i] = sums[i];
    width = std::max(width, sums[i].rows * sums[i].width);
  }
  if (width == 0) return nullptr;
  const dim3 grid(static_cast<unsigned>((width + kColumns - 1) / kColumns),
                  static_cast<unsigned>(call.branches), static_cast<unsigned>(count));
  const auto queue = static_cast<cudaStream_t>(stream);
  if (sums[0].type == Element::kDouble) {
    slot_kernel<double><<<grid, dim3(kColumns, kSlotRows), 0, queue>>>(call, all);
  } else {
    slot_kernel<float><<<grid, dim3(kColumns, kSlotRows), 0, queue>>>(call, all);
  }
  return last_error();
}

}  // namespace serpentine::cuda
