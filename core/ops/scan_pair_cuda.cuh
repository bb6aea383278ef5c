// Two neighbouring channels a lane: what the CUDA kernels of the selective scan for nine to 32
// states share. A row of B or C that shared memory delivers serves both, which halves the bytes
// that bind there.
#pragma once

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {

inline constexpr int kPair = 2;

/// Two neighbouring values of a row, as one access moves them.
template <class T>
using Two = Pack<T, kPair>;

/// The pair at `address`, zeros where `row` is negative; see load_if.
template <class T>
__device__ Two<T> load_two(int row, const T* address) {
  Two<T> pair;
  if constexpr (sizeof(T) == 4) {
    asm volatile(
        "{\n .reg .pred p;\n setp.ge.s32 p, %3, 0;\n mov.f32 %0, 0f00000000;\n"
        " mov.f32 %1, 0f00000000;\n @p ld.global.nc.v2.f32 {%0, %1}, [%2];\n}"
        : "=f"(pair.value[0]), "=f"(pair.value[1])
        : "l"(address), "r"(row));
  } else {
    uint32_t word;
    asm volatile(
        "{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n mov.b32 %0, 0;\n"
        " @p ld.global.nc.b32 %0, [%1];\n}"
        : "=r"(word)
        : "l"(address), "r"(row));
    pair = reinterpret_cast<const Two<T>&>(word);
  }
  return pair;
}
template <class T>
__device__ Two<T> load_two(const Column<const T>& column, int row) {
  return load_two(row, column.at(row));
}

/// Writes nothing where `row` is negative.
template <class T>
__device__ void store_two(const Column<T>& column, int row, float first, float second) {
  if constexpr (sizeof(T) == 4) {
    asm volatile(
        "{\n .reg .pred p;\n setp.ge.s32 p, %3, 0;\n @p st.global.v2.f32 [%2], {%0, %1};\n}"
        :
        : "f"(first), "f"(second), "l"(column.at(row)), "r"(row));
  } else {
    const Two<T> pair = {{narrow<T>(first), narrow<T>(second)}};
    asm volatile("{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n @p st.global.b32 [%1], %0;\n}"
                 :
                 : "r"(reinterpret_cast<const uint32_t&>(pair)), "l"(column.at(row)), "r"(row));
  }
}

/// dt and dt u of both channels at a step.
struct alignas(16) StepPair {
  float dt0, dtu0, dt1, dtu1;
};

/// How a warp's pairs and their steps are spread over its lanes, kLanes lanes a pair.
template <int kLanes>
struct PairLayout {
  static constexpr int kEach = 4, kStates = kEach * kLanes;
  static constexpr int kPairs = kWarp / kLanes;              // of a warp
  static constexpr int kChannels = kPair * kWarps * kPairs;  // of a block
  static constexpr int kOwners = kLanes, kOwned = kTile / kOwners;
  // between the steps of a warp's StepPairs: neighbouring steps and pairs meet different banks
  static constexpr int kStride = kPairs + (kLanes == 8 ? 1 : kLanes == 4 ? 2 : 4);
  static __device__ int step(int i, int state) { return i * kOwners + state; }
};

/// Whether every row of the view can be read two values at once.
inline bool in_pairs(const RowsView& view, Element element) {
  const uintptr_t bytes = element == Element::kFloat ? 4 : 2;
  return !view.data ||
         (view.row % kPair == 0 && view.batch % kPair == 0 && view.branch % kPair == 0 &&
          reinterpret_cast<uintptr_t>(view.data) % (kPair * bytes) == 0);
}
/// Whether the rows that both passes read can.
inline bool has_pairs(const ScanCall& call) {
  return call.element != Element::kDouble && call.channels % kPair == 0 &&
         in_pairs(call.u, call.element) && in_pairs(call.delta, call.element);
}
/// Blocks of a launch whose blocks stand for so many channels.
inline int64_t pair_blocks(const ScanCall& call, int64_t channels) {
  return call.batch * call.slots() * ((call.channels + channels - 1) / channels);
}

}  // namespace serpentine::cuda
