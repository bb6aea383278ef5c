#include "pointcloud/cloud.h"

#include <algorithm>
#include <filesystem>

#include <ATen/ATen.h>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/bytes.h"
#include "pointcloud/las.h"

namespace serpentine {
namespace {

std::string ending_of(const std::string& path) {
  std::string ending = std::filesystem::path(path).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ending;
}

// a channel in 0..1: bytes and 16 bits by their range, what is a fraction as it is
at::Tensor channel(const CloudField& field) {
  const at::Tensor values = field.values.to(at::kFloat);
  if (field.type == NumberType::kU8) return values / 255;
  if (field.type == NumberType::kF32 || field.type == NumberType::kF64) {
    const bool bytes = values.numel() > 0 && values.max().item<float>() > 1;
    return bytes ? values / 255 : values;
  }

  // LAS files of many programs hold bytes in the 16 bits
  const bool bytes = values.numel() > 0 && values.max().item<float>() <= 255;
  return bytes ? values / 255 : values / 65535;
}

}  // namespace

const CloudField* PointCloud::find(const std::string& name) const {
  const auto at = std::find_if(fields.begin(), fields.end(),
                               [&](const auto& field) { return field.name == name; });
  return at == fields.end() ? nullptr : &*at;
}

void PointCloud::set(const std::string& name, const at::Tensor& values, NumberType type) {
  for (auto& field : fields) {
    if (field.name != name) continue;
    field.values = values;
    field.type = type;
    return;
  }
  fields.push_back({name, values, type});
}

PointCloud read_cloud(const std::string& path) {
  const std::string ending = ending_of(path);
  if (ending == ".ply") return parse_ply(InputFile(path).read_all(), path);
  if (ending == ".pcd") return parse_pcd(InputFile(path).read_all(), path);
  if (ending == ".off") return parse_off(InputFile(path).read_all(), path);
  if (ending == ".xyz" || ending == ".txt" || ending == ".csv")
    return parse_xyz(InputFile(path).read_all(), path);
  if (ending == ".bin") return parse_kitti(InputFile(path).read_all(), path);
  if (ending == ".npy") return parse_npy_cloud(InputFile(path).read_all(), path);
  if (ending == ".npz") return read_npz_cloud(path);
  if (ending == ".las" || ending == ".laz") return read_las(path);
  SERPENTINE_CHECK(false, path,
                   "the ending must be .ply, .pcd, .off, .xyz, .txt, .csv, .bin, .npy, .npz or "
                   ".las, got '",
                   ending, "'");
}

void write_cloud(const std::string& path, const PointCloud& cloud) {
  const std::string ending = ending_of(path);
  const auto text = [&]() -> std::string {
    if (ending == ".ply") return ply_text(cloud);
    if (ending == ".pcd") return pcd_text(cloud);
    if (ending == ".off") return off_text(cloud);
    if (ending == ".xyz" || ending == ".txt") return xyz_text(cloud);
    if (ending == ".csv") return xyz_text(cloud, ',', true);
    if (ending == ".bin") return kitti_text(cloud);
    if (ending == ".npy") return npy_text(cloud);
    if (ending == ".npz") return npz_text(cloud);
    SERPENTINE_CHECK(false, path,
                     "the ending must be .ply, .pcd, .off, .xyz, .txt, .csv, .bin, .npy or .npz, "
                     "got '",
                     ending, "'; a .las file is written from the one that was read");
  };
  write_atomically(path, text());
}

PointCloud finite_points(const PointCloud& cloud) {
  const at::Tensor kept = cloud.points.isfinite().all(1).nonzero().squeeze(1);
  if (kept.numel() == cloud.size()) return cloud;
  return some_points(cloud, kept);
}

PointCloud some_points(const PointCloud& cloud, const at::Tensor& rows) {
  PointCloud out;
  out.stored = cloud.stored;
  out.points = cloud.points.index_select(0, rows);
  for (const auto& field : cloud.fields)
    out.fields.push_back({field.name, field.values.index_select(0, rows), field.type});
  return out;
}

at::Tensor colours_of(const PointCloud& cloud) {
  const CloudField *red = cloud.find("red"), *green = cloud.find("green"),
                   *blue = cloud.find("blue");
  if (red && green && blue) {
    return at::stack({channel(*red), channel(*green), channel(*blue)}, 1).clamp(0, 1);
  }
  const CloudField* packed = cloud.find("rgb") ? cloud.find("rgb") : cloud.find("rgba");
  if (!packed || bytes_of(packed->type) != 4 || packed->values.dim() != 1) return {};
  const at::Tensor bits =
      packed->type == NumberType::kF32 ? packed->values.view(at::kInt) : packed->values;
  const at::Tensor whole = bits.to(at::kLong);
  const auto byte = [&](int64_t shift) {
    return at::bitwise_and(at::bitwise_right_shift(whole, shift), 255).to(at::kFloat) / 255;
  };
  return at::stack({byte(16), byte(8), byte(0)}, 1);
}

}  // namespace serpentine
