// Compiles the scan for each instruction set and picks the best one at run time.
#include "core/ops/scan_kernel.h"

// SSSE3 machines without SSE4 are gone; scalable vectors cannot lie in arrays
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/scan_kernel.cpp"
#include <hwy/foreach_target.h>

#include "core/ops/denormals.h"
#include "core/ops/scan_backward-inl.h"
#include "core/ops/scan_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

void forward(const ScanCall& call, bool wide, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  wide ? forward_range<double>(call, begin, end) : forward_range<float>(call, begin, end);
  hwy::FlushStream();  // other threads must find what was written past the caches
}

void backward(const ScanCall& call, bool wide, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  wide ? backward_range<double>(call, begin, end) : backward_range<float>(call, begin, end);
  hwy::FlushStream();
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void scan_forward(const ScanCall& call, bool wide, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(forward)(call, wide, begin, end);
}

void scan_backward(const ScanCall& call, bool wide, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(backward)(call, wide, begin, end);
}

}  // namespace serpentine::cpu
#endif
