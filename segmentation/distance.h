// Exact Euclidean distances in millimetres, surfaces and connected components of masks.
//
// Felzenszwalb & Huttenlocher, "Distance transforms of sampled functions" (2012): one lower
// envelope of parabolas a line and axis; linear in the voxels. Masks are bool [D, H, W] on the CPU.
#pragma once

#include <array>

#include <torch/types.h>

namespace serpentine {

using Spacing = std::array<double, 3>;  // z, y, x in millimetres

/// float32 [D, H, W]: from each voxel's centre to the nearest true one's; infinite where there is
/// none.
torch::Tensor distance_to(const torch::Tensor& mask, const Spacing& spacing);

/// The voxels of a mask that have a neighbour (over a face) outside it, or lie at the border.
torch::Tensor surface_of(const torch::Tensor& mask);

/// int32 [D, H, W]: 0 outside, components numbered from 1 in the order of their first voxel.
/// Voxels touch over faces, or also over edges and corners.
torch::Tensor components_of(const torch::Tensor& mask, bool corners, int64_t* count = nullptr);

/// The largest component of a mask (the first of equal ones), touching over faces. Linear in the
/// voxels, in parts_memory().
torch::Tensor largest_component(const torch::Tensor& mask);

/// The mask with every hole that does not reach the border filled; as that.
torch::Tensor without_holes(const torch::Tensor& mask);

/// Bytes that these two take beside the mask, with their result.
int64_t parts_memory(int64_t voxels);

}  // namespace serpentine
