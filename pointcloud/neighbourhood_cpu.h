// Neighbourhoods of points on a CPU where no gradient is needed: the same numbers as LocalGrouper
// and Neighbourhood give, without the rows of all neighbours.
//
// The first map is linear, so that of a neighbour less its centre is that of the neighbour less
// that of the centre: it is taken once a point, not once a neighbour. The other maps run over as
// many neighbourhoods at a time as a cache holds. B clouds, N points, S centres, k neighbours, C
// channels that are grouped, D channels of the result.
#pragma once

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace serpentine::cpu {

/// A pointwise map with its norm folded in: weight x + bias, [out, in] and [out].
struct FoldedMap {
  at::Tensor weight, bias;
};

/// [B]: the unbiased standard deviation of all neighbours less their centres. rows: float32
/// [B, N, C], anchors: float32 [B, S, C], near: int64 [B, S, k], all contiguous. Does not depend on
/// the number of threads.
at::Tensor neighbour_deviation(const at::Tensor& rows, const at::Tensor& anchors,
                               const at::Tensor& near);

/// y = relu(from_points[near] + from_centres); then for each of `layers`
/// y = relu(second relu(first y) + y); the largest over the neighbours: [B, S, D]. from_points:
/// float32 [B, N, D], from_centres: float32 [B, S, D]. The maps of `layers` and what lies between
/// them are of type `narrow`, float32 or bfloat16; the result is float32.
at::Tensor neighbourhood_features(const at::Tensor& from_points, const at::Tensor& from_centres,
                                  const at::Tensor& near,
                                  const std::vector<std::pair<FoldedMap, FoldedMap>>& layers,
                                  at::ScalarType narrow = at::kFloat);

}  // namespace serpentine::cpu
