// NIfTI-1 and NIfTI-2 files (.nii, .nii.gz): voxels, spacing and orientation, read and written.
//
// https://nifti.nimh.nih.gov (nifti1.h, nifti2.h). Only zlib is needed. Any byte order; all integer
// and real types; scl_slope is applied. Results carry the header of the file that they belong to.
#pragma once

#include <array>
#include <filesystem>
#include <string>

#include <torch/types.h>

namespace serpentine {

using Affine = std::array<std::array<double, 4>, 3>;  // voxel (i, j, k, 1) to millimetres

struct NiftiHeader {
  int version = 1;                  // 1 or 2
  std::array<int64_t, 4> size{};    // i, j, k and volumes (1 for a 3-D file)
  std::array<double, 3> spacing{};  // millimetres along i, j, k
  Affine affine{};                  // by sform, else qform, else spacing alone
  bool oriented = false;            // there was an sform or qform
  double slope = 1, intercept = 0;
  int datatype = 0, bits = 0;
  int64_t voxels_at = 0;  // byte where voxels begin
  bool swapped = false;
  std::string raw;  // the header's bytes in this machine's order
};

/// Sizes, spacing and orientation without the voxels. Throws "FILE: why".
NiftiHeader read_nifti_header(const std::filesystem::path& file);

/// float32 [volumes, K, J, I] with slope and intercept applied; not-a-number stays. Throws
/// "FILE: why": not NIfTI, truncated, a type that has no single value (complex, RGB), more than 4
/// dimensions.
torch::Tensor read_nifti(const std::filesystem::path& file, NiftiHeader* header = nullptr);

/// Labels or values [K, J, I] (uint8, int16, int32 or float32) with the place of `like`; the name
/// decides about compression. Atomic.
void write_nifti(const std::filesystem::path& file, const torch::Tensor& voxels,
                 const NiftiHeader& like);

/// A header for voxels that came from elsewhere. size and spacing: i, j, k.
NiftiHeader new_nifti_header(std::array<int64_t, 3> size, std::array<double, 3> spacing,
                             const Affine* affine = nullptr);

bool is_nifti_name(const std::filesystem::path& file);

}  // namespace serpentine
