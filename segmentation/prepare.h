// From a file's voxels to what a network reads: cropping, normalisation, resampling, and back.
#pragma once

#include <array>

#include <torch/types.h>

#include "segmentation/plan.h"
#include "segmentation/volume.h"

namespace serpentine {

/// Voxels [first, last) along z, y, x.
struct Box {
  std::array<int64_t, 3> first{}, last{};
  std::array<int64_t, 3> size() const {
    return {last[0] - first[0], last[1] - first[1], last[2] - first[2]};
  }
};

/// The smallest box of voxels that are not zero in some channel; everything where all are zero.
Box nonzero_box(const torch::Tensor& data);
torch::Tensor cropped(const torch::Tensor& data, const Box& box);  // [..., D, H, W]

/// The voxels of a box as the plan wants them: normalised, with the plan's spacing. float32
/// [C, D, H, W].
torch::Tensor prepare_image(const SegmentationPlan& plan, const Volume& volume, const Box& box);

/// The size of that.
std::array<int64_t, 3> prepared_size(const SegmentationPlan& plan, const Volume& volume,
                                     const Box& box);

/// What the axis of low resolution is, for the volume or for the plan; -1: none.
int64_t coarse_axis_of(const SegmentationPlan& plan, const Volume& volume);

/// Values of a label file as classes: int32 with 0..classes-1, or of regions one bit a region; the
/// ignored value becomes -1. Throws "NAME: holds the value V, which no class has".
torch::Tensor to_classes(const SegmentationPlan& plan, const torch::Tensor& values,
                         const std::string& name);

/// The reverse: classes (or region bits) as the values that the labels hold.
torch::Tensor to_values(const SegmentationPlan& plan, const torch::Tensor& classes);

/// One training case: image and classes of its non-zero box, with the plan's spacing.
struct PreparedCase {
  std::string name;
  torch::Tensor image;   // float32 [C, D, H, W]
  torch::Tensor target;  // int32 [D, H, W]
};
PreparedCase prepare_case(const SegmentationPlan& plan, const CaseFiles& files);

}  // namespace serpentine
