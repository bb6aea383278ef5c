// The inner loops over points, for every instruction set that the program may meet.
//
// Squared distances are (dx^2 + dy^2) + dz^2 in float32, rounded at each step, on every machine.
#pragma once

#include <bit>
#include <cstdint>

namespace serpentine::cpu {

inline constexpr int64_t kPointLanes = 16;  // arrays of points are filled up to a multiple of it

/// Points axis by axis.
struct PointRows {
  const float *x, *y, *z;
};

/// distance[i] = min(distance[i], that of point i from `point`); returns the largest. count: a
/// multiple of kPointLanes.
float lower_distances(const PointRows& points, float* distance, int64_t count, const float* point);

/// The first i with distance[i] == value, which must be there. count: a multiple of kPointLanes.
int64_t first_equal(const float* distance, int64_t count, float value);

/// Fills distance[i] for the first `count` points (at most 64; the arrays hold a multiple of
/// kPointLanes) and returns a bit for each that is not above `most`.
uint64_t distances_within(const PointRows& points, int64_t count, const float* query, float most,
                          float* distance);

/// Boxes along the axes: the least and the largest x, y, z of each. Arrays hold a multiple of
/// kPointLanes.
struct BoxRows {
  const float *low_x, *low_y, *low_z, *high_x, *high_y, *high_z;
};

/// Writes the numbers of those of `count` boxes in which `point` may have a squared distance below
/// most[box] (a point that is no number may have it in all), ascending; returns how many they are.
int64_t reached_boxes(const BoxRows& boxes, const float* most, int64_t count, const float* point,
                      int32_t* reached);

/// The largest of values; count: a multiple of kPointLanes.
float largest(const float* values, int64_t count);

// What a search keeps: numbers in ascending order, filled up with kNoKey to a multiple of
// kKeyLanes.
inline constexpr int64_t kKeyLanes = 32;
inline constexpr int64_t kNoKey =
    int64_t{0x7F80'0000} << 32 | 0x7FFF'FFFF;  // infinitely far, no index

/// A distance, which is not negative, and an index as one number: the nearer one is smaller, of two
/// as near the one of the lower index.
inline float distance_of_key(int64_t key) {
  return std::bit_cast<float>(static_cast<int32_t>(key >> 32));
}
inline int64_t index_of_key(int64_t key) { return key & 0x7FFF'FFFF; }

/// Puts the points that are not further than `most` among the `width` least keys; index: of each
/// point. The arrays of points hold a multiple of kPointLanes, `index` need not.
void keep_nearest(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                  float most, int64_t* keys, int64_t width);

/// The same for the lowest indices, which are the keys.
void keep_lowest(const PointRows& points, const int32_t* index, int64_t count, const float* query,
                 float most, int64_t* keys, int64_t width);

}  // namespace serpentine::cpu
