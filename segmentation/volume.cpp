#include "segmentation/volume.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"

namespace serpentine {
namespace {

[[noreturn]] void fail_volume(const std::string& file, const std::string& why) {
  throw std::runtime_error(file + ": " + why);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

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

/// [D, H, W] as it lies in the file.
torch::Tensor to_file(const torch::Tensor& voxels, const Volume& volume) {
  std::vector<int64_t> turned, order(3);
  for (size_t axis = 0; axis < 3; ++axis) {
    if (volume.flipped[axis]) turned.push_back(static_cast<int64_t>(axis));
    order[static_cast<size_t>(volume.from[axis])] = static_cast<int64_t>(axis);
  }
  const auto back = turned.empty() ? voxels : voxels.flip(turned);
  return back.permute(order).contiguous();
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
    fail_volume(volume.name, "is " + size_text(volume.size()) + " (z, y, x) where " + as.name +
                                 " is " + size_text(as.size()));
  }
  if (!same_spacing(volume.spacing, as.spacing)) {
    fail_volume(volume.name, "has the spacing " + spacing_text(volume.spacing) +
                                 " mm (z, y, x) where " + as.name + " has " +
                                 spacing_text(as.spacing));
  }
  if (volume.from != as.from || volume.flipped != as.flipped)
    fail_volume(volume.name, "is orientated otherwise than " + as.name);
}

}  // namespace

bool is_picture_name(const std::filesystem::path& file) {
  const auto name = lower(file.extension().string());
  return name == ".png" || name == ".jpg" || name == ".jpeg" || name == ".tif" || name == ".tiff" ||
         name == ".bmp" || name == ".webp";
}

std::string case_name(const std::filesystem::path& file) {
  auto name = file.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  return std::filesystem::path(name).stem().string();
}

std::string size_text(const std::array<int64_t, 3>& size) {
  return std::to_string(size[0]) + " x " + std::to_string(size[1]) + " x " +
         std::to_string(size[2]);
}

Volume read_volume(const std::filesystem::path& file) {
  Volume volume;
  volume.name = file.string();
  if (is_nifti_name(file)) {
    NiftiHeader header;
    const auto voxels = read_nifti(file, &header);
    if (header.oriented) {
      orient(volume, header);
    } else {
      volume.spacing = {header.spacing[2], header.spacing[1], header.spacing[0]};
    }
    volume.data = to_canonical(voxels, volume);
    volume.header = std::move(header);
    return volume;
  }
  if (!is_picture_name(file)) {
    fail_volume(volume.name,
                "is neither NIfTI (.nii, .nii.gz) nor a picture (.png, .jpg, .tif, .bmp)");
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
  if (labels.picture && labels.data.size(0) == 3) {  // a grey picture that was saved in colour
    const auto grey = labels.data.narrow(0, 0, 1);
    if (!labels.data.equal(grey.expand_as(labels.data)))
      fail_volume(labels.name, "is a picture in colours; a label has one value a pixel");
    labels.data = grey;
  }
  if (labels.data.size(0) != 1) {
    fail_volume(labels.name, "has " + std::to_string(labels.data.size(0)) +
                                 " volumes or channels; a label has one value a voxel");
  }
  check_finite(labels);
  auto values = labels.data[0];
  if (scale > 0) values = (values / scale).round();
  const auto whole = values.round();
  if (!whole.equal(values)) fail_volume(labels.name, "holds values that are not whole numbers");
  return whole.to(torch::kInt);
}

void write_labels(const std::filesystem::path& file, const torch::Tensor& labels,
                  const Volume& image) {
  const auto host = labels.to(torch::kCPU);
  const int64_t most = host.numel() > 0 ? host.max().item<int64_t>() : 0;
  if (!is_nifti_name(file)) {
    TORCH_CHECK(host.size(0) == 1, file.string(), ": a picture holds one slice, got ",
                host.sizes());
    write_image(file, host[0].to(most > 255 ? torch::kUInt16 : torch::kByte).unsqueeze(-1));
    return;
  }
  const auto type = most > 255 ? torch::kShort : torch::kByte;
  const NiftiHeader like =
      image.header ? *image.header
                   : new_nifti_header({host.size(2), host.size(1), host.size(0)},
                                      {image.spacing[2], image.spacing[1], image.spacing[0]});
  write_nifti(file, to_file(host, image).to(type), like);
}

void write_values(const std::filesystem::path& file, const torch::Tensor& values,
                  const Volume& image) {
  const auto host = values.to(torch::kCPU, torch::kFloat);
  const NiftiHeader like =
      image.header ? *image.header
                   : new_nifti_header({host.size(2), host.size(1), host.size(0)},
                                      {image.spacing[2], image.spacing[1], image.spacing[0]});
  write_nifti(file, to_file(host, image), like);
}

void check_finite(const Volume& volume) {
  const auto bad = (~torch::isfinite(volume.data)).sum().item<int64_t>();
  if (bad > 0)
    fail_volume(volume.name, "holds " + std::to_string(bad) + " voxels that are not numbers");
}

}  // namespace serpentine
