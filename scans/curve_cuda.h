// What the CUDA kernels of curves know: plain memory.
#pragma once

#include <cstdint>

namespace serpentine::cuda {

struct CurveCall {
  const int64_t* index = nullptr;   // [cells, dims]: x, y (, z)
  const int64_t* extent = nullptr;  // [dims]
  int64_t* key = nullptr;           // [cells]
  int64_t cells = 0;
  int dims = 0;       // 2 or 3
  int bits = 0;       // of an index in a key
  int64_t depth = 0;  // of a Hilbert curve; 0: as the extents need
};

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* morton_keys(const CurveCall& call, void* stream);
const char* hilbert_keys(const CurveCall& call, void* stream);

}  // namespace serpentine::cuda
