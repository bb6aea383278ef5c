#include "core/ops/exp_rate.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include <ATen/Parallel.h>

#include "core/ops/parallel.h"

// the targets of scan_kernel.cpp
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/exp_rate.cpp"
#include <hwy/foreach_target.h>

#include "core/ops/scan_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

/// `rounds` times eight vectors of exponentials, each chain the argument of its next one; returns
/// their number.
int64_t exponentials(int64_t rounds, float* sink) {
  const Lanes<float> d;
  constexpr int kChains = 8;
  hn::Vec<Lanes<float>> x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = hn::Set(d, -0.1f * static_cast<float>(i + 1));
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& value : x) value = hn::Neg(decay(d, value));  // settles at -0.64
  }
  for (int i = 1; i < kChains; ++i) x[0] = hn::Add(x[0], x[i]);
  hn::StoreU(x[0], d, sink);
  return rounds * kChains * static_cast<int64_t>(hn::Lanes(d));
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine {
namespace cpu {

HWY_EXPORT(exponentials);

namespace {

double rate() {
  constexpr int64_t kRounds = 400'000;
  constexpr int kTries = 5;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const int64_t threads = at::get_num_threads();
    std::vector<int64_t> counts(static_cast<size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        float sink[64];
        counts[static_cast<size_t>(t)] = HWY_DYNAMIC_DISPATCH(exponentials)(kRounds, sink);
        volatile float kept = sink[0];
        (void)kept;
      }
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    int64_t all = 0;
    for (const int64_t count : counts) all += count;
    best = std::max(best, static_cast<double>(all) / seconds.count());
  }
  return best;
}

}  // namespace
}  // namespace cpu

double exp_rate(c10::Device device) {
  return device.is_cuda() ? cuda::exp_rate(device) : cpu::rate();
}

}  // namespace serpentine
#endif
