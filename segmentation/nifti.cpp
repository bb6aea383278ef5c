#include "segmentation/nifti.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <zlib.h>

#include "segmentation/file_error.h"
#include "segmentation/text_header.h"
#include "segmentation/voxels.h"

namespace serpentine {
namespace {

constexpr size_t kNiftiBytes1 = 348, kBytes2 = 540;
constexpr int64_t kMostVoxels = int64_t{1} << 34;

// plain files too: gzopen passes them through
class Reader {
 public:
  explicit Reader(const std::filesystem::path& file)
      : file_(file), gz_(gzopen(file.c_str(), "rb")) {
    if (gz_ == nullptr) fail_file(file, "cannot be opened");
    gzbuffer(gz_, 1 << 18);
  }
  ~Reader() { gzclose(gz_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// The number of bytes that there were.
  size_t read(char* to, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
      const auto part = static_cast<unsigned>(std::min<size_t>(bytes - done, 1 << 30));
      const int got = gzread(gz_, to + done, part);
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }
  void skip(int64_t bytes) {
    std::vector<char> sink(4096);
    while (bytes > 0) {
      const auto part = static_cast<size_t>(std::min<int64_t>(bytes, 4096));
      if (read(sink.data(), part) != part) fail_file(file_, "ends before its voxels begin");
      bytes -= static_cast<int64_t>(part);
    }
  }
  bool damaged() const {
    int code = Z_OK;
    gzerror(gz_, &code);
    return code != Z_OK && code != Z_STREAM_END;
  }

 private:
  std::filesystem::path file_;
  gzFile gz_;
};

template <class T>
T field(const std::string& raw, size_t at) {
  T value;
  std::memcpy(&value, raw.data() + at, sizeof value);
  return value;
}

void swap_run(std::string& raw, size_t at, size_t width, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    char* begin = raw.data() + at + i * width;
    std::reverse(begin, begin + width);
  }
}

/// Numeric fields of both layouts that are used here or that a reader will look at.
void swap_header(std::string& raw, int version) {
  struct Run {
    size_t at, width, count;
  };
  static const std::vector<Run> one = {
      {0, 4, 1},   {32, 4, 1},  {36, 2, 1},  {40, 2, 8},  {56, 4, 3},  {68, 2, 4},  {76, 4, 8},
      {108, 4, 3}, {120, 2, 1}, {124, 4, 4}, {140, 4, 2}, {252, 2, 2}, {256, 4, 18}};
  static const std::vector<Run> two = {{0, 4, 1},   {12, 2, 2},  {16, 8, 8},   {80, 8, 3},
                                       {104, 8, 8}, {168, 8, 1}, {176, 8, 2},  {192, 8, 4},
                                       {224, 8, 2}, {344, 4, 2}, {352, 8, 18}, {496, 4, 3}};
  for (const auto& run : version == 1 ? one : two) swap_run(raw, run.at, run.width, run.count);
}

/// The rotation of a quaternion (b, c, d), nifti1.h method 2.
Affine from_quaternion(double b, double c, double d, const std::array<double, 3>& offset,
                       const std::array<double, 3>& spacing, double qfac) {
  double a = 1 - (b * b + c * c + d * d);
  if (a < 1e-7) {
    const double scale = 1 / std::sqrt(std::max(b * b + c * c + d * d, 1e-30));
    b *= scale;
    c *= scale;
    d *= scale;
    a = 0;
  } else {
    a = std::sqrt(a);
  }
  const double x = spacing[0], y = spacing[1], z = spacing[2] * qfac;
  return {{{(a * a + b * b - c * c - d * d) * x, 2 * (b * c - a * d) * y, 2 * (b * d + a * c) * z,
            offset[0]},
           {2 * (b * c + a * d) * x, (a * a + c * c - b * b - d * d) * y, 2 * (c * d - a * b) * z,
            offset[1]},
           {2 * (b * d - a * c) * x, 2 * (c * d + a * b) * y, (a * a + d * d - c * c - b * b) * z,
            offset[2]}}};
}

double real(const NiftiHeader& header, size_t at1, size_t at2) {
  return header.version == 1 ? static_cast<double>(field<float>(header.raw, at1))
                             : field<double>(header.raw, at2);
}

int form_code(const NiftiHeader& header, bool sform) {
  if (header.version == 1) return field<int16_t>(header.raw, sform ? 254 : 252);
  return field<int32_t>(header.raw, sform ? 348 : 344);
}

void read_place(NiftiHeader& header) {
  double qfac = 1;
  std::array<double, 8> pixdim{};
  for (size_t i = 0; i < 8; ++i) pixdim[i] = real(header, 76 + 4 * i, 104 + 8 * i);
  if (pixdim[0] < 0) qfac = -1;
  for (size_t axis = 0; axis < 3; ++axis) {
    const double side = std::abs(pixdim[axis + 1]);
    header.spacing[axis] = std::isfinite(side) && side > 0 ? side : 1;
  }
  if (form_code(header, true) > 0) {
    header.oriented = true;
    for (size_t row = 0; row < 3; ++row) {
      for (size_t column = 0; column < 4; ++column) {
        header.affine[row][column] =
            real(header, 280 + 16 * row + 4 * column, 400 + 32 * row + 8 * column);
      }
    }
    for (size_t axis = 0; axis < 3; ++axis) {  // the affine knows the spacing better
      double square = 0;
      for (size_t row = 0; row < 3; ++row)
        square += header.affine[row][axis] * header.affine[row][axis];
      if (std::isfinite(square) && square > 0) header.spacing[axis] = std::sqrt(square);
    }
    return;
  }
  std::array<double, 3> offset{};
  for (size_t axis = 0; axis < 3; ++axis)
    offset[axis] = real(header, 268 + 4 * axis, 376 + 8 * axis);
  header.oriented = form_code(header, false) > 0;
  if (header.oriented) {
    header.affine = from_quaternion(real(header, 256, 352), real(header, 260, 360),
                                    real(header, 264, 368), offset, header.spacing, qfac);
  } else {
    header.affine = {
        {{header.spacing[0], 0, 0, 0}, {0, header.spacing[1], 0, 0}, {0, 0, header.spacing[2], 0}}};
  }
}

NiftiHeader parse_header(const std::filesystem::path& file, Reader& reader) {
  NiftiHeader header;
  std::string raw(kNiftiBytes1, '\0');
  const size_t got = reader.read(raw.data(), kNiftiBytes1);
  if (got < kNiftiBytes1)
    fail_file(file, reader.damaged() ? "is damaged gzip" : "is too short for NIfTI");
  auto first = field<int32_t>(raw, 0);
  const auto swapped = static_cast<int32_t>(__builtin_bswap32(static_cast<uint32_t>(first)));
  header.swapped =
      swapped == static_cast<int32_t>(kNiftiBytes1) || swapped == static_cast<int32_t>(kBytes2);
  if (header.swapped) first = swapped;
  if (first == static_cast<int32_t>(kBytes2)) {
    header.version = 2;
    raw.resize(kBytes2);
    if (reader.read(raw.data() + kNiftiBytes1, kBytes2 - kNiftiBytes1) < kBytes2 - kNiftiBytes1)
      fail_file(file, "is too short for NIfTI-2");
  } else if (first != static_cast<int32_t>(kNiftiBytes1)) {
    fail_file(file, "is not a NIfTI file");
  }
  const std::string magic = header.version == 1 ? raw.substr(344, 3) : raw.substr(4, 3);
  if (magic != (header.version == 1 ? "n+1" : "n+2")) {
    fail_file(file, magic == "ni1" || magic == "ni2"
                        ? "has its voxels in a second file (.img); convert it to .nii"
                        : "is not a NIfTI file (an Analyze header?)");
  }
  if (header.swapped) swap_header(raw, header.version);
  header.raw = raw;
  const auto dim = [&](size_t i) {
    return header.version == 1 ? static_cast<int64_t>(field<int16_t>(raw, 40 + 2 * i))
                               : field<int64_t>(raw, 16 + 8 * i);
  };
  const int64_t axes = dim(0);
  if (axes < 1 || axes > 7) fail_file(file, "says that it has " + std::to_string(axes) + " axes");
  int64_t total = 1;
  for (int64_t axis = 1; axis <= 7; ++axis) {
    const int64_t side = axis <= axes ? dim(static_cast<size_t>(axis)) : 1;
    if (side < 1) fail_file(file, "has no voxels along axis " + std::to_string(axis));
    if (axis > 5 && side > 1) fail_file(file, "has more than 4 axes");
    // channels may lie along the fourth or, as vectors, along the fifth axis
    if (axis <= 3) header.size[static_cast<size_t>(axis - 1)] = side;
    if (axis == 4) header.size[3] = side;
    if (axis == 5) {
      if (side > 1 && header.size[3] > 1) fail_file(file, "has more than 4 axes");
      header.size[3] *= side;
    }
    if (side > kMostVoxels / total) fail_file(file, "says that it has more than 2^34 voxels");
    total *= side;
  }
  header.datatype = header.version == 1 ? field<int16_t>(raw, 70) : field<int16_t>(raw, 12);
  header.bits = header.version == 1 ? field<int16_t>(raw, 72) : field<int16_t>(raw, 14);
  header.slope = real(header, 112, 176);
  header.intercept = real(header, 116, 184);
  if (!std::isfinite(header.slope) || header.slope == 0) {
    header.slope = 1;
    header.intercept = 0;
  }
  if (!std::isfinite(header.intercept)) header.intercept = 0;
  header.voxels_at = header.version == 1 ? std::llround(static_cast<double>(field<float>(raw, 108)))
                                         : field<int64_t>(raw, 168);
  header.voxels_at = std::max<int64_t>(header.voxels_at, header.version == 1 ? 352 : 544);
  read_place(header);
  return header;
}

VoxelType type_of(const std::filesystem::path& file, int datatype) {
  switch (datatype) {
    case 2:
      return VoxelType::kUint8;
    case 4:
      return VoxelType::kInt16;
    case 8:
      return VoxelType::kInt32;
    case 16:
      return VoxelType::kFloat;
    case 64:
      return VoxelType::kDouble;
    case 256:
      return VoxelType::kInt8;
    case 512:
      return VoxelType::kUint16;
    case 768:
      return VoxelType::kUint32;
    case 1024:
      return VoxelType::kInt64;
    case 1280:
      return VoxelType::kUint64;
    default:
      fail_file(file, "has voxels of NIfTI type " + std::to_string(datatype) +
                          ", which is not one number (complex, RGB) or not known");
  }
}

}  // namespace

NiftiHeader read_nifti_header(const std::filesystem::path& file) {
  Reader reader(file);
  return parse_header(file, reader);
}

torch::Tensor read_nifti(const std::filesystem::path& file, NiftiHeader* header) {
  Reader reader(file);
  const NiftiHeader found = parse_header(file, reader);
  const VoxelType type = type_of(file, found.datatype);
  reader.skip(found.voxels_at - static_cast<int64_t>(found.raw.size()));
  auto voxels = take_voxels(
                    file, [&](char* to, size_t bytes) { return reader.read(to, bytes); }, type,
                    found.size[0] * found.size[1] * found.size[2] * found.size[3], found.swapped)
                    .view({found.size[3], found.size[2], found.size[1], found.size[0]});
  if (found.slope != 1 || found.intercept != 0) voxels.mul_(found.slope).add_(found.intercept);
  if (header != nullptr) *header = found;
  return voxels;
}

bool is_nifti_name(const std::filesystem::path& file) {
  const auto name = lower_case(file.filename().string());
  return name.ends_with(".nii") || name.ends_with(".nii.gz");
}

}  // namespace serpentine
