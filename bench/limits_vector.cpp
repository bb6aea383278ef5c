#include "bench/limits_vector.h"

#include <stdexcept>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/limits_vector.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace serpentine::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using Tag = hn::ScalableTag<float>;
using Vector = hn::Vec<Tag>;

// Chains side by side, so that latency hides behind throughput.
constexpr int kChains = 4;

// exp2(x y), error 2e-6: adding 1.5 * 2^23 rounds the product and leaves the integer in the low
// bits, a polynomial of degree 5 does the rest. Ten instructions; products below -126 are not
// clamped.
HWY_INLINE Vector exp2_of_product(Vector x, Vector y) {
  const Tag tag;
  const hn::RebindToSigned<Tag> integers;
  const Vector magic = hn::Set(tag, 12582912.0f);
  const Vector shifted = hn::MulAdd(x, y, magic);
  const Vector rest = hn::MulSub(x, y, hn::Sub(shifted, magic));
  Vector p = hn::Set(tag, 1.3333558e-3f);
  p = hn::MulAdd(p, rest, hn::Set(tag, 9.6181291e-3f));
  p = hn::MulAdd(p, rest, hn::Set(tag, 5.5504109e-2f));
  p = hn::MulAdd(p, rest, hn::Set(tag, 2.4022651e-1f));
  p = hn::MulAdd(p, rest, hn::Set(tag, 6.9314718e-1f));
  p = hn::MulAdd(p, rest, hn::Set(tag, 1.0f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(integers, shifted));
  return hn::BitCast(tag, hn::Add(hn::BitCast(integers, p), power));
}

struct Chain {
  Vector A, h, y, g, dA;
};

// Sums over states or channels: one register each, whatever the number of chains.
struct Sums {
  Vector du, ddelta, dB, dC;
};

// dt, B and C arrive from registers: loads and what is done once an element are left out.
template <Loop kLoop>
HWY_INLINE void step(Chain& c, Sums& sums, Vector dt, Vector B, Vector C) {
  const Vector a = exp2_of_product(dt, c.A);
  if constexpr (kLoop == Loop::kExp2) {
    c.h = hn::Add(c.h, a);
    return;
  }
  c.h = hn::MulAdd(a, c.h, hn::Mul(dt, B));
  c.y = hn::MulAdd(C, c.h, c.y);
  if constexpr (kLoop == Loop::kBackward) {
    // the adjoint runs later, from the end, so its decay is computed again rather than stored
    const Vector decay = exp2_of_product(B, c.A);
    c.g = hn::MulAdd(decay, c.g, hn::Mul(dt, C));
    sums.dC = hn::MulAdd(dt, c.h, sums.dC);
    sums.dB = hn::MulAdd(dt, c.g, sums.dB);
    sums.du = hn::MulAdd(B, c.g, sums.du);
    const Vector product = hn::Mul(hn::Mul(decay, c.h), c.g);
    sums.ddelta = hn::MulAdd(c.A, product, sums.ddelta);
    c.dA = hn::MulAdd(dt, product, c.dA);
  }
}

template <Loop kLoop>
HWY_NOINLINE int64_t loop(int64_t count, const float* values) {
  const Tag tag;
  const Vector zero = hn::Zero(tag);
  Chain chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = {hn::Set(tag, values[i]), zero, zero, zero, zero};
  Sums sums = {zero, zero, zero, zero};
  for (int64_t i = 0; i < count; i += kChains) {
    const float* now = values + (i & 63);
    const Vector dt = hn::Set(tag, now[4]), B = hn::Set(tag, now[5]), C = hn::Set(tag, now[6]);
    for (Chain& c : chains) step<kLoop>(c, sums, dt, B, C);
  }
  Vector sum = hn::Add(hn::Add(sums.du, sums.ddelta), hn::Add(sums.dB, sums.dC));
  for (const Chain& c : chains) sum = hn::Add(sum, hn::Add(hn::Add(c.h, c.y), hn::Add(c.g, c.dA)));
  volatile float sink = hn::GetLane(sum);
  (void)sink;
  return count * static_cast<int64_t>(hn::Lanes(tag));
}

int64_t run(Loop which, int64_t count, const float* values) {
  switch (which) {
    case Loop::kExp2:
      return loop<Loop::kExp2>(count, values);
    case Loop::kForward:
      return loop<Loop::kForward>(count, values);
    case Loop::kBackward:
      return loop<Loop::kBackward>(count, values);
  }
  return 0;
}

}  // namespace serpentine::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::bench {

HWY_EXPORT(run);

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    names.emplace_back(hwy::TargetName(target));
  }
  return names;
}

int64_t run_loop(const std::string& instruction_set, Loop which, int64_t count) {
  std::vector<float> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = -0.01f * static_cast<float>(1 + i % 7);
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (hwy::TargetName(target) != instruction_set) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    const int64_t lanes = HWY_DYNAMIC_DISPATCH(run)(which, count, values.data());
    hwy::SetSupportedTargetsForTest(0);
    return lanes;
  }
  throw std::runtime_error("limits: this machine has no " + instruction_set);
}

}  // namespace serpentine::bench
#endif
