// DICOM series: a folder of slices as one volume, with spacing and orientation.
//
// DICOM PS3.3 C.7.6.2 (image plane): a slice lies at ImagePositionPatient, its rows and columns run
// along ImageOrientationPatient; DICOM's axes point left, back and to the head. Files are decoded
// by GDCM (SERPENTINE_GDCM); a build without it says so in one sentence.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/nifti.h"

namespace serpentine {

bool dicom_available();

/// A DICOM file, or a folder that holds some: told by their first bytes, not by a name.
bool is_dicom_path(const std::filesystem::path& path);

/// What a file says of its slice.
struct DicomSlice {
  std::string file, series, modality;
  int64_t rows = 0, columns = 0, frames = 1, samples = 1;
  std::optional<std::array<double, 3>> position;
  std::optional<std::array<double, 6>> orientation;  // along a row, then along a column
  std::optional<std::array<double, 2>> spacing;      // between rows, between columns
  double thickness = 0;                              // between slices, where there is one only
};

/// None for a file that holds no image. Throws "FILE: why".
std::optional<DicomSlice> read_dicom_slice(const std::filesystem::path& file);
/// Writes rows x columns values, rescaled as the file says. Throws "FILE: why".
void read_dicom_pixels(const DicomSlice& slice, float* to);

/// The images of one file or of a folder along their normal, and the step from one to the next in
/// millimetres. Throws as read_dicom() does.
struct DicomStack {
  std::vector<DicomSlice> slices;
  std::array<double, 3> step{};
};
DicomStack dicom_stack(const std::filesystem::path& path);

/// float32 [1, K, J, I] of one file or of all images of a folder; `place`: as the header of a NIfTI
/// file would say it. Throws "PATH: why": several series, a missing slice, two at one place, uneven
/// distances, slices of different size or direction, a tilted stack, colours, several frames in a
/// file.
torch::Tensor read_dicom(const std::filesystem::path& path, NiftiHeader* place = nullptr);

}  // namespace serpentine
