// In which order the points of a cloud are scanned, by the names that published configs use.
//
// Zhang et al., "Point Cloud Mamba", arXiv 2403.00762; Liang et al., "PointMamba", arXiv
// 2402.10739.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

/// xyz xzy yxz yzx zxy zyx: along three axes. z z-trans hilbert hilbert-trans: along curves, with x
/// and y exchanged in the second of each.
std::vector<std::string> point_orders();

struct PointOrderOptions {
  double cell = 0.02;  // side of the cells that points are sorted by, in the unit of the points
  // the authors' keys, by which an order may depend on the other clouds of a batch
  bool published = false;
};

/// The point at each position. points: [B, N, 3] -> int64 [B, N]. Points of one cell stay as they
/// lie. Not published: along axes the paper's snake, curves of a fixed depth, so that each cloud is
/// walked as if it were alone.
at::Tensor point_walk(const at::Tensor& points, const std::string& name,
                      const PointOrderOptions& options);

/// The walk of points that lie in their sequence. points: [B, N, 3] -> int64 [B, N].
at::Tensor as_they_lie(const at::Tensor& points);

/// The walk cut into `windows` sequences of equal length, each between `ends` rows of its own. Rows
/// are those of the N points, then for each window 2 * ends: those before it and those after it.
ScanOrder walk_order(const at::Tensor& walk, int64_t windows = 1, int64_t ends = 0);

}  // namespace serpentine
