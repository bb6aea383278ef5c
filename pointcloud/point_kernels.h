// The inner loops over points, for every instruction set that the program may meet.
//
// Squared distances are (dx^2 + dy^2) + dz^2 in float32, rounded at each step, on every machine.
#pragma once

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

}  // namespace serpentine::cpu
