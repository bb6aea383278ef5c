#include "pointcloud/point_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pointcloud/point_kernels.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
// at most kPointLanes of them, so that filled arrays hold whole vectors
using PointVector = hn::CappedTag<float, 16>;

HWY_INLINE hn::Vec<PointVector> squares(PointVector d, const PointRows& points, int64_t i,
                                        hn::Vec<PointVector> px, hn::Vec<PointVector> py,
                                        hn::Vec<PointVector> pz) {
  const auto dx = hn::Sub(px, hn::LoadU(d, points.x + i)),
             dy = hn::Sub(py, hn::LoadU(d, points.y + i)),
             dz = hn::Sub(pz, hn::LoadU(d, points.z + i));
  return hn::Add(hn::Add(hn::Mul(dx, dx), hn::Mul(dy, dy)), hn::Mul(dz, dz));
}

float lower_kernel(const PointRows& points, float* distance, int64_t count, const float* point) {
  const PointVector d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto px = hn::Set(d, point[0]), py = hn::Set(d, point[1]), pz = hn::Set(d, point[2]);
  auto best = hn::Set(d, -2.0F);
  for (int64_t i = 0; i < count; i += lanes) {
    const auto to_new = squares(d, points, i, px, py, pz), old = hn::LoadU(d, distance + i);
    // a distance that is no number leaves the old one
    const auto now = hn::IfThenElse(hn::Lt(to_new, old), to_new, old);
    hn::StoreU(now, d, distance + i);
    best = hn::Max(best, now);
  }
  return hn::GetLane(hn::MaxOfLanes(d, best));
}

int64_t find_kernel(const float* distance, int64_t count, float value) {
  const PointVector d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto wanted = hn::Set(d, value);
  for (int64_t i = 0; i < count; i += lanes) {
    const intptr_t at = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, distance + i), wanted));
    if (at >= 0) return i + at;
  }
  return 0;
}

uint64_t within_kernel(const PointRows& points, int64_t count, const float* query, float most,
                       float* distance) {
  const PointVector d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto px = hn::Set(d, query[0]), py = hn::Set(d, query[1]), pz = hn::Set(d, query[2]);
  const auto limit = hn::Set(d, most);
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; i += lanes) {
    const auto to_query = squares(d, points, i, px, py, pz);
    hn::StoreU(to_query, d, distance + i);
    uint8_t part[8] = {};
    hn::StoreMaskBits(d, hn::Le(to_query, limit), part);
    bits |= (static_cast<uint64_t>(part[0]) | static_cast<uint64_t>(part[1]) << 8U) << i;
  }
  return count == 64 ? bits : bits & ((uint64_t{1} << count) - 1);
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::cpu {

HWY_EXPORT(lower_kernel);
HWY_EXPORT(find_kernel);
HWY_EXPORT(within_kernel);

float lower_distances(const PointRows& points, float* distance, int64_t count, const float* point) {
  return HWY_DYNAMIC_DISPATCH(lower_kernel)(points, distance, count, point);
}

int64_t first_equal(const float* distance, int64_t count, float value) {
  return HWY_DYNAMIC_DISPATCH(find_kernel)(distance, count, value);
}

uint64_t distances_within(const PointRows& points, int64_t count, const float* query, float most,
                          float* distance) {
  return HWY_DYNAMIC_DISPATCH(within_kernel)(points, count, query, most, distance);
}

}  // namespace serpentine::cpu
#endif
