// Treats denormal numbers as zero while it lives: a decayed state would cost a trap each step.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include <cstdint>

namespace serpentine::cpu {

class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : kept_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(kept_) | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(kept_)); }
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(kept_));
    asm volatile("msr fpcr, %0" ::"r"(kept_ | (uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(kept_)); }
#else
  FlushDenormals() = default;
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t kept_ = 0;
};

}  // namespace serpentine::cpu
