// What a cloud's points say of its surface and density: voxels, normals.
//
// N points, M voxels. Everything runs where the points are.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// The occupied cells of a regular grid, in ascending order of (z, y, x).
struct VoxelGrid {
  at::Tensor voxel;      // int64 [N]: the voxel of each point
  at::Tensor first;      // int64 [M]: the lowest index among a voxel's points
  at::Tensor count;      // int64 [M]
  at::Tensor centroids;  // [M, 3]: the mean of its points, of the points' type, summed in float64
};

/// points: [N, 3], finite; side: of a cell, in the unit of the points. Cells begin at the least
/// coordinates; float64 points keep their precision however far from zero they are. Waits for a
/// GPU. Throws when the cloud has more than 2^20 cells along an axis.
VoxelGrid voxel_grid(const at::Tensor& points, double side);

struct SurfaceNormals {
  at::Tensor direction;  // [B, N, 3], of length 1
  at::Tensor curvature;  // [B, N] in 0..1/3: the least of the three variances over their sum
};

/// The direction in which each point's k nearest points (itself among them) vary least. points:
/// [B, N, 3]; k in 3..N. towards: [3] or [B, 3], which the normals are turned to (a scanner's
/// place); undefined: the component of largest magnitude is positive. No gradient. Hoppe et al.,
/// SIGGRAPH 1992; curvature: Pauly et al., IEEE Visualization 2002.
SurfaceNormals surface_normals(const at::Tensor& points, int64_t k, const at::Tensor& towards = {});

}  // namespace serpentine
