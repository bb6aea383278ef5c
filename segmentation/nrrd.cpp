#include "segmentation/nrrd.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "segmentation/file_error.h"
#include "segmentation/text_header.h"
#include "segmentation/voxels.h"

namespace serpentine {
namespace {

using Direction = std::array<double, 3>;

struct NrrdHeader {
  TextHeader text;
  std::vector<int64_t> sizes;                        // fastest axis first
  std::vector<size_t> space;                         // the axes that lie in space
  std::vector<std::optional<Direction>> directions;  // of each axis, right, front, head; or none
  std::vector<double> spacings;
  Direction origin{};
  bool oriented = false;

  std::string field(const std::string& name, const std::string& otherwise = "") const {
    const auto found = text.fields.find(name);
    return found == text.fields.end() ? otherwise : found->second;
  }
};

VoxelType nrrd_type(const std::filesystem::path& file, const std::string& name) {
  static const std::vector<std::pair<VoxelType, std::vector<const char*>>> names = {
      {VoxelType::kInt8, {"signed char", "int8", "int8_t"}},
      {VoxelType::kUint8, {"uchar", "unsigned char", "uint8", "uint8_t"}},
      {VoxelType::kInt16,
       {"short", "short int", "signed short", "signed short int", "int16", "int16_t"}},
      {VoxelType::kUint16,
       {"ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"}},
      {VoxelType::kInt32, {"int", "signed int", "int32", "int32_t"}},
      {VoxelType::kUint32, {"uint", "unsigned int", "uint32", "uint32_t"}},
      {VoxelType::kInt64,
       {"longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t"}},
      {VoxelType::kUint64,
       {"ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"}},
      {VoxelType::kFloat, {"float"}},
      {VoxelType::kDouble, {"double"}}};
  for (const auto& [type, known] : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) return type;
  }
  fail_file(file, "has voxels of the type '" + name + "', which is not one number");
}

/// What turns a space's axes to right, front, head; none for a space without a patient.
std::optional<Direction> signs_of_space(const std::string& space) {
  if (space == "right-anterior-superior" || space == "ras") return Direction{1, 1, 1};
  if (space == "left-anterior-superior" || space == "las") return Direction{-1, 1, 1};
  if (space == "left-posterior-superior" || space == "lps") return Direction{-1, -1, 1};
  return std::nullopt;
}

/// "(1,0,0) none (0,1,0)": one entry an axis.
void read_directions(const std::filesystem::path& file, NrrdHeader& header) {
  const auto text = header.field("space directions");
  const auto signs = signs_of_space(lower_case(header.field("space")));
  std::istringstream words(text);
  while (words >> std::ws && !words.eof()) {
    std::string word;
    if (words.peek() == '(') {
      std::getline(words, word, ')');
      const auto parts = numbers_in(file, "space directions", word);
      if (parts.empty() || parts.size() > 3)
        fail_file(file, "has directions of " + std::to_string(parts.size()) + " numbers");
      Direction direction{};
      for (size_t i = 0; i < parts.size(); ++i) direction[i] = parts[i] * (signs ? (*signs)[i] : 1);
      header.directions.emplace_back(direction);
    } else {
      words >> word;
      if (lower_case(word) != "none")
        fail_file(file, "space directions is '" + text.substr(0, 80) + "'");
      header.directions.emplace_back();
    }
  }
  if (!header.directions.empty() && header.directions.size() != header.sizes.size())
    fail_file(file, "has " + std::to_string(header.directions.size()) + " directions for " +
                        std::to_string(header.sizes.size()) + " axes");
  header.oriented = signs.has_value() && !header.directions.empty();
  const auto origin = numbers_in(file, "space origin", header.field("space origin"));
  for (size_t i = 0; i < std::min<size_t>(3, origin.size()); ++i)
    header.origin[i] = origin[i] * (signs ? (*signs)[i] : 1);
}

/// Which axes lie in space: those with a direction, else those of such a kind, else the first.
void find_space(const std::filesystem::path& file, NrrdHeader& header) {
  const size_t axes = header.sizes.size();
  std::vector<std::string> kinds;
  std::istringstream words(header.field("kinds"));
  for (std::string kind; words >> kind;) kinds.push_back(lower_case(kind));
  for (size_t axis = 0; axis < axes; ++axis) {
    bool in_space = axis < 3;
    if (!header.directions.empty()) {
      in_space = header.directions[axis].has_value();
    } else if (kinds.size() == axes) {
      in_space = kinds[axis] == "domain" || kinds[axis] == "space" || kinds[axis] == "???";
    }
    if (in_space) header.space.push_back(axis);
  }
  if (header.space.size() < 2 || header.space.size() > 3 || axes > header.space.size() + 1) {
    fail_file(file, "has " + std::to_string(axes) + " axes, " +
                        std::to_string(header.space.size()) +
                        " of them in space; two or three, and one of channels, are understood");
  }
}

NrrdHeader read_nrrd_header(const std::filesystem::path& file) {
  NrrdHeader header;
  bool first = true;
  header.text = read_text_header(
      file,
      [&](const std::string& line, TextHeader& into) {
        if (first && !line.starts_with("NRRD000")) fail_file(file, "is not a NRRD file");
        first = false;
        const size_t colon = line.find(": ");
        if (line.starts_with('#') || colon == std::string::npos) return;
        auto name = lower_case(trimmed(line.substr(0, colon)));
        if (name == "datafile") name = "data file";
        into.fields[name] = trimmed(line.substr(colon + 2));
      },
      [](const std::string& line) { return line.empty(); });
  if (first) fail_file(file, "is not a NRRD file");
  for (const char* needed : {"type", "dimension", "sizes", "encoding"})
    if (header.field(needed).empty()) fail_file(file, std::string("has no field `") + needed + "`");
  for (const char* skip : {"byte skip", "line skip", "byteskip", "lineskip"}) {
    if (header.field(skip, "0") != "0")
      fail_file(file, std::string("has a `") + skip + "`, which is not understood");
  }
  header.sizes = sizes_in(file, "sizes", header.field("sizes"));
  if (std::to_string(header.sizes.size()) != header.field("dimension"))
    fail_file(file, "says dimension " + header.field("dimension") + " and gives " +
                        std::to_string(header.sizes.size()) + " sizes");
  read_directions(file, header);
  header.spacings = numbers_in(file, "spacings", header.field("spacings"));
  find_space(file, header);
  return header;
}

NiftiHeader place_of(const std::filesystem::path& file, const NrrdHeader& header) {
  std::array<int64_t, 3> size = {1, 1, 1};
  std::array<double, 3> spacing = {1, 1, 1};
  Affine affine = {};
  for (size_t at = 0; at < 3; ++at) {
    affine[at][at] = 1;
    affine[at][3] = header.origin[at];
  }
  for (size_t at = 0; at < header.space.size(); ++at) {
    const size_t axis = header.space[at];
    size[at] = header.sizes[axis];
    if (!header.directions.empty()) {
      const auto& direction = *header.directions[axis];
      spacing[at] = std::hypot(direction[0], direction[1], direction[2]);
      for (size_t row = 0; row < 3; ++row) affine[row][at] = direction[row];
    } else if (axis < header.spacings.size() && std::isfinite(header.spacings[axis])) {
      spacing[at] = std::abs(header.spacings[axis]);
    }
    if (!std::isfinite(spacing[at]) || spacing[at] <= 0)
      fail_file(file, "has the spacing " + std::to_string(spacing[at]) + " along an axis");
  }
  return new_nifti_header(size, spacing,
                          header.oriented && header.space.size() == 3 ? &affine : nullptr);
}

torch::Tensor read_nrrd_voxels(const std::filesystem::path& file, const NrrdHeader& header) {
  const auto type = nrrd_type(file, lower_case(header.field("type")));
  const auto encoding = lower_case(header.field("encoding"));
  const bool packed = encoding == "gzip" || encoding == "gz";
  if (!packed && encoding != "raw")
    fail_file(file, "is encoded as '" + encoding + "'; raw and gzip are understood");
  const auto endian = lower_case(header.field("endian", "little"));
  if (endian != "little" && endian != "big") fail_file(file, "has the endian '" + endian + "'");
  const bool swapped = (endian == "big") != (std::endian::native == std::endian::big);

  int64_t count = 1;
  for (const int64_t size : header.sizes) count *= size;
  const auto beside = header.field("data file");
  if (beside.starts_with("LIST") || beside.find('%') != std::string::npos)
    fail_file(file, "has its voxels in several files, which is not understood");
  const auto where = beside.empty() ? file : file.parent_path() / beside;
  PackedFile bytes(where, beside.empty() ? header.text.end : 0, packed);
  return take_voxels(
      where, [&](char* to, size_t most) { return bytes.read(to, most); }, type, count, swapped);
}

std::string nrrd_vector(double x, double y, double z) {
  char text[96];
  std::snprintf(text, sizeof text, "(%.9g,%.9g,%.9g)", x, y, z);
  return text;
}

}  // namespace

bool is_nrrd_name(const std::filesystem::path& file) {
  const auto name = lower_case(file.extension().string());
  return name == ".nrrd" || name == ".nhdr";
}

torch::Tensor read_nrrd(const std::filesystem::path& file, NiftiHeader* place) {
  const auto header = read_nrrd_header(file);
  const auto there = place_of(file, header);
  auto voxels = read_nrrd_voxels(file, header);
  const size_t axes = header.sizes.size();
  voxels = voxels.view(std::vector<int64_t>(header.sizes.rbegin(), header.sizes.rend()));
  // the file's fastest axis is the tensor's last one
  std::vector<int64_t> order;
  for (size_t axis = 0; axis < axes; ++axis) {
    if (std::find(header.space.begin(), header.space.end(), axis) == header.space.end())
      order.push_back(static_cast<int64_t>(axes - 1 - axis));
  }
  const bool channels = !order.empty();
  for (auto axis = header.space.rbegin(); axis != header.space.rend(); ++axis)
    order.push_back(static_cast<int64_t>(axes - 1 - *axis));
  voxels = voxels.permute(order);
  if (!channels) voxels = voxels.unsqueeze(0);
  if (header.space.size() == 2) voxels = voxels.unsqueeze(1);
  if (place != nullptr) *place = there;
  return voxels.contiguous();
}

void write_nrrd(const std::filesystem::path& file, const torch::Tensor& given,
                const NiftiHeader& like) {
  TORCH_CHECK(given.dim() == 3, "write_nrrd: voxels must be [K, J, I], got ", given.sizes());
  const auto voxels = given.to(torch::kCPU).contiguous();
  std::ostringstream text;
  text << "NRRD0004\ntype: " << named_type("write_nrrd", voxels.scalar_type()).nrrd
       << "\ndimension: 3\n";
  if (like.oriented) text << "space: right-anterior-superior\n";
  text << "sizes: " << voxels.size(2) << " " << voxels.size(1) << " " << voxels.size(0) << "\n";
  if (like.oriented) {
    text << "space directions:";
    for (size_t axis = 0; axis < 3; ++axis)
      text << " " << nrrd_vector(like.affine[0][axis], like.affine[1][axis], like.affine[2][axis]);
    text << "\nspace origin: "
         << nrrd_vector(like.affine[0][3], like.affine[1][3], like.affine[2][3]) << "\n";
  } else {
    text << "spacings: " << like.spacing[0] << " " << like.spacing[1] << " " << like.spacing[2]
         << "\n";
  }
  text << "kinds: domain domain domain\nendian: little\nencoding: gzip\n\n";
  const std::string raw(static_cast<const char*>(voxels.const_data_ptr()), voxels.nbytes());
  write_atomically(file.string(), text.str() + packed_bytes(raw, Packing::kGzip));
}

}  // namespace serpentine
