// DICOM Segmentation objects (SEG): the labels of a series, a binary segment for each class.
//
// DICOM PS3.3 A.51 and C.8.20. The object has the patient, study, frame of reference and pixel
// grid of its series, and names the slice that each frame is of. Written by DCMTK
// (SERPENTINE_DCMTK); a build without it says so in one sentence.
#pragma once

#include <filesystem>
#include <vector>

#include <torch/types.h>

#include "segmentation/cases.h"
#include "segmentation/volume.h"

namespace serpentine {

/// labels: int [D, H, W] of an image that read_volume() made of a DICOM file or folder; `classes`
/// without the background: a segment has the voxels of any of its values, so that regions may
/// overlap. Frames without a voxel are not stored. Throws "FILE: why".
void write_dicom_seg(const std::filesystem::path& file, const torch::Tensor& labels,
                     const Volume& image, const std::vector<LabelClass>& classes);

}  // namespace serpentine
