// NRRD files (.nrrd, .nhdr): voxels, spacing and orientation, read and written.
//
// https://teem.sourceforge.net/nrrd/format.html. Encodings raw and gzip, all whole and real types,
// two or three axes of space and at most one of channels, the voxels in the file or in one beside
// it.
#pragma once

#include <filesystem>

#include <torch/types.h>

#include "segmentation/nifti.h"

namespace serpentine {

bool is_nrrd_name(const std::filesystem::path& file);

/// float32 [channels, K, J, I]; `place`: as the header of a NIfTI file would say it. Throws
/// "FILE: why".
torch::Tensor read_nrrd(const std::filesystem::path& file, NiftiHeader* place = nullptr);

/// Labels or values [K, J, I] (uint8, int16, int32 or float32) with the place of `like`, packed.
/// Atomic.
void write_nrrd(const std::filesystem::path& file, const torch::Tensor& voxels,
                const NiftiHeader& like);

}  // namespace serpentine
