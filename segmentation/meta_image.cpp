#include "segmentation/meta_image.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "segmentation/file_error.h"
#include "segmentation/text_header.h"
#include "segmentation/voxels.h"

namespace serpentine {
namespace {

struct MetaHeader {
  TextHeader text;
  std::vector<int64_t> sizes;  // i, j, k, volumes

  /// The first of several names that the format gives one thing.
  std::string field(std::initializer_list<const char*> names,
                    const std::string& otherwise = "") const {
    for (const char* name : names) {
      const auto found = text.fields.find(name);
      if (found != text.fields.end()) return found->second;
    }
    return otherwise;
  }
  bool yes(std::initializer_list<const char*> names) const {
    return lower_case(field(names)) == "true" || field(names) == "1";
  }
};

VoxelType meta_type(const std::filesystem::path& file, const std::string& name) {
  static const std::map<std::string, VoxelType> types = {
      {"MET_CHAR", VoxelType::kInt8},       {"MET_UCHAR", VoxelType::kUint8},
      {"MET_SHORT", VoxelType::kInt16},     {"MET_USHORT", VoxelType::kUint16},
      {"MET_INT", VoxelType::kInt32},       {"MET_UINT", VoxelType::kUint32},
      {"MET_LONG", VoxelType::kInt32},      {"MET_ULONG", VoxelType::kUint32},
      {"MET_LONG_LONG", VoxelType::kInt64}, {"MET_ULONG_LONG", VoxelType::kUint64},
      {"MET_FLOAT", VoxelType::kFloat},     {"MET_DOUBLE", VoxelType::kDouble}};
  const auto found = types.find(name);
  if (found == types.end())
    fail_file(file, "has voxels of the type '" + name + "', which is not one number");
  return found->second;
}

MetaHeader read_meta_header(const std::filesystem::path& file) {
  MetaHeader header;
  bool whole = false;
  header.text = read_text_header(
      file,
      [&](const std::string& line, TextHeader& into) {
        const size_t equals = line.find('=');
        if (equals == std::string::npos) {
          if (!trimmed(line).empty()) fail_file(file, "is not a MetaImage file");
          return;
        }
        into.fields[trimmed(line.substr(0, equals))] = trimmed(line.substr(equals + 1));
        whole = into.fields.contains("ElementDataFile");
      },
      [&](const std::string&) { return whole; });
  for (const char* needed : {"DimSize", "ElementType", "ElementDataFile"})
    if (header.field({needed}).empty())
      fail_file(file, std::string("is not a MetaImage file: it has no ") + needed);
  if (header.field({"HeaderSize"}, "0") != "0")
    fail_file(file, "has a HeaderSize, which is not understood");
  header.sizes = sizes_in(file, "DimSize", header.field({"DimSize"}));
  if (header.sizes.size() < 2 || header.sizes.size() > 4 ||
      header.field({"NDims"}, std::to_string(header.sizes.size())) !=
          std::to_string(header.sizes.size()))
    fail_file(file, "says NDims " + header.field({"NDims"}) + " and gives " +
                        std::to_string(header.sizes.size()) + " sizes; two to four are understood");
  return header;
}

/// Rows of TransformMatrix are the axes' directions; ITK's world runs left, back, head.
NiftiHeader meta_place(const std::filesystem::path& file, const MetaHeader& header) {
  const size_t axes = header.sizes.size();
  const auto sides = numbers_in(file, "ElementSpacing",
                                header.field({"ElementSpacing", "ElementSize"}, "1 1 1 1"));
  const auto matrix = numbers_in(file, "TransformMatrix",
                                 header.field({"TransformMatrix", "Orientation", "Rotation"}));
  const auto origin = numbers_in(file, "Offset", header.field({"Offset", "Position", "Origin"}));
  if (sides.size() < std::min<size_t>(axes, 3) ||
      (!matrix.empty() && matrix.size() != axes * axes) ||
      (!origin.empty() && origin.size() != axes))
    fail_file(file, "has ElementSpacing, TransformMatrix or Offset of another length than NDims");
  std::array<int64_t, 3> size = {1, 1, 1};
  std::array<double, 3> spacing = {1, 1, 1};
  Affine affine = {};
  for (size_t axis = 0; axis < 3; ++axis) {
    if (axis < axes) {
      size[axis] = header.sizes[axis];
      spacing[axis] = std::abs(sides[axis]);
    }
    if (!std::isfinite(spacing[axis]) || spacing[axis] <= 0)
      fail_file(file, "has the spacing " + std::to_string(spacing[axis]) + " along an axis");
    for (size_t row = 0; row < 3; ++row) {
      const double sign = row < 2 ? -1 : 1;
      double part = row == axis ? 1 : 0;
      if (!matrix.empty() && axis < axes && row < axes) part = matrix[axis * axes + row];
      affine[row][axis] = sign * part * spacing[axis];
      if (axis < origin.size() && row == axis) affine[row][3] = sign * origin[axis];
    }
  }
  const bool oriented = axes >= 3 && !(matrix.empty() && origin.empty());
  return new_nifti_header(size, spacing, oriented ? &affine : nullptr);
}

torch::Tensor read_meta_voxels(const std::filesystem::path& file, const MetaHeader& header,
                               int64_t channels) {
  const auto type = meta_type(file, header.field({"ElementType"}));
  const bool big = header.yes({"BinaryDataByteOrderMSB", "ElementByteOrderMSB"});
  const bool swapped = big != (std::endian::native == std::endian::big);
  if (lower_case(header.field({"BinaryData"}, "true")) != "true")
    fail_file(file, "has its voxels as text, which is not understood");
  constexpr int64_t kMostVoxels = int64_t{1} << 34;
  int64_t count = channels;
  for (const int64_t side : header.sizes) {
    if (side > 0 && count > kMostVoxels / side)
      fail_file(file, "says that it holds more than 2^34 numbers");
    count *= side;
  }
  const auto data = header.field({"ElementDataFile"});
  if (data == "LIST" || data.find('%') != std::string::npos)
    fail_file(file, "has its voxels in several files, which is not understood");
  const bool inside = data == "LOCAL";
  const auto where = inside ? file : file.parent_path() / data;
  PackedFile bytes(where, inside ? header.text.end : 0, header.yes({"CompressedData"}));
  return take_voxels(
      where, [&](char* to, size_t most) { return bytes.read(to, most); }, type, count, swapped);
}

}  // namespace

bool is_meta_image_name(const std::filesystem::path& file) {
  const auto name = lower_case(file.extension().string());
  return name == ".mha" || name == ".mhd";
}

torch::Tensor read_meta_image(const std::filesystem::path& file, NiftiHeader* place) {
  const auto header = read_meta_header(file);
  const auto there = meta_place(file, header);
  const auto channels =
      sizes_in(file, "ElementNumberOfChannels", header.field({"ElementNumberOfChannels"}, "1"));
  if (channels.size() != 1) fail_file(file, "has no single ElementNumberOfChannels");
  const auto side = [&](size_t axis) {
    return axis < header.sizes.size() ? header.sizes[axis] : int64_t{1};
  };
  const auto voxels = read_meta_voxels(file, header, channels[0])
                          .view({side(3), side(2), side(1), side(0), channels[0]});
  if (place != nullptr) *place = there;
  return voxels.permute({4, 0, 1, 2, 3}).flatten(0, 1).contiguous();
}

void write_meta_image(const std::filesystem::path& file, const torch::Tensor& given,
                      const NiftiHeader& like) {
  TORCH_CHECK(given.dim() == 3, "write_meta_image: voxels must be [K, J, I], got ", given.sizes());
  const auto voxels = given.to(torch::kCPU).contiguous();
  const std::string raw(static_cast<const char*>(voxels.const_data_ptr()), voxels.nbytes());
  const auto packed = packed_bytes(raw, Packing::kZlib);
  std::string text = "ObjectType = Image\nNDims = 3\nBinaryData = True\n";
  text += "BinaryDataByteOrderMSB = False\nCompressedData = True\nCompressedDataSize = " +
          std::to_string(packed.size()) + "\n";
  const auto add = [&](const char* name, const std::array<double, 3>& numbers, const char* end) {
    char line[128];
    std::snprintf(line, sizeof line, "%s%.9g %.9g %.9g%s", name, numbers[0], numbers[1], numbers[2],
                  end);
    text += line;
  };
  if (like.oriented) {
    const auto& a = like.affine;
    for (size_t axis = 0; axis < 3; ++axis) {
      const double side = like.spacing[axis];
      add(axis == 0 ? "TransformMatrix = " : " ",
          {-a[0][axis] / side, -a[1][axis] / side, a[2][axis] / side}, axis == 2 ? "\n" : "");
    }
    add("Offset = ", {-a[0][3], -a[1][3], a[2][3]}, "\n");
  }
  add("ElementSpacing = ", like.spacing, "\n");
  text += "DimSize = " + std::to_string(voxels.size(2)) + " " + std::to_string(voxels.size(1)) +
          " " + std::to_string(voxels.size(0)) + "\n";
  text += std::string("ElementType = ") +
          named_type("write_meta_image", voxels.scalar_type()).meta + "\nElementDataFile = LOCAL\n";
  write_atomically(file.string(), text + packed);
}

}  // namespace serpentine
