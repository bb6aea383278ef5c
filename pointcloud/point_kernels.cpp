#include "pointcloud/point_kernels.h"

#include <algorithm>

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

// how far a coordinate lies outside of a box
HWY_INLINE hn::Vec<PointVector> outside(PointVector d, const float* low, const float* high,
                                        int64_t i, hn::Vec<PointVector> at) {
  const auto below = hn::Sub(hn::LoadU(d, low + i), at),
             above = hn::Sub(at, hn::LoadU(d, high + i));
  return hn::Max(hn::Zero(d), hn::Max(below, above));
}

int64_t reached_kernel(const BoxRows& boxes, const float* most, int64_t count, const float* point,
                       int32_t* reached) {
  constexpr float kBoxSlack = 1 - 1e-5F;  // a distance may be rounded below the box's
  const PointVector d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto px = hn::Set(d, point[0]), py = hn::Set(d, point[1]), pz = hn::Set(d, point[2]);
  const bool is_number = point[0] == point[0] && point[1] == point[1] && point[2] == point[2];
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += lanes) {
    const auto x = outside(d, boxes.low_x, boxes.high_x, i, px),
               y = outside(d, boxes.low_y, boxes.high_y, i, py),
               z = outside(d, boxes.low_z, boxes.high_z, i, pz);
    const auto sum = hn::Add(hn::Add(hn::Mul(x, x), hn::Mul(y, y)), hn::Mul(z, z));
    const auto far = hn::Ge(hn::Mul(sum, hn::Set(d, kBoxSlack)), hn::LoadU(d, most + i));
    uint8_t part[8] = {};
    hn::StoreMaskBits(d, far, part);
    uint64_t bits = static_cast<uint64_t>(part[0]) | static_cast<uint64_t>(part[1]) << 8U;
    bits = (is_number ? ~bits : ~uint64_t{0}) & ((uint64_t{1} << std::min(lanes, count - i)) - 1);
    for (; bits != 0; bits &= bits - 1)
      reached[found++] =
          static_cast<int32_t>(i + static_cast<int64_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(bits)));
  }
  return found;
}

float largest_kernel(const float* values, int64_t count) {
  const PointVector d;
  auto best = hn::LoadU(d, values);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d)))
    best = hn::Max(best, hn::LoadU(d, values + i));
  return hn::GetLane(hn::MaxOfLanes(d, best));
}

using KeyVector = hn::CappedTag<int64_t, 8>;

// each lane of `keys` moved one up; lane 0 holds the last lane of `below`
HWY_INLINE hn::Vec<KeyVector> moved_up(KeyVector d, hn::Vec<KeyVector> below,
                                       hn::Vec<KeyVector> keys) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto from = hn::IfThenElse(hn::FirstN(d, 1), hn::Set(d, lanes - 1), hn::Iota(d, -1));
  const auto turn = hn::IndicesFromVec(d, from);
  return hn::IfThenElse(hn::FirstN(d, 1), hn::TableLookupLanes(below, turn),
                        hn::TableLookupLanes(keys, turn));
}

// of a sorted sequence and a new number: the larger ones move up, the largest one is lost
HWY_INLINE hn::Vec<KeyVector> with_key(hn::Vec<KeyVector> below, hn::Vec<KeyVector> keys,
                                       hn::Vec<KeyVector> key) {
  return hn::Min(keys, hn::Max(below, key));
}

template <bool kByIndex>
HWY_INLINE int64_t key_of(float distance, int32_t index) {
  const int64_t far = kByIndex ? 0 : std::bit_cast<int32_t>(distance);
  return far << 32 | index;
}

// calls use(i) for each point that is not further than `most`
template <class Use>
HWY_INLINE void each_within(const PointRows& points, int64_t count, const float* query, float most,
                            float* distance, const Use& use) {
  uint64_t bits = within_kernel(points, count, query, most, distance);
  for (; bits != 0; bits &= bits - 1) use(hwy::Num0BitsBelowLS1Bit_Nonzero64(bits));
}

/// The keys stay in registers: kVectors of them, 2 or 4.
template <bool kByIndex, int kVectors>
HWY_INLINE void keep_in_registers(const PointRows& points, const int32_t* index, int64_t count,
                                  const float* query, float most, int64_t* keys) {
  const KeyVector d;
  const auto lanes = hn::Lanes(d);
  float distance[64];
  auto k0 = hn::LoadU(d, keys), k1 = hn::LoadU(d, keys + lanes), k2 = k1, k3 = k1;
  if constexpr (kVectors == 4) {
    k2 = hn::LoadU(d, keys + 2 * lanes);
    k3 = hn::LoadU(d, keys + 3 * lanes);
  }
  const auto least = hn::Set(d, -1);
  each_within(points, count, query, most, distance, [&](size_t i) {
    const auto key = hn::Set(d, key_of<kByIndex>(distance[i], index[i]));
    if constexpr (kVectors == 4) {
      k3 = with_key(moved_up(d, k2, k3), k3, key);
      k2 = with_key(moved_up(d, k1, k2), k2, key);
    }
    k1 = with_key(moved_up(d, k0, k1), k1, key);
    k0 = with_key(moved_up(d, least, k0), k0, key);
  });
  hn::StoreU(k0, d, keys);
  hn::StoreU(k1, d, keys + lanes);
  if constexpr (kVectors == 4) {
    hn::StoreU(k2, d, keys + 2 * lanes);
    hn::StoreU(k3, d, keys + 3 * lanes);
  }
}

template <bool kByIndex>
HWY_INLINE void keep_in_memory(const PointRows& points, const int32_t* index, int64_t count,
                               const float* query, float most, int64_t* keys, int64_t width) {
  const KeyVector d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float distance[64];
  each_within(points, count, query, most, distance, [&](size_t i) {
    const int64_t number = key_of<kByIndex>(distance[i], index[i]);
    const auto key = hn::Set(d, number);
    int64_t at = (width - 1) / lanes * lanes;
    for (; at > 0 && keys[at - 1] > number; at -= lanes)
      hn::StoreU(with_key(hn::LoadU(d, keys + at - 1), hn::LoadU(d, keys + at), key), d, keys + at);
    const auto below =
        at > 0 ? hn::LoadU(d, keys + at - 1) : moved_up(d, hn::Set(d, -1), hn::LoadU(d, keys));
    hn::StoreU(with_key(below, hn::LoadU(d, keys + at), key), d, keys + at);
  });
}

template <bool kByIndex>
void keep_kernel(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                 float most, int64_t* keys, int64_t width) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(KeyVector()));
  if (width <= 2 * lanes) {
    keep_in_registers<kByIndex, 2>(points, index, count, query, most, keys);
  } else if (width <= 4 * lanes) {
    keep_in_registers<kByIndex, 4>(points, index, count, query, most, keys);
  } else {
    keep_in_memory<kByIndex>(points, index, count, query, most, keys, width);
  }
}

void nearest_kernel(const PointRows& points, const int32_t* index, int64_t count,
                    const float* query, float most, int64_t* keys, int64_t width) {
  keep_kernel<false>(points, index, count, query, most, keys, width);
}

void lowest_kernel(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                   float most, int64_t* keys, int64_t width) {
  keep_kernel<true>(points, index, count, query, most, keys, width);
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::cpu {

HWY_EXPORT(lower_kernel);
HWY_EXPORT(find_kernel);
HWY_EXPORT(within_kernel);
HWY_EXPORT(reached_kernel);
HWY_EXPORT(largest_kernel);
HWY_EXPORT(nearest_kernel);
HWY_EXPORT(lowest_kernel);

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

int64_t reached_boxes(const BoxRows& boxes, const float* most, int64_t count, const float* point,
                      int32_t* reached) {
  return HWY_DYNAMIC_DISPATCH(reached_kernel)(boxes, most, count, point, reached);
}

float largest(const float* values, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(largest_kernel)(values, count);
}

void keep_nearest(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                  float most, int64_t* keys, int64_t width) {
  HWY_DYNAMIC_DISPATCH(nearest_kernel)(points, index, count, query, most, keys, width);
}

void keep_lowest(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                 float most, int64_t* keys, int64_t width) {
  HWY_DYNAMIC_DISPATCH(lowest_kernel)(points, index, count, query, most, keys, width);
}

}  // namespace serpentine::cpu
#endif
