// Rows in device memory as the CUDA kernels read and write them: by predicated accesses, and by
// copies that go to shared memory past the registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

/// The type in which rows of T are computed and states are held.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using Real = typename RealOf<T>::type;

__device__ inline float wide(float x) { return x; }
__device__ inline double wide(double x) { return x; }
__device__ inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float wide(__half x) { return __half2float(x); }

template <class T, class R>
__device__ T narrow(R x) {
  if constexpr (sizeof(T) == 2 && alignof(T) == 2) {
    return T(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

/// A row that is none, behind the end of a piece or a pad: reads zeros, writes nothing.
inline constexpr int kNoRow = -1;

/// One thread's column of one sample's rows. Addresses are 64 bits wide from the multiplication on.
template <class T>
struct Column {
  uint64_t base;
  uint32_t stride;  // bytes
  __device__ Column(const RowsView& view, int64_t b, int64_t k, int64_t column)
      : base(reinterpret_cast<uint64_t>(static_cast<T*>(view.data) + b * view.batch +
                                        k * view.branch + column)),
        stride(static_cast<uint32_t>(view.row) * uint32_t{sizeof(T)}) {
    // one sum in registers: the compiler would take it apart and add its terms at every row
    asm("" : "+l"(base));
  }
  __device__ T* at(int row) const {
    return reinterpret_cast<T*>(base + uint64_t{static_cast<uint32_t>(row)} * stride);
  }
};

/// The value at `address`, zero where `row` is negative: a predicated load, so that no branch ends
/// the compiler's view and many loads are in flight.
__device__ inline float load_if(int row, const float* address) {
  float value;
  asm volatile(
      "{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n mov.f32 %0, 0f00000000;\n"
      " @p ld.global.nc.f32 %0, [%1];\n}"
      : "=f"(value)
      : "l"(address), "r"(row));
  return value;
}
__device__ inline double load_if(int row, const double* address) {
  double value;
  asm volatile(
      "{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n mov.f64 %0, 0d0000000000000000;\n"
      " @p ld.global.nc.f64 %0, [%1];\n}"
      : "=d"(value)
      : "l"(address), "r"(row));
  return value;
}
__device__ inline uint16_t load_if(int row, const uint16_t* address) {
  uint16_t value;
  asm volatile(
      "{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n mov.u16 %0, 0;\n"
      " @p ld.global.nc.u16 %0, [%1];\n}"
      : "=h"(value)
      : "l"(address), "r"(row));
  return value;
}
__device__ inline __nv_bfloat16 load_if(int row, const __nv_bfloat16* address) {
  return __ushort_as_bfloat16(load_if(row, reinterpret_cast<const uint16_t*>(address)));
}
__device__ inline __half load_if(int row, const __half* address) {
  return __ushort_as_half(load_if(row, reinterpret_cast<const uint16_t*>(address)));
}

/// Writes nothing where `row` is negative.
__device__ inline void store_if(int row, float* address, float value) {
  asm volatile("{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n @p st.global.f32 [%1], %0;\n}"
               :
               : "f"(value), "l"(address), "r"(row));
}
__device__ inline void store_if(int row, double* address, double value) {
  asm volatile("{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n @p st.global.f64 [%1], %0;\n}"
               :
               : "d"(value), "l"(address), "r"(row));
}
__device__ inline void store_if(int row, uint16_t* address, uint16_t value) {
  asm volatile("{\n .reg .pred p;\n setp.ge.s32 p, %2, 0;\n @p st.global.u16 [%1], %0;\n}"
               :
               : "h"(value), "l"(address), "r"(row));
}
__device__ inline void store_if(int row, __nv_bfloat16* address, __nv_bfloat16 value) {
  store_if(row, reinterpret_cast<uint16_t*>(address), __bfloat16_as_ushort(value));
}
__device__ inline void store_if(int row, __half* address, __half value) {
  store_if(row, reinterpret_cast<uint16_t*>(address), __half_as_ushort(value));
}

/// The value of a row, zero for a negative one.
template <class T>
__device__ T load(const Column<const T>& column, int row) {
  return load_if(row, column.at(row));
}
/// The element `behind` columns further.
template <class T>
__device__ T load(const Column<const T>& column, int row, int behind) {
  return load_if(row, column.at(row) + behind);
}
template <class T, class R>
__device__ void store(const Column<T>& column, int row, R value) {
  store_if(row, column.at(row), narrow<T>(value));
}

/// What is copied to shared memory for an element of T: 16-bit ones come with their neighbour, as
/// copies have four bytes at least.
template <class T>
struct WordOf {
  using type = T;
};
template <>
struct WordOf<__nv_bfloat16> {
  using type = uint32_t;
};
template <>
struct WordOf<__half> {
  using type = uint32_t;
};
template <class T>
using Word = typename WordOf<T>::type;

/// Starts the copy of an element to shared memory, past the registers; zeros for a negative row.
template <class T>
__device__ void copy_row(Word<T>* to, const Column<const T>& column, int row, int behind = 0) {
  const uint64_t address = reinterpret_cast<uint64_t>(column.at(row < 0 ? 0 : row) + behind);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(address & ~uint64_t{sizeof(Word<T>) - 1}), "n"(sizeof(Word<T>)),
                 "r"(row < 0 ? 0 : static_cast<int>(sizeof(Word<T>))));
}
/// This thread's own copies have arrived.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
/// The element in a copied word.
template <class T>
__device__ T copied(const Word<T>& word, const Column<const T>& column, int row, int behind = 0) {
  if constexpr (sizeof(Word<T>) == sizeof(T)) {
    return word;
  } else {
    const uint32_t at = static_cast<uint32_t>(column.base) +
                        static_cast<uint32_t>(row) * column.stride + behind * uint32_t{sizeof(T)};
    const auto half = static_cast<uint16_t>((at & 2) != 0 ? word >> 16 : word);
    return reinterpret_cast<const T&>(half);
  }
}

}  // namespace serpentine::cuda
