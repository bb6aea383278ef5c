// One DICOM file through GDCM; everything about a series is in dicom.cpp.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <gdcmImageReader.h>
#include <gdcmReader.h>
#include <gdcmStringFilter.h>
#include <gdcmTrace.h>

#include "segmentation/dicom.h"
#include "segmentation/file_error.h"
#include "segmentation/voxels.h"

namespace serpentine {
namespace {

/// GDCM writes to the terminal otherwise; what goes wrong is said by the exceptions here.
void quiet_gdcm() {
  static std::once_flag once;
  std::call_once(once, [] {
    gdcm::Trace::DebugOff();
    gdcm::Trace::WarningOff();
    gdcm::Trace::ErrorOff();
  });
}

/// The numbers of "0.5\0.5"; empty where one of them is none.
std::vector<double> dicom_numbers(const std::string& text) {
  std::vector<double> numbers;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\\', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    char* stop = nullptr;
    numbers.push_back(std::strtod(word.c_str(), &stop));
    if (stop == word.c_str()) return {};
    begin = end + 1;
  }
  return numbers;
}

template <size_t Count>
std::optional<std::array<double, Count>> exactly(const std::vector<double>& numbers) {
  if (numbers.size() != Count) return std::nullopt;
  std::array<double, Count> made{};
  std::copy(numbers.begin(), numbers.end(), made.begin());
  return made;
}

VoxelType gdcm_type(const std::string& file, const gdcm::PixelFormat& format) {
  switch (format.GetScalarType()) {
    case gdcm::PixelFormat::INT8:
      return VoxelType::kInt8;
    case gdcm::PixelFormat::UINT8:
      return VoxelType::kUint8;
    case gdcm::PixelFormat::INT16:
      return VoxelType::kInt16;
    case gdcm::PixelFormat::UINT16:
      return VoxelType::kUint16;
    case gdcm::PixelFormat::INT32:
      return VoxelType::kInt32;
    case gdcm::PixelFormat::UINT32:
      return VoxelType::kUint32;
    case gdcm::PixelFormat::FLOAT32:
      return VoxelType::kFloat;
    case gdcm::PixelFormat::FLOAT64:
      return VoxelType::kDouble;
    default:
      fail_file(file, std::string("has pixels of the type ") + format.GetScalarTypeAsString() +
                          ", which is not understood");
  }
}

std::string file_bytes(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// GDCM ends the program for a file that stops in its first group (PS3.10 7.1).
void check_first_group(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string head(144, '\0');
  stream.read(head.data(), 144);
  uint32_t length = 0;
  std::memcpy(&length, head.data() + 140, sizeof length);
  const bool there = stream.gcount() == 144;
  const bool counted = head.substr(132, 6) == std::string("\2\0\0\0UL", 6);
  if (!there || (counted && std::filesystem::file_size(file) < 144 + uint64_t{length} + 8))
    fail_file(file, "is cut off");
}

/// GDCM fills with zeros what plain pixels lack at the end.
void check_last_pixels(const std::string& file, size_t wanted) {
  wanted += wanted % 2;
  const std::string bytes = file_bytes(file), tag("\xe0\x7f\x10\0", 4);
  const auto size = static_cast<uint32_t>(wanted);
  const std::string length(reinterpret_cast<const char*>(&size), sizeof size);
  for (const auto& type : {std::string("OW\0\0", 4), std::string("OB\0\0", 4), std::string()}) {
    const std::string begin = tag + type + length;
    const size_t at = bytes.find(begin);
    if (at == std::string::npos) continue;
    if (bytes.size() - at - begin.size() < wanted)
      fail_file(file, "is cut off: " + std::to_string(bytes.size() - at - begin.size()) + " of " +
                          std::to_string(wanted) + " bytes of pixels are there");
    return;
  }
}

}  // namespace

bool dicom_available() { return true; }

std::optional<DicomSlice> read_dicom_slice(const std::filesystem::path& file) {
  quiet_gdcm();
  check_first_group(file);
  gdcm::Reader reader;
  reader.SetFileName(file.c_str());
  if (!reader.ReadUpToTag(gdcm::Tag(0x7fe0, 0x0010))) fail_file(file, "cannot be read as DICOM");
  gdcm::StringFilter strings;
  strings.SetFile(reader.GetFile());
  const auto text = [&](uint16_t group, uint16_t element) {
    std::string value = strings.ToString(gdcm::Tag(group, element));
    while (!value.empty() && (value.back() == ' ' || value.back() == '\0')) value.pop_back();
    return value;
  };
  const auto number = [&](uint16_t group, uint16_t element, double otherwise) {
    const auto found = dicom_numbers(text(group, element));
    return found.empty() ? otherwise : found[0];
  };
  DicomSlice slice;
  slice.file = file.string();
  slice.rows = static_cast<int64_t>(number(0x0028, 0x0010, 0));
  slice.columns = static_cast<int64_t>(number(0x0028, 0x0011, 0));
  if (slice.rows < 1 || slice.columns < 1) return std::nullopt;
  slice.series = text(0x0020, 0x000e);
  slice.modality = text(0x0008, 0x0060);
  slice.frames = static_cast<int64_t>(number(0x0028, 0x0008, 1));
  slice.samples = static_cast<int64_t>(number(0x0028, 0x0002, 1));
  slice.position = exactly<3>(dicom_numbers(text(0x0020, 0x0032)));
  slice.orientation = exactly<6>(dicom_numbers(text(0x0020, 0x0037)));
  slice.spacing = exactly<2>(dicom_numbers(text(0x0028, 0x0030)));
  slice.thickness = number(0x0018, 0x0088, number(0x0018, 0x0050, 0));
  return slice;
}

void read_dicom_pixels(const DicomSlice& slice, float* to) {
  quiet_gdcm();
  gdcm::ImageReader reader;
  reader.SetFileName(slice.file.c_str());
  if (!reader.Read()) fail_file(slice.file, "its pixels cannot be read; is the file cut off?");
  const auto& image = reader.GetImage();
  const auto type = gdcm_type(slice.file, image.GetPixelFormat());
  const auto count = static_cast<size_t>(slice.rows * slice.columns);
  std::vector<char> bytes(image.GetBufferLength());
  if (bytes.size() != count * voxel_bytes(type)) {
    fail_file(slice.file, "holds " + std::to_string(bytes.size()) + " bytes of pixels where " +
                              std::to_string(count * voxel_bytes(type)) + " belong");
  }
  if (!reader.GetFile().GetHeader().GetDataSetTransferSyntax().IsEncapsulated())
    check_last_pixels(slice.file, bytes.size());
  if (!image.GetBuffer(bytes.data()))
    fail_file(slice.file, "its pixels cannot be decoded; is the file cut off?");
  voxels_to_float(type, bytes.data(), to, count, false);
  const auto slope = static_cast<float>(image.GetSlope()),
             intercept = static_cast<float>(image.GetIntercept());
  if (slope == 1 && intercept == 0) return;
  for (size_t i = 0; i < count; ++i) to[i] = to[i] * slope + intercept;
}

}  // namespace serpentine
