#include "pointcloud/spread_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pointcloud/spread_kernels.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using SpreadVector = hn::CappedTag<double, kSpreads>;
using SpreadValues = hn::Vec<SpreadVector>;
using SpreadMask = hn::Mask<SpreadVector>;

constexpr int kSweeps = 12;  // of rotations, which settle after some five

/// One rotation of rows and columns p and q in those matrices that are `active`; r is the third
/// row, vp and vq are the columns of the eigenvectors.
HWY_INLINE void rotate(SpreadVector d, SpreadMask active, SpreadValues& pp, SpreadValues& qq,
                       SpreadValues& pq, SpreadValues& rp, SpreadValues& rq, SpreadValues& xp,
                       SpreadValues& xq, SpreadValues& yp, SpreadValues& yq, SpreadValues& zp,
                       SpreadValues& zq) {
  const auto none = hn::Zero(d), one = hn::Set(d, 1.0);
  const auto turns = hn::And(active, hn::Ne(pq, none));
  const auto theta = hn::Div(hn::Sub(qq, pp), hn::Add(pq, pq));
  const auto root = hn::Sqrt(hn::Add(hn::Mul(theta, theta), one));
  const auto size = hn::Div(one, hn::Add(hn::Abs(theta), root));
  const auto tangent = hn::IfThenElse(hn::Lt(theta, none), hn::Neg(size), size);
  const auto t = hn::IfThenElseZero(turns, tangent);
  const auto c = hn::Div(one, hn::Sqrt(hn::Add(hn::Mul(t, t), one))), s = hn::Mul(t, c);
  pp = hn::Sub(pp, hn::Mul(t, pq));
  qq = hn::Add(qq, hn::Mul(t, pq));
  pq = hn::IfThenElse(turns, none, pq);
  const auto turn = [&](SpreadValues& p, SpreadValues& q) {
    const auto old = p;
    p = hn::Sub(hn::Mul(c, p), hn::Mul(s, q));
    q = hn::Add(hn::Mul(s, old), hn::Mul(c, q));
  };
  turn(rp, rq);
  turn(xp, xq);
  turn(yp, yq);
  turn(zp, zq);
}

void spread_kernel(const Spreads& spreads, LeastVariances& out) {
  const SpreadVector d;
  const auto none = hn::Zero(d), one = hn::Set(d, 1.0);
  for (size_t i = 0; i < kSpreads; i += hn::Lanes(d)) {
    const auto part = [&](size_t n) { return hn::LoadU(d, spreads.part[n].data() + i); };
    auto xx = part(0), yy = part(1), zz = part(2), xy = part(3), xz = part(4), yz = part(5);
    const auto total = hn::Add(hn::Add(xx, yy), zz);
    auto v00 = one, v01 = none, v02 = none, v10 = none, v11 = one, v12 = none, v20 = none,
         v21 = none, v22 = one;
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      const auto off = hn::Add(hn::Add(hn::Abs(xy), hn::Abs(xz)), hn::Abs(yz));
      const auto active = hn::Gt(off, hn::Mul(hn::Set(d, 1e-15), total));
      if (hn::AllFalse(d, active)) break;
      rotate(d, active, xx, yy, xy, xz, yz, v00, v01, v10, v11, v20, v21);
      rotate(d, active, xx, zz, xz, xy, yz, v00, v02, v10, v12, v20, v22);
      rotate(d, active, yy, zz, yz, xy, xz, v01, v02, v11, v12, v21, v22);
    }
    // the least of the three, the first one where some are equal
    const auto second = hn::Lt(yy, xx);
    auto least = hn::IfThenElse(second, yy, xx);
    const auto third = hn::Lt(zz, least);
    least = hn::IfThenElse(third, zz, least);
    const auto chosen = [&](SpreadValues a, SpreadValues b, SpreadValues c) {
      return hn::IfThenElse(third, c, hn::IfThenElse(second, b, a));
    };
    auto x = chosen(v00, v01, v02), y = chosen(v10, v11, v12), z = chosen(v20, v21, v22);
    auto largest = hn::IfThenElse(hn::Gt(hn::Abs(y), hn::Abs(x)), y, x);
    largest = hn::IfThenElse(hn::Gt(hn::Abs(z), hn::Abs(largest)), z, largest);
    const auto turned = [&](SpreadValues value) {
      return hn::IfThenElse(hn::Lt(largest, none), hn::Neg(value), value);
    };
    hn::StoreU(turned(x), d, out.direction[0].data() + i);
    hn::StoreU(turned(y), d, out.direction[1].data() + i);
    hn::StoreU(turned(z), d, out.direction[2].data() + i);
    const auto share = hn::Div(hn::Max(least, none), total);
    hn::StoreU(hn::IfThenElseZero(hn::Gt(total, none), share), d, out.share.data() + i);
  }
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::cpu {

HWY_EXPORT(spread_kernel);

LeastVariances least_variances(const Spreads& spreads) {
  LeastVariances out;
  HWY_DYNAMIC_DISPATCH(spread_kernel)(spreads, out);
  return out;
}

}  // namespace serpentine::cpu
#endif
