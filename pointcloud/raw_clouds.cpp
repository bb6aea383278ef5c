// Clouds as plain arrays: KITTI's .bin, NumPy's .npy and .npz.
#include <array>

#include <ATen/ATen.h>
#include <zlib.h>

#include "core/check.h"
#include "core/io/bytes.h"
#include "core/io/npy.h"
#include "pointcloud/cloud.h"

namespace serpentine {
namespace {

constexpr int64_t kRawCloudsMostColumns = 4096;  // of an array
constexpr size_t kKittiRow = 16;                 // x y z intensity
constexpr double kMostMoved = 1e-5;              // by rounding, as a part of the cloud's extent

struct Descr {
  NumberType type;
  const char* text;
};
constexpr std::array<Descr, 10> kDescrs = {{{NumberType::kI8, "|i1"},
                                            {NumberType::kU8, "|u1"},
                                            {NumberType::kI16, "<i2"},
                                            {NumberType::kU16, "<u2"},
                                            {NumberType::kI32, "<i4"},
                                            {NumberType::kU32, "<u4"},
                                            {NumberType::kI64, "<i8"},
                                            {NumberType::kU64, "<u8"},
                                            {NumberType::kF32, "<f4"},
                                            {NumberType::kF64, "<f8"}}};

// one array [N] or [N, k] as an .npy file
std::string array_text(const at::Tensor& values, NumberType type) {
  std::string header = "{'descr': '";
  for (const auto& descr : kDescrs) {
    if (descr.type == type) header += descr.text;
  }
  header += "', 'fortran_order': False, 'shape': (";
  for (const int64_t extent : values.sizes()) header += std::to_string(extent) + ",";
  header += "), }";
  constexpr size_t kStart = 10, kAligned = 64;
  header.append(kAligned - (kStart + header.size() + 1) % kAligned, ' ');
  header += '\n';
  std::string text = "\x93NUMPY";
  text += '\1';
  text += '\0';
  append_little(text, static_cast<uint16_t>(header.size()));
  text += header;
  std::string rows(values.numel() * bytes_of(type), '\0');
  write_column(values.contiguous().flatten(), rows.data(), bytes_of(type), type, false);
  return text + rows;
}

// a zip archive of stored members
class ZipWriter {
 public:
  void add(const std::string& name, const std::string& content) {
    const auto crc = static_cast<uint32_t>(
        ::crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size()));
    SERPENTINE_CHECK(content.size() < UINT32_MAX && text_.size() < UINT32_MAX, "npz",
                     "an archive holds at most 4 GiB");
    const auto at = static_cast<uint32_t>(text_.size());
    std::string common;
    append_little<uint16_t>(common, 20);  // the version that is needed
    append_little<uint16_t>(common, 0);
    append_little<uint16_t>(common, 0);           // stored
    append_little<uint32_t>(common, 0x00210000);  // 1 January 1980
    append_little(common, crc);
    append_little(common, static_cast<uint32_t>(content.size()));
    append_little(common, static_cast<uint32_t>(content.size()));
    append_little(common, static_cast<uint16_t>(name.size()));
    append_little<uint16_t>(common, 0);
    append_little<uint32_t>(text_, 0x04034b50);
    text_ += common + name + content;
    append_little<uint32_t>(directory_, 0x02014b50);
    append_little<uint16_t>(directory_, 20);
    directory_ += common + std::string(10, '\0');
    append_little(directory_, at);
    directory_ += name;
    ++members_;
  }

  std::string finish() {
    const auto at = static_cast<uint32_t>(text_.size());
    text_ += directory_;
    append_little<uint32_t>(text_, 0x06054b50);
    append_little<uint32_t>(text_, 0);
    append_little(text_, members_);
    append_little(text_, members_);
    append_little(text_, static_cast<uint32_t>(directory_.size()));
    append_little(text_, at);
    append_little<uint16_t>(text_, 0);
    return std::move(text_);
  }

 private:
  std::string text_, directory_;
  uint16_t members_ = 0;
};

// the first three columns are places, the others fields
PointCloud from_array(const at::Tensor& array, const std::string& who) {
  SERPENTINE_CHECK(array.dim() == 2 && array.size(1) >= 3 && array.size(1) <= kRawCloudsMostColumns,
                   who, "the array must be [points, 3 to ", kRawCloudsMostColumns, "], got ",
                   array.sizes());
  PointCloud cloud;
  cloud.stored = stored_type(array.scalar_type());
  cloud.points = array.slice(1, 0, 3).to(at::kDouble).contiguous();
  const bool half = array.scalar_type() == at::kHalf;
  for (int64_t i = 3; i < array.size(1); ++i) {
    const at::Tensor column = array.select(1, i);
    cloud.set("field_" + std::to_string(i), (half ? column.to(at::kFloat) : column).contiguous(),
              cloud.stored);
  }
  return cloud;
}

}  // namespace

PointCloud parse_kitti(std::string_view bytes, const std::string& who) {
  SERPENTINE_CHECK(bytes.size() % kKittiRow == 0, who, "a KITTI scan has ", kKittiRow,
                   " bytes a point (x y z intensity, float32), but ", bytes.size() % kKittiRow,
                   " bytes are left over at byte ", bytes.size() - bytes.size() % kKittiRow);
  const auto count = static_cast<int64_t>(bytes.size() / kKittiRow);
  const auto column = [&](size_t i) {
    return read_column(bytes.data() + 4 * i, kKittiRow, count, NumberType::kF32, false);
  };
  PointCloud cloud;
  cloud.points = at::stack({column(0), column(1), column(2)}, 1).to(at::kDouble);
  cloud.set("intensity", column(3), NumberType::kF32);
  return cloud;
}

std::string kitti_text(const PointCloud& cloud) {
  const CloudField* intensity = cloud.find("intensity");
  for (const auto& field : cloud.fields)
    SERPENTINE_CHECK(&field == intensity, "KITTI scan",
                     "a .bin file holds places and intensity only, not '", field.name,
                     "'; write a PLY");
  if (cloud.size() > 0) {
    // far from zero float32 has no digits left for what tells points apart
    const at::Tensor points = cloud.points.to(at::kDouble);
    const at::Tensor moved =
        (points - points.to(at::kFloat).to(at::kDouble)).abs().nan_to_num().max();
    const at::Tensor extent = (std::get<0>(points.max(0)) - std::get<0>(points.min(0))).max();
    SERPENTINE_CHECK(!moved.gt(kMostMoved * extent.abs()).item<bool>() || cloud.size() == 1,
                     "KITTI scan", "the float32 numbers of a .bin file would move points by ",
                     moved.item<double>(), "; write a PLY, or take an offset off first");
  }
  std::string text(kKittiRow * cloud.size(), '\0');
  for (int64_t axis = 0; axis < 3; ++axis)
    write_column(cloud.points.select(1, axis), text.data() + 4 * axis, kKittiRow, NumberType::kF32,
                 false);
  if (intensity)
    write_column(intensity->values, text.data() + 12, kKittiRow, NumberType::kF32, false);
  return text;
}

PointCloud parse_npy_cloud(std::string_view bytes, const std::string& who) {
  return from_array(parse_npy(bytes, who), who);
}

PointCloud read_npz_cloud(const std::string& path) {
  const StateDict arrays = read_npz(path);
  PointCloud cloud;
  for (const char* name : {"points", "xyz", "pos", "coord", "pc", "arr_0"}) {
    for (const auto& [known, array] : arrays) {
      if (known == name && !cloud.points.defined()) cloud = from_array(array, path + ": " + name);
    }
    if (!cloud.points.defined()) continue;
    for (const auto& [other, array] : arrays) {
      const bool of_points =
          (array.dim() == 1 || array.dim() == 2) && array.size(0) == cloud.size();
      if (other == name) continue;
      SERPENTINE_CHECK(of_points, path, "the array '", other, "' must be [points] or [points, k], ",
                       "with ", cloud.size(), " points, got ", array.sizes());
      const at::Tensor kept = array.scalar_type() == at::kHalf   ? array.to(at::kFloat)
                              : array.scalar_type() == at::kBool ? array.to(at::kByte)
                                                                 : array;
      cloud.set(other, kept, stored_type(kept.scalar_type()));
    }
    return cloud;
  }
  SERPENTINE_CHECK(false, path, "the archive has no array 'points', 'xyz', 'pos' or 'coord'");
}

std::string npy_text(const PointCloud& cloud) {
  std::vector<at::Tensor> columns = {cloud.points};
  for (const auto& field : cloud.fields)
    columns.push_back(as_columns(field.values.to(at::kDouble)));
  return array_text(at::cat(columns, 1), cloud.stored);
}

std::string npz_text(const PointCloud& cloud) {
  ZipWriter zip;
  zip.add("points.npy", array_text(cloud.points, cloud.stored));
  for (const auto& field : cloud.fields)
    zip.add(field.name + ".npy", array_text(field.values, field.type));
  return zip.finish();
}

}  // namespace serpentine
