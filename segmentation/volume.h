// One case as tensors: images and volumes with their spacing, brought to one orientation.
//
// A picture is a volume of one slice. Axes of tensors: channel, z, y, x. Volumes lie so that z runs
// to the head (S), y to the front (A), x to the right (R); the place that the file had is kept, and
// results are written in it.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/nifti.h"

namespace serpentine {

struct Volume {
  torch::Tensor data;                         // float32 [C, D, H, W]
  std::array<double, 3> spacing = {1, 1, 1};  // of z, y, x in millimetres; pixels of pictures: 1
  bool picture = false;                       // of a PNG, JPEG or TIFF file
  std::array<int64_t, 3> from = {0, 1, 2};    // axis of the file (k, j, i) that became z, y, x
  std::array<bool, 3> flipped = {};           // whether that axis was turned
  std::optional<NiftiHeader> header;          // of the file, or what NIfTI would say of it
  std::string name;                           // file, for errors

  std::array<int64_t, 3> size() const { return {data.size(1), data.size(2), data.size(3)}; }
};

/// A volume (NIfTI, NRRD, MetaImage; what the file holds of one voxel are channels), a folder of a
/// DICOM series, or a picture (its colours are channels). Throws "FILE: why".
Volume read_volume(const std::filesystem::path& file);

/// Several files of one case as channels of one volume; they must agree in size and spacing.
Volume read_channels(const std::vector<std::string>& files);

/// The labels of an image: int32 [D, H, W], of the image's size and place. `scale` > 0: values are
/// round(pixel / scale), for masks of 0 and 255. Throws where size, spacing or orientation differ,
/// or values are not whole numbers.
torch::Tensor read_labels(const std::filesystem::path& file, const Volume& image, double scale = 0);

/// [D, H, W] as it lies in the volume's file: [K, J, I].
torch::Tensor to_file_axes(const torch::Tensor& voxels, const Volume& volume);

/// Labels [D, H, W] in the place of `image`: NIfTI, NRRD, MetaImage or a grey PNG, by the name.
void write_labels(const std::filesystem::path& file, const torch::Tensor& labels,
                  const Volume& image);

/// The same for values (probabilities), float32 [D, H, W]; no pictures.
void write_values(const std::filesystem::path& file, const torch::Tensor& values,
                  const Volume& image);

/// Throws "FILE: holds N voxels that are not numbers" if so.
void check_finite(const Volume& volume);

bool is_picture_name(const std::filesystem::path& file);
/// NIfTI, NRRD or MetaImage.
bool is_volume_name(const std::filesystem::path& file);
/// What read_volume() can be tried on: such a name, or DICOM.
bool is_image_path(const std::filesystem::path& path);
/// How the labels of an image are called: ".png", ".nrrd", ".mha", else ".nii.gz".
std::string result_ending(const std::filesystem::path& image);
/// The name without .nii.gz, .png and the like.
std::string case_name(const std::filesystem::path& file);
/// "31 x 40 x 24"
std::string size_text(const std::array<int64_t, 3>& size);

}  // namespace serpentine
