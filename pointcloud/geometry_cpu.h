// What geometry.h does on a CPU.
#pragma once

#include "pointcloud/geometry.h"

namespace serpentine::cpu {

/// cells: of each point along x, y and z from its least coordinates, below 2^20, as float64 [N, 3];
/// away: float64 [N, 3], the places from the least coordinates. Centroids too are from there.
VoxelGrid voxel_grid(const at::Tensor& cells, const at::Tensor& away);

/// points: float32 or float64 [B, N, 3], contiguous. Not turned.
SurfaceNormals surface_normals(const at::Tensor& points, int64_t k);

}  // namespace serpentine::cpu
