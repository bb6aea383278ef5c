// Vector functions and row access of the CPU scan; compiled once for each instruction set.
#include "core/ops/scan_kernel.h"

#if defined(SERPENTINE_CORE_OPS_SCAN_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERPENTINE_CORE_OPS_SCAN_MATH_INL_H_
#undef SERPENTINE_CORE_OPS_SCAN_MATH_INL_H_
#else
#define SERPENTINE_CORE_OPS_SCAN_MATH_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include <type_traits>

#include "core/ops/softplus_table.h"

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::CappedTag<T, kBlock>;

/// Vectors whose steps are worth interleaving; 32 registers hold four with what they need.
inline constexpr int kTogether = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3 ? 2 : 4;

/// The same steps for K vectors, one step of all before the next: each step waits for the one
/// before it, and a core looks too few instructions ahead to find the next vector's by itself.
template <int K, class Step>
HWY_INLINE void each_vector(Step step) {
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) step(k);
}

/// 2^f for |f| <= 1/2: a minimax fit of degree 5, exact at 0.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void power_of_fraction(D d, V (&f)[K]) {
  V p[K];
  each_vector<K>(
      [&](int k) { p[k] = hn::MulAdd(hn::Set(d, 0.0013264727f), f[k], hn::Set(d, 0.009671513f)); });
  for (const float next : {0.055507336f, 0.24022242f, 0.693147f, 1.0f}) {
    const V constant = hn::Set(d, next);
    each_vector<K>([&](int k) { p[k] = hn::MulAdd(p[k], f[k], constant); });
  }
  each_vector<K>([&](int k) { f[k] = p[k]; });
}

/// 2^x, worst relative error 2e-7; exactly 1 at 0, 0 or the least normal number below -126.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void decay(D d, V (&x)[K]) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    each_vector<K>([&](int k) { x[k] = hn::Exp(d, x[k]); });
  } else {
    V f[K];
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // what is left of the nearest whole number and scaling by a power of two are one instruction
    // each; the nearest, not the one below, keeps the digits of slow decays (x a little below 0)
    if constexpr (sizeof(V) == 64) {
      each_vector<K>([&](int k) { f[k] = V{_mm512_reduce_ps(x[k].raw, 0x08)}; });
      each_vector<K>([&](int k) { x[k] = hn::Sub(x[k], f[k]); });
      power_of_fraction(d, f);
      each_vector<K>([&](int k) { x[k] = V{_mm512_scalef_ps(f[k].raw, x[k].raw)}; });
      return;
    }
#endif
    const V magic = hn::Set(d, 0x1.8p23f);  // pushes the fraction out of the significand
    V shifted[K];
    each_vector<K>([&](int k) {
      // x86 returns the second operand of a comparison with NaN, so NaN stays NaN
      x[k] = hn::Min(hn::Set(d, 128.0f), hn::Max(hn::Set(d, -126.0f), x[k]));
      shifted[k] = hn::Add(x[k], magic);
      f[k] = hn::Sub(x[k], hn::Sub(shifted[k], magic));
    });
    power_of_fraction(d, f);
    const hn::RebindToSigned<D> di;
    each_vector<K>([&](int k) {
      const auto power = hn::ShiftLeft<23>(hn::BitCast(di, shifted[k]));
      x[k] = hn::BitCast(d, hn::Add(hn::BitCast(di, f[k]), power));
    });
  }
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V decay(D d, V x) {
  V one[1] = {x};
  decay(d, one);
  return one[0];
}

/// e^x for x <= 0; the error grows with x: |x| 6e-8 of the value, where what rounding loses of the
/// product with log2(e) tells.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void exp_negative(D d, V (&x)[K]) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    each_vector<K>([&](int k) { x[k] = hn::Exp(d, x[k]); });
  } else {
    each_vector<K>([&](int k) { x[k] = hn::Mul(x[k], hn::Set(d, 1.44269504f)); });
    decay(d, x);
  }
}

/// a / b for a finite, not tiny b, to 1.2e-7, in b. The long division instruction takes as long as
/// all of softplus.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void divide(D d, const V (&a)[K], V (&b)[K]) {
  if constexpr (sizeof(hn::TFromD<D>) == 4 && HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86) {
    V r[K];
    each_vector<K>([&](int k) { r[k] = hn::ApproximateReciprocal(b[k]); });  // 14 bits
    each_vector<K>([&](int k) { b[k] = hn::NegMulAdd(b[k], r[k], hn::Set(d, 1.0f)); });
    each_vector<K>([&](int k) { b[k] = hn::MulAdd(r[k], b[k], r[k]); });
    each_vector<K>([&](int k) { b[k] = hn::Mul(a[k], b[k]); });
  } else {
    each_vector<K>([&](int k) { b[k] = hn::Div(a[k], b[k]); });
  }
}

/// log(1 + e) for e in [0, 1], relative error 2e-7: 2 atanh(e / (2 + e)) as a polynomial.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void log1p_unit(D d, V (&e)[K]) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    each_vector<K>([&](int k) { e[k] = hn::Log1p(d, e[k]); });
  } else {
    V s[K], s2[K];
    each_vector<K>([&](int k) { s[k] = hn::Add(e[k], hn::Set(d, 2.0f)); });
    divide(d, e, s);
    each_vector<K>([&](int k) { s2[k] = hn::Mul(s[k], s[k]); });
    each_vector<K>(
        [&](int k) { e[k] = hn::MulAdd(hn::Set(d, 0.28178334f), s2[k], hn::Set(d, 0.279606f)); });
    for (const float next : {0.4002491f, 0.66666317f, 2.0f}) {
      const V constant = hn::Set(d, next);
      each_vector<K>([&](int k) { e[k] = hn::MulAdd(e[k], s2[k], constant); });
    }
    each_vector<K>([&](int k) { e[k] = hn::Mul(e[k], s[k]); });
  }
}

/// softplus, the identity above 20 as published; `slope` receives its derivative.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void softplus(D d, V (&x)[K], V* slope = nullptr) {
  using T = hn::TFromD<D>;
  const V zero = hn::Zero(d), one = hn::Set(d, T{1}), top = hn::Set(d, T{20});
  V e[K];
  each_vector<K>([&](int k) { e[k] = hn::Neg(hn::Abs(x[k])); });
  exp_negative(d, e);
  if (slope != nullptr) {
    V rise[K], all[K];
    each_vector<K>([&](int k) { rise[k] = hn::IfThenElse(hn::Lt(x[k], zero), e[k], one); });
    each_vector<K>([&](int k) { all[k] = hn::Add(one, e[k]); });
    divide(d, rise, all);
    each_vector<K>([&](int k) { slope[k] = hn::IfThenElse(hn::Gt(x[k], top), one, all[k]); });
  }
  log1p_unit(d, e);
  each_vector<K>([&](int k) {
    const V curved = hn::Add(hn::Max(zero, x[k]), e[k]);
    // in single precision the curve rounds to the identity above 20 by itself
    x[k] = sizeof(T) == 4 ? curved : hn::IfThenElse(hn::Gt(x[k], top), x[k], curved);
  });
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V softplus(D d, V x, V* slope = nullptr) {
  V one[1] = {x};
  softplus(d, one, slope);
  return one[0];
}

/// softplus by table, where 32 floats lie in two registers. Values that no piece reaches (NaN, too)
/// and other machines take the way above: what a lane gets does not depend on its neighbours.
template <class D, class V = hn::Vec<D>, int K>
HWY_INLINE void softplus(D d, [[maybe_unused]] const SoftplusTable& table, V (&x)[K]) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if constexpr (std::is_same_v<hn::TFromD<D>, float> && sizeof(V) == 64) {
    const hn::RebindToUnsigned<D> du;
    const V magic = hn::Set(d, 0x1.8p23f);  // leaves the nearest whole number in the low bits
    const auto reach = hn::BitCast(du, hn::Set(d, SoftplusTable::kReach));
    V whole[K], rest[K], p[K];
    auto most = hn::Zero(du);
    each_vector<K>([&](int k) { most = hn::Max(most, hn::BitCast(du, hn::Abs(x[k]))); });
    each_vector<K>([&](int k) { whole[k] = hn::Add(x[k], magic); });
    each_vector<K>([&](int k) { rest[k] = hn::Sub(x[k], hn::Sub(whole[k], magic)); });
    const auto coefficient = [&](int j, int k) {
      const float* at = table.coefficient[j];
      return V{_mm512_permutex2var_ps(hn::Load(d, at).raw, _mm512_castps_si512(whole[k].raw),
                                      hn::Load(d, at + 16).raw)};
    };
    each_vector<K>([&](int k) { p[k] = coefficient(SoftplusTable::kDegree, k); });
#pragma GCC unroll 6
    for (int j = SoftplusTable::kDegree; j-- > 0;) {
      each_vector<K>([&](int k) { p[k] = hn::MulAdd(p[k], rest[k], coefficient(j, k)); });
    }
    if (HWY_UNLIKELY(!hn::AllTrue(du, hn::Lt(most, reach)))) {
      each_vector<K>([&](int k) {
        const auto within = hn::Lt(hn::Abs(x[k]), hn::Set(d, SoftplusTable::kReach));
        p[k] = hn::IfThenElse(within, p[k], softplus(d, x[k]));
      });
    }
    each_vector<K>([&](int k) { x[k] = p[k]; });
    return;
  }
#endif
  softplus(d, x);
}

/// Elements [index, index + lanes) as T.
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const void* base, Element element, int64_t index) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::LoadU(d, static_cast<const double*>(base) + index);
  } else {
    if (HWY_LIKELY(element == Element::kFloat)) {
      return hn::LoadU(d, static_cast<const float*>(base) + index);
    }
    if (element == Element::kBFloat16) {
      const hn::Rebind<uint16_t, D> half;
      const hn::Rebind<uint32_t, D> full;
      const auto bits = hn::LoadU(half, static_cast<const uint16_t*>(base) + index);
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(full, bits)));
    }
    const hn::Rebind<hwy::float16_t, D> half;
    return hn::PromoteTo(d, hn::LoadU(half, static_cast<const hwy::float16_t*>(base) + index));
  }
}

/// Rounds to nearest, ties to even.
template <class D>
HWY_INLINE void store_as(D d, hn::Vec<D> value, void* base, Element element, int64_t index) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    hn::StoreU(value, d, static_cast<double*>(base) + index);
  } else {
    if (HWY_LIKELY(element == Element::kFloat)) {
      hn::StoreU(value, d, static_cast<float*>(base) + index);
    } else if (element == Element::kBFloat16) {
      const hn::Rebind<uint16_t, D> half;
      const hn::Rebind<int32_t, D> whole;
      auto bits = hn::BitCast(whole, value);
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(whole, 1));
      bits = hn::Add(bits, hn::Add(odd, hn::Set(whole, 0x7fff)));
      const auto nan = hn::RebindMask(whole, hn::IsNaN(value));
      bits = hn::IfThenElse(nan, hn::Set(whole, 0x7fc00000), bits);
      const hn::Rebind<uint32_t, D> full;
      const auto top = hn::ShiftRight<16>(hn::BitCast(full, bits));
      hn::StoreU(hn::DemoteTo(half, hn::BitCast(whole, top)), half,
                 static_cast<uint16_t*>(base) + index);
    } else {
      const hn::Rebind<hwy::float16_t, D> half;
      hn::StoreU(hn::DemoteTo(half, value), half, static_cast<hwy::float16_t*>(base) + index);
    }
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERPENTINE_CORE_OPS_SCAN_MATH_INL_H_
