// What geometry.h does on a CPU.
#pragma once

#include "pointcloud/geometry.h"

namespace serpentine::cpu {

/// Throws where cells of a side would be too many along an axis; widest: the last one's number.
void check_cells(double widest, double side);

/// points: [N, 3] with at least one, of any type.
VoxelGrid voxel_grid(const at::Tensor& points, double side);

/// points: float32 or float64 [B, N, 3], contiguous. The component of largest magnitude is
/// positive.
SurfaceNormals surface_normals(const at::Tensor& points, int64_t k);

}  // namespace serpentine::cpu
