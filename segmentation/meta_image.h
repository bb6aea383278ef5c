// MetaImage files of ITK (.mha, .mhd): voxels, spacing and orientation, read and written.
//
// https://itk.org/Wiki/MetaIO/Documentation. Plain or packed by zlib, all whole and real types,
// two to four axes (the fourth is channels), the voxels in the file or in one beside it.
#pragma once

#include <filesystem>

#include <torch/types.h>

#include "segmentation/nifti.h"

namespace serpentine {

bool is_meta_image_name(const std::filesystem::path& file);

/// float32 [channels, K, J, I]; `place`: as the header of a NIfTI file would say it. Throws
/// "FILE: why".
torch::Tensor read_meta_image(const std::filesystem::path& file, NiftiHeader* place = nullptr);

/// Labels or values [K, J, I] (uint8, int16, int32 or float32) with the place of `like`, packed.
/// Atomic.
void write_meta_image(const std::filesystem::path& file, const torch::Tensor& voxels,
                      const NiftiHeader& like);

}  // namespace serpentine
