#include "segmentation/volume.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"
#include "segmentation/dicom.h"
#include "segmentation/file_error.h"
#include "segmentation/meta_image.h"
#include "segmentation/nrrd.h"
#include "segmentation/text_header.h"

namespace serpentine {
namespace {

/// Which file axis runs along each world axis, by the largest parts of the affine.
void orient(Volume& volume, const NiftiHeader& header) {
  std::array<size_t, 3> voxel_of = {0, 1, 2};  // of world x, y, z: voxel axis i, j, k
  std::array<bool, 3> used = {}, done = {};
  for (int round = 0; round < 3; ++round) {
    double most = -1;
    size_t world = 0, voxel = 0;
    for (size_t w = 0; w < 3; ++w) {
      for (size_t v = 0; v < 3; ++v) {
        const double part = std::abs(header.affine[w][v]) / header.spacing[v];
        if (done[w] || used[v] || !(part > most)) continue;
        most = part;
        world = w;
        voxel = v;
      }
    }
    done[world] = used[voxel] = true;
    voxel_of[world] = voxel;
  }
  for (size_t axis = 0; axis < 3; ++axis) {  // z, y, x
    const size_t world = 2 - axis, voxel = voxel_of[world];
    volume.from[axis] = static_cast<int64_t>(2 - voxel);
    volume.flipped[axis] = header.affine[world][voxel] < 0;
    volume.spacing[axis] = header.spacing[voxel];
  }
}

torch::Tensor to_canonical(const torch::Tensor& voxels, const Volume& volume) {
  std::vector<int64_t> order = {0}, turned;
  for (size_t axis = 0; axis < 3; ++axis) {
    order.push_back(volume.from[axis] + 1);
    if (volume.flipped[axis]) turned.push_back(static_cast<int64_t>(axis) + 1);
  }
  auto moved = voxels.permute(order);
  if (!turned.empty()) moved = moved.flip(turned);
  return moved.contiguous();
}

bool same_spacing(const std::array<double, 3>& a, const std::array<double, 3>& b) {
  for (size_t axis = 0; axis < 3; ++axis) {
    if (std::abs(a[axis] - b[axis]) > 1e-3 * std::max(a[axis], b[axis])) return false;
  }
  return true;
}

std::string spacing_text(const std::array<double, 3>& spacing) {
  std::ostringstream text;
  text << spacing[0] << " x " << spacing[1] << " x " << spacing[2];
  return text.str();
}

void check_same_place(const Volume& volume, const Volume& as) {
  if (volume.size() != as.size()) {
    fail_file(volume.name, "is " + size_text(volume.size()) + " (z, y, x) where " + as.name +
                               " is " + size_text(as.size()));
  }
  if (!same_spacing(volume.spacing, as.spacing)) {
    fail_file(volume.name, "has the spacing " + spacing_text(volume.spacing) +
                               " mm (z, y, x) where " + as.name + " has " +
                               spacing_text(as.spacing));
  }
  if (volume.from != as.from || volume.flipped != as.flipped)
    fail_file(volume.name, "is orientated otherwise than " + as.name);
}

/// The first voxel of a label must lie where its image's does, where both files say so.
void check_same_origin(const Volume& label, const Volume& image) {
  if (!label.header || !image.header || !label.header->oriented || !image.header->oriented) return;
  for (size_t world = 0; world < 3; ++world) {
    const double apart = std::abs(label.header->affine[world][3] - image.header->affine[world][3]);
    if (apart > 0.1 * image.spacing[2 - world]) {
      std::ostringstream text;
      text << "lies " << apart << " mm beside " << image.name << " along " << "xyz"[world];
      fail_file(label.name, text.str());
    }
  }
}

using ReadVoxels = torch::Tensor (*)(const std::filesystem::path&, NiftiHeader*);

/// The voxels of a file with their place, brought to one orientation.
Volume placed(const std::filesystem::path& file, ReadVoxels read) {
  NiftiHeader header;
  const torch::Tensor voxels = read(file, &header);
  Volume volume;
  volume.name = file.string();
  if (header.oriented) {
    orient(volume, header);
  } else {
    volume.spacing = {header.spacing[2], header.spacing[1], header.spacing[0]};
  }
  volume.data = to_canonical(voxels, volume);
  volume.header = std::move(header);
  return volume;
}

void write_voxels(const std::filesystem::path& file, const torch::Tensor& voxels,
                  const Volume& image) {
  const NiftiHeader like =
      image.header ? *image.header
                   : new_nifti_header({voxels.size(2), voxels.size(1), voxels.size(0)},
                                      {image.spacing[2], image.spacing[1], image.spacing[0]});
  const auto as_in_file = to_file_axes(voxels, image);
  if (is_nrrd_name(file)) {
    write_nrrd(file, as_in_file, like);
  } else if (is_meta_image_name(file)) {
    write_meta_image(file, as_in_file, like);
  } else {
    write_nifti(file, as_in_file, like);
  }
}

}  // namespace

bool is_picture_name(const std::filesystem::path& file) {
  const auto name = lower_case(file.extension().string());
  return name == ".png" || name == ".jpg" || name == ".jpeg" || name == ".tif" || name == ".tiff" ||
         name == ".bmp" || name == ".webp";
}

bool is_volume_name(const std::filesystem::path& file) {
  return is_nifti_name(file) || is_nrrd_name(file) || is_meta_image_name(file);
}

bool is_image_path(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path) || lower_case(path.extension().string()) == ".dcm")
    return is_dicom_path(path);
  return is_volume_name(path) || is_picture_name(path);
}

std::string result_ending(const std::filesystem::path& image) {
  if (is_picture_name(image)) return ".png";
  if (is_nrrd_name(image)) return ".nrrd";
  return is_meta_image_name(image) ? ".mha" : ".nii.gz";
}

std::string case_name(const std::filesystem::path& file) {
  std::filesystem::path name = file.filename();
  if (name.empty()) name = file.parent_path().filename();  // FOLDER/
  if (lower_case(name.string()).ends_with(".nii.gz")) name = name.stem();
  const bool known = is_volume_name(name) || is_picture_name(name) ||
                     lower_case(name.extension().string()) == ".dcm";
  return known ? name.stem().string() : name.string();
}

std::string size_text(const std::array<int64_t, 3>& size) {
  return std::to_string(size[0]) + " x " + std::to_string(size[1]) + " x " +
         std::to_string(size[2]);
}

Volume read_volume(const std::filesystem::path& file) {
  if (is_nifti_name(file)) return placed(file, read_nifti);
  if (is_nrrd_name(file)) return placed(file, read_nrrd);
  if (is_meta_image_name(file)) return placed(file, read_meta_image);
  if (is_dicom_path(file)) return placed(file, read_dicom);
  Volume volume;
  volume.name = file.string();
  if (!is_picture_name(file)) {
    fail_file(volume.name,
              "is neither a volume (.nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd), a folder of DICOM "
              "files nor a picture (.png, .jpg, .tif, .bmp)");
  }
  const auto picture = read_image(file, Pixels::kKeep);  // [H, W, C]
  volume.picture = true;
  const int64_t colours = picture.size(2) == 4 ? 3 : picture.size(2);  // alpha is no channel
  volume.data = picture.narrow(2, 0, colours)
                    .to(torch::kInt)
                    .permute({2, 0, 1})
                    .unsqueeze(1)
                    .to(torch::kFloat)
                    .contiguous();
  return volume;
}

Volume read_channels(const std::vector<std::string>& files) {
  TORCH_CHECK(!files.empty(), "read_channels: no files");
  Volume all = read_volume(files[0]);
  if (files.size() == 1) return all;
  std::vector<torch::Tensor> channels = {all.data};
  for (size_t i = 1; i < files.size(); ++i) {
    const Volume next = read_volume(files[i]);
    check_same_place(next, all);
    channels.push_back(next.data);
  }
  all.data = torch::cat(channels);
  return all;
}

torch::Tensor read_labels(const std::filesystem::path& file, const Volume& image, double scale) {
  Volume labels = read_volume(file);
  check_same_place(labels, image);
  check_same_origin(labels, image);
  if (labels.picture && labels.data.size(0) == 3) {  // a grey picture that was saved in colour
    const auto grey = labels.data.narrow(0, 0, 1);
    if (!labels.data.equal(grey.expand_as(labels.data)))
      fail_file(labels.name, "is a picture in colours; a label has one value a pixel");
    labels.data = grey;
  }
  if (labels.data.size(0) != 1) {
    fail_file(labels.name, "has " + std::to_string(labels.data.size(0)) +
                               " volumes or channels; a label has one value a voxel");
  }
  check_finite(labels);
  const auto values = labels.data[0];
  auto whole = torch::empty(values.sizes(), torch::kInt);
  for (int64_t z = 0; z < values.size(0); ++z) {  // by slices: each step makes a copy
    const auto rounded = (scale > 0 ? values[z] / scale : values[z]).round();
    if (!(scale > 0) && !rounded.equal(values[z]))
      fail_file(labels.name, "holds values that are not whole numbers");
    whole[z].copy_(rounded);
  }
  return whole;
}

torch::Tensor to_file_axes(const torch::Tensor& voxels, const Volume& volume) {
  std::vector<int64_t> turned, order(3);
  for (size_t axis = 0; axis < 3; ++axis) {
    if (volume.flipped[axis]) turned.push_back(static_cast<int64_t>(axis));
    order[static_cast<size_t>(volume.from[axis])] = static_cast<int64_t>(axis);
  }
  const auto back = turned.empty() ? voxels : voxels.flip(turned);
  return back.permute(order).contiguous();
}

void write_labels(const std::filesystem::path& file, const torch::Tensor& labels,
                  const Volume& image) {
  const auto host = labels.to(torch::kCPU);
  const int64_t most = host.numel() > 0 ? host.max().item<int64_t>() : 0;
  if (is_picture_name(file)) {
    TORCH_CHECK(host.size(0) == 1, file.string(), ": a picture holds one slice, got ",
                host.sizes());
    write_image(file, host[0].to(most > 255 ? torch::kUInt16 : torch::kByte).unsqueeze(-1));
    return;
  }
  write_voxels(file, host.to(most > 255 ? torch::kShort : torch::kByte), image);
}

void write_values(const std::filesystem::path& file, const torch::Tensor& values,
                  const Volume& image) {
  write_voxels(file, values.to(torch::kCPU, torch::kFloat), image);
}

void check_finite(const Volume& volume) {
  int64_t bad = 0;
  for (int64_t z = 0; z < volume.data.size(1); ++z)  // by slices: the test needs a copy
    bad += (~torch::isfinite(volume.data.select(1, z))).sum().item<int64_t>();
  if (bad > 0)
    fail_file(volume.name, "holds " + std::to_string(bad) + " voxels that are not numbers");
}

}  // namespace serpentine
