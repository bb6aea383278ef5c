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

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::CappedTag<T, kBlock>;

/// 2^f for |f| <= 1/2: a minimax fit of degree 5, exact at 0.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V power_of_fraction(D d, V f) {
  V p = hn::MulAdd(hn::Set(d, 0.0013264727f), f, hn::Set(d, 0.009671513f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.055507336f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022242f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.693147f));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

/// 2^x, worst relative error 2e-7; exactly 1 at 0, 0 or the least normal number below -126.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V decay(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::Exp(d, x);
  } else {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // what is left of the nearest whole number and scaling by a power of two are one instruction
    // each; the nearest, not the one below, keeps the digits of slow decays (x a little below 0)
    if constexpr (sizeof(V) == 64) {
      const V f{_mm512_reduce_ps(x.raw, 0x08)};
      return V{_mm512_scalef_ps(power_of_fraction(d, f).raw, hn::Sub(x, f).raw)};
    }
#endif
    // x86 returns the second operand of a comparison with NaN, so NaN stays NaN
    x = hn::Min(hn::Set(d, 128.0f), hn::Max(hn::Set(d, -126.0f), x));
    const V magic = hn::Set(d, 0x1.8p23f);  // pushes the fraction out of the significand
    const V shifted = hn::Add(x, magic);
    const V f = hn::Sub(x, hn::Sub(shifted, magic));
    const V p = power_of_fraction(d, f);
    const hn::RebindToSigned<D> di;
    return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  }
}

/// e^x for x <= 0; the error grows with x: |x| 6e-8 of the value, where what rounding loses of the
/// product with log2(e) tells.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_negative(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::Exp(d, x);
  } else {
    return decay(d, hn::Mul(x, hn::Set(d, 1.44269504f)));
  }
}

/// a / b for a finite, not tiny b, to 1.2e-7. The long division instruction takes as long as all of
/// softplus.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V divide(D d, V a, V b) {
  if constexpr (sizeof(hn::TFromD<D>) == 4 && HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86) {
    const V r = hn::ApproximateReciprocal(b);  // 14 bits
    return hn::Mul(a, hn::MulAdd(r, hn::NegMulAdd(b, r, hn::Set(d, 1.0f)), r));
  } else {
    return hn::Div(a, b);
  }
}

/// log(1 + e) for e in [0, 1], relative error 2e-7: 2 atanh(e / (2 + e)) as a polynomial.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V log1p_unit(D d, V e) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::Log1p(d, e);
  } else {
    const V s = divide(d, e, hn::Add(e, hn::Set(d, 2.0f)));
    const V s2 = hn::Mul(s, s);
    V p = hn::MulAdd(hn::Set(d, 0.28178334f), s2, hn::Set(d, 0.279606f));
    p = hn::MulAdd(p, s2, hn::Set(d, 0.4002491f));
    p = hn::MulAdd(p, s2, hn::Set(d, 0.66666317f));
    p = hn::MulAdd(p, s2, hn::Set(d, 2.0f));
    return hn::Mul(p, s);
  }
}

/// softplus, the identity above 20 as published; `slope` receives its derivative.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V softplus(D d, V x, V* slope = nullptr) {
  using T = hn::TFromD<D>;
  const V zero = hn::Zero(d), one = hn::Set(d, T{1});
  const V e = exp_negative(d, hn::Neg(hn::Abs(x)));
  const V curved = hn::Add(hn::Max(zero, x), log1p_unit(d, e));
  const auto linear = hn::Gt(x, hn::Set(d, T{20}));
  if (slope != nullptr) {
    const V top = hn::IfThenElse(hn::Lt(x, zero), e, one);
    *slope = hn::IfThenElse(linear, one, divide(d, top, hn::Add(one, e)));
  }
  if constexpr (sizeof(T) == 4) {
    return curved;  // above 20 the curve rounds to the identity by itself
  } else {
    return hn::IfThenElse(linear, x, curved);
  }
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
