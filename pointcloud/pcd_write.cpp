// Writing PCD 0.7.
#include <array>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"
#include "pointcloud/lzf.h"

namespace serpentine {
namespace {

struct Column {
  at::Tensor values;  // [N]
  NumberType type;
};

char letter_of(NumberType type) {
  switch (type) {
    case NumberType::kF32:
    case NumberType::kF64:
      return 'F';
    case NumberType::kU8:
    case NumberType::kU16:
    case NumberType::kU32:
    case NumberType::kU64:
      return 'U';
    default:
      return 'I';
  }
}

// the header up to DATA, and every number's column
std::string header_of(const PointCloud& cloud, std::vector<Column>& columns) {
  std::array<std::string, 4> lines = {"FIELDS", "SIZE", "TYPE", "COUNT"};
  const auto add = [&](const std::string& name, const at::Tensor& values, NumberType type) {
    const at::Tensor flat = as_columns(values);
    lines[0] += " " + name;
    lines[1] += " " + std::to_string(bytes_of(type));
    lines[2] += std::string(" ") + letter_of(type);
    lines[3] += " " + std::to_string(flat.size(1));
    for (int64_t i = 0; i < flat.size(1); ++i) columns.push_back({flat.select(1, i), type});
  };
  for (int64_t axis = 0; axis < 3; ++axis)
    add(std::string(1, static_cast<char>('x' + axis)), cloud.points.select(1, axis), cloud.stored);
  for (const auto& field : cloud.fields) add(field.name, field.values, field.type);
  const std::string count = std::to_string(cloud.size());
  std::string text = "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n";
  for (const auto& line : lines) text += line + "\n";
  return text + "WIDTH " + count + "\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS " + count + "\n";
}

void append_text(std::string& text, const std::vector<Column>& columns, int64_t points) {
  std::vector<at::Tensor> wide;
  wide.reserve(columns.size());
  for (const auto& column : columns) {
    const bool whole = at::isIntegralType(column.values.scalar_type(), true);
    wide.push_back(column.values.to(whole ? at::kLong : at::kDouble).contiguous());
  }
  for (int64_t i = 0; i < points; ++i) {
    for (size_t c = 0; c < columns.size(); ++c) {
      if (c > 0) text += ' ';
      if (wide[c].scalar_type() == at::kLong) {
        text += std::to_string(wide[c].const_data_ptr<int64_t>()[i]);
      } else if (columns[c].type == NumberType::kF32) {
        append_number(text, static_cast<float>(wide[c].const_data_ptr<double>()[i]));
      } else {
        append_number(text, wide[c].const_data_ptr<double>()[i]);
      }
    }
    text += '\n';
  }
}

}  // namespace

std::string pcd_text(const PointCloud& cloud, PcdFormat format) {
  std::vector<Column> columns;
  std::string text = header_of(cloud, columns);
  if (format == PcdFormat::kAscii) {
    text += "DATA ascii\n";
    append_text(text, columns, cloud.size());
    return text;
  }
  const bool packed = format == PcdFormat::kCompressed;
  size_t row = 0;
  for (const auto& column : columns) row += bytes_of(column.type);
  std::string rows(row * cloud.size(), '\0');
  size_t at = 0;
  for (const auto& column : columns) {
    const size_t size = bytes_of(column.type);
    write_column(column.values, rows.data() + at, packed ? size : row, column.type, false);
    at += packed ? size * cloud.size() : size;
  }
  if (!packed) return text + "DATA binary\n" + rows;

  // a field of several columns lies point by point, so its columns are put together again
  if (columns.size() != 3 + cloud.fields.size()) {
    at = 0;
    for (int64_t axis = 0; axis < 3; ++axis) at += bytes_of(cloud.stored) * cloud.size();
    for (const auto& field : cloud.fields) {
      const size_t size = bytes_of(field.type);
      write_column(field.values.contiguous().flatten(), rows.data() + at, size, field.type, false);
      at += size * field.values.numel();
    }
  }
  const std::string small = lzf_pack(rows);
  SERPENTINE_CHECK(rows.size() <= UINT32_MAX && small.size() <= UINT32_MAX, "PCD",
                   "a compressed file holds at most 4 GiB, got ", rows.size(), " bytes");
  std::string sizes(8, '\0');
  write_column(at::scalar_tensor(static_cast<int64_t>(small.size()), at::kLong), sizes.data(), 4,
               NumberType::kU32, false);
  write_column(at::scalar_tensor(static_cast<int64_t>(rows.size()), at::kLong), sizes.data() + 4, 4,
               NumberType::kU32, false);
  return text + "DATA binary_compressed\n" + sizes + small;
}

}  // namespace serpentine
