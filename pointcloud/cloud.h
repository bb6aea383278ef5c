// A point cloud as files hold it, and reading and writing one by its file's ending.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "pointcloud/number_type.h"

namespace serpentine {

/// What a file knows of each point beside its place: intensity, colour, normal, class.
struct CloudField {
  std::string name;
  at::Tensor values;  // [N] or [N, k], of tensor_type(type)
  NumberType type = NumberType::kF32;
};

/// N points in the sequence of the file. Fields keep the file's names, sequence and number types,
/// so that what was read can be written again without loss.
struct PointCloud {
  at::Tensor points;                     // float64 [N, 3], in the file's unit
  NumberType stored = NumberType::kF32;  // of the coordinates in the file
  std::vector<CloudField> fields;
  at::Tensor faces;  // int64 [F, 3], undefined unless the file has a mesh

  int64_t size() const { return points.defined() ? points.size(0) : 0; }
  const CloudField* find(const std::string& name) const;  // null when there is none
  /// Replaces the field of that name, or adds one. values: [N] or [N, k].
  void set(const std::string& name, const at::Tensor& values, NumberType type);
};

/// Reads .ply .pcd .off .xyz .txt .csv .bin .npy .npz .las; see docs/pointcloud.md for what each
/// may hold. Errors are c10::Error, one sentence with the file and its line or byte.
PointCloud read_cloud(const std::string& path);

/// Writes by the path's ending: .ply (binary) .pcd (binary) .xyz .txt .csv .bin .npy .npz. The file
/// appears whole or not at all. Throws for fields that the format cannot hold.
void write_cloud(const std::string& path, const PointCloud& cloud);

/// Each format on its own; `bytes` is a whole file, `who` its name in errors.
PointCloud parse_ply(std::string_view bytes, const std::string& who);
PointCloud parse_pcd(std::string_view bytes, const std::string& who);
PointCloud parse_off(std::string_view bytes, const std::string& who);
PointCloud parse_xyz(std::string_view bytes, const std::string& who);  // also CSV
PointCloud parse_kitti(std::string_view bytes, const std::string& who);
PointCloud parse_npy_cloud(std::string_view bytes, const std::string& who);
PointCloud read_npz_cloud(const std::string& path);

enum class PlyFormat { kAscii, kLittleEndian, kBigEndian };
enum class PcdFormat { kAscii, kBinary, kCompressed };
std::string ply_text(const PointCloud& cloud, PlyFormat format = PlyFormat::kLittleEndian);
std::string pcd_text(const PointCloud& cloud, PcdFormat format = PcdFormat::kBinary);
std::string off_text(const PointCloud& cloud);
std::string xyz_text(const PointCloud& cloud, char delimiter = ' ', bool header = false);
std::string kitti_text(const PointCloud& cloud);
std::string npy_text(const PointCloud& cloud);
std::string npz_text(const PointCloud& cloud);

/// Points on a mesh's surface, as many on a piece as it has area. `count` points with the fields
/// normal_x, normal_y, normal_z; drawn from torch's generator after `seed`. Osada et al., ACM TOG
/// 21 (2002), section 3.1.
PointCloud sample_surface(const PointCloud& mesh, int64_t count, int64_t seed);

/// The points whose coordinates are finite, with their fields; a mesh's faces are left out.
PointCloud finite_points(const PointCloud& cloud);

/// The points of some rows, with their fields; a mesh's faces are left out. rows: int64 [M].
PointCloud some_points(const PointCloud& cloud, const at::Tensor& rows);

/// float32 [N, 3] in 0..1 from the fields red, green, blue (bytes or 16 bits), rgb or rgba (packed,
/// as PCD has them); undefined when there are none.
at::Tensor colours_of(const PointCloud& cloud);

}  // namespace serpentine
