// Writing PLY; faces are triangles.
#include <array>

#include <ATen/ATen.h>

#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"

namespace serpentine {
namespace {

const char* name_of(NumberType type) {
  switch (type) {
    case NumberType::kI8:
      return "char";
    case NumberType::kU8:
      return "uchar";
    case NumberType::kI16:
      return "short";
    case NumberType::kU16:
      return "ushort";
    case NumberType::kU32:
      return "uint";
    case NumberType::kF32:
      return "float";
    case NumberType::kF64:
      return "double";
    default:
      return "int";
  }
}

// 64 bits do not exist in PLY
NumberType ply_type(NumberType type) {
  const bool wide = type == NumberType::kI64 || type == NumberType::kU64;
  return wide ? NumberType::kI32 : type;
}

struct PlyColumn {
  std::string name;
  at::Tensor values;  // [N]
  NumberType type;
};

std::vector<PlyColumn> columns_of(const PointCloud& cloud) {
  std::vector<PlyColumn> columns;
  constexpr std::array<const char*, 3> kAxes = {"x", "y", "z"};
  for (int64_t axis = 0; axis < 3; ++axis)
    columns.push_back({kAxes[axis], cloud.points.select(1, axis), ply_type(cloud.stored)});
  for (const auto& field : cloud.fields) {
    const at::Tensor flat = as_columns(field.values);
    for (int64_t i = 0; i < flat.size(1); ++i) {
      const std::string name =
          flat.size(1) == 1 ? field.name : field.name + "_" + std::to_string(i);
      columns.push_back({name, flat.select(1, i), ply_type(field.type)});
    }
  }
  return columns;
}

std::string header_of(const PointCloud& cloud, const std::vector<PlyColumn>& columns,
                      PlyFormat format, int64_t faces) {
  const char* name = format == PlyFormat::kAscii          ? "ascii"
                     : format == PlyFormat::kLittleEndian ? "binary_little_endian"
                                                          : "binary_big_endian";
  std::string text = std::string("ply\nformat ") + name + " 1.0\nelement vertex " +
                     std::to_string(cloud.size()) + "\n";
  for (const auto& column : columns)
    text += std::string("property ") + name_of(column.type) + " " + column.name + "\n";
  if (faces > 0)
    text += "element face " + std::to_string(faces) + "\nproperty list uchar int vertex_indices\n";
  return text + "end_header\n";
}

void append_rows_as_text(std::string& text, const PointCloud& cloud,
                         const std::vector<PlyColumn>& columns) {
  std::vector<at::Tensor> wide;
  wide.reserve(columns.size());
  for (const auto& column : columns) wide.push_back(column.values.to(at::kDouble).contiguous());
  for (int64_t i = 0; i < cloud.size(); ++i) {
    for (size_t c = 0; c < columns.size(); ++c) {
      const double value = wide[c].const_data_ptr<double>()[i];
      if (c > 0) text += ' ';
      if (columns[c].type == NumberType::kF32) {
        append_number(text, static_cast<float>(value));
      } else {
        append_number(text, value);
      }
    }
    text += '\n';
  }
}

}  // namespace

std::string ply_text(const PointCloud& cloud, PlyFormat format) {
  const bool swap = format == PlyFormat::kBigEndian;
  const int64_t faces = cloud.faces.defined() ? cloud.faces.size(0) : 0;
  const at::Tensor corners = faces > 0 ? cloud.faces.to(at::kLong).contiguous() : at::Tensor();
  const auto columns = columns_of(cloud);
  std::string text = header_of(cloud, columns, format, faces);
  if (format == PlyFormat::kAscii) {
    append_rows_as_text(text, cloud, columns);
    for (int64_t i = 0; i < faces; ++i) {
      const auto* face = corners.const_data_ptr<int64_t>() + 3 * i;
      text += "3 " + std::to_string(face[0]) + " " + std::to_string(face[1]) + " " +
              std::to_string(face[2]) + "\n";
    }
    return text;
  }
  size_t row = 0;
  for (const auto& column : columns) row += bytes_of(column.type);
  std::string rows(row * cloud.size(), '\0');
  size_t at = 0;
  for (const auto& column : columns) {
    write_column(column.values, rows.data() + at, row, column.type, swap);
    at += bytes_of(column.type);
  }
  constexpr size_t kFace = 13;  // a length and three numbers
  std::string face_rows(kFace * faces, '\3');
  for (int64_t corner = 0; corner < 3 && faces > 0; ++corner)
    write_column(corners.select(1, corner), face_rows.data() + 1 + 4 * corner, kFace,
                 NumberType::kI32, swap);
  return text + rows + face_rows;
}

}  // namespace serpentine
