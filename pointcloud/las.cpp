#include "pointcloud/las.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/las_layout.h"

namespace serpentine {
namespace {

constexpr int64_t kLasPiece = 262144;  // points in memory at a time

template <class Number>
Number at(const std::string& bytes, size_t byte) {
  return load_little<Number>(bytes.data() + byte);
}

std::string name_in(const char* text, size_t size) {
  return {text, static_cast<size_t>(std::find(text, text + size, '\0') - text)};
}

}  // namespace

LasFile::LasFile(const std::string& path) : file_(path) {
  read_header();
  add_standard_fields();
  read_records();
}

void LasFile::fail(uint64_t byte, const std::string& message) const {
  TORCH_CHECK(false, file_.path(), ": byte ", byte, ": ", message);
}

void LasFile::read_header() {
  if (file_.size() < las::kHeader12) fail(file_.size(), "a LAS header has 227 bytes at least");
  header_ = file_.read_text(las::kHeader12, 0);
  if (header_.compare(0, 4, "LASF") != 0) fail(0, "a LAS file begins with 'LASF'");
  minor_ = at<uint8_t>(header_, las::kMinor);
  if (at<uint8_t>(header_, las::kMajor) != 1 || minor_ > 4)
    fail(las::kMajor, "the version must be 1.0 to 1.4, got " +
                          std::to_string(at<uint8_t>(header_, las::kMajor)) + "." +
                          std::to_string(minor_));
  const auto code = at<uint8_t>(header_, las::kFormat);
  TORCH_CHECK((code & 0xC0U) == 0, file_.path(),
              ": is compressed (LAZ); unpack it first: pdal translate in.laz out.las, or "
              "las2las -i in.laz -o out.las");
  format_ = code;
  if (format_ >= static_cast<int>(las::kRecordBytes.size()))
    fail(las::kFormat, "the point format must be 0 to 10, got " + std::to_string(format_));
  header_size_ = at<uint16_t>(header_, las::kHeaderSize);
  const size_t least = minor_ == 4 ? las::kHeader14 : minor_ == 3 ? las::kHeader13 : las::kHeader12;
  if (header_size_ < least || header_size_ > file_.size())
    fail(las::kHeaderSize, "a header of version 1." + std::to_string(minor_) + " has " +
                               std::to_string(least) + " bytes at least, this one says " +
                               std::to_string(header_size_));
  header_ = file_.read_text(header_size_, 0);
  data_at_ = at<uint32_t>(header_, las::kDataAt);
  vlrs_ = at<uint32_t>(header_, las::kVlrs);
  record_ = at<uint16_t>(header_, las::kRecord);
  standard_ = las::kRecordBytes[format_];
  if (record_ < standard_)
    fail(las::kRecord, "records of point format " + std::to_string(format_) + " have " +
                           std::to_string(standard_) + " bytes at least, this file's have " +
                           std::to_string(record_));
  uint64_t count = at<uint32_t>(header_, las::kLegacyCount);
  if (minor_ == 4) {
    const auto wide = at<uint64_t>(header_, las::kCount);
    if (wide > 0) count = wide;
    evlrs_at_ = at<uint64_t>(header_, las::kEvlrsAt);
  }
  if (data_at_ < header_size_ || data_at_ > file_.size())
    fail(las::kDataAt, "the points begin at byte " + std::to_string(data_at_) +
                           ", but the header has " + std::to_string(header_size_) +
                           " bytes and the file " + std::to_string(file_.size()));
  if (count > (file_.size() - data_at_) / record_)
    fail(data_at_, std::to_string(count) + " points of " + std::to_string(record_) +
                       " bytes were expected, but the file ends at byte " +
                       std::to_string(file_.size()));
  count_ = static_cast<int64_t>(count);
  for (size_t axis = 0; axis < 3; ++axis) {
    scale_[axis] = at<double>(header_, las::kScale + 8 * axis);
    offset_[axis] = at<double>(header_, las::kOffset + 8 * axis);
    if (!std::isfinite(scale_[axis]) || scale_[axis] == 0 || !std::isfinite(offset_[axis]))
      fail(las::kScale + 8 * axis, "the scale must not be 0, and scale and offset be finite");
  }
}

void LasFile::add_standard_fields() {
  for (const auto& part : las::kParts) {
    const int begin = part.at[format_];
    if (begin < 0) continue;
    LasField field;
    field.name = part.name;
    field.at = static_cast<size_t>(begin);
    field.type = part.type;
    field.first_bit = format_ >= 6 ? part.bits14.first : part.bits12.first;
    field.bits = format_ >= 6 ? part.bits14.count : part.bits12.count;
    if (std::string_view(part.name) == "scan_angle" && format_ >= 6) {
      field.type = NumberType::kI16;
      field.scale = las::kAngleStep;
    }
    fields_.push_back(field);
  }
}

void LasFile::read_records() {
  uint64_t begin = header_size_;
  for (uint32_t i = 0; i < vlrs_; ++i) {
    if (data_at_ - begin < las::kVlrHeader)
      fail(begin, "variable length record " + std::to_string(i + 1) + " of " +
                      std::to_string(vlrs_) + " does not fit before the points");
    const std::string head = file_.read_text(las::kVlrHeader, begin);
    const size_t size = at<uint16_t>(head, las::kVlrSize);
    if (size > data_at_ - begin - las::kVlrHeader)
      fail(begin, "a variable length record of " + std::to_string(size) +
                      " bytes does not fit before the points");
    const bool spec = name_in(head.data() + 2, 16) == "LASF_Spec";
    if (spec && at<uint16_t>(head, las::kVlrId) == las::kExtraBytes && extra_at_ == 0) {
      extra_at_ = begin;
      extra_size_ = size;
      read_extra_bytes(begin + las::kVlrHeader, size);
    }
    begin += las::kVlrHeader + size;
  }
}

void LasFile::read_extra_bytes(uint64_t begin, size_t size) {
  const std::string all = file_.read_text(size, begin);
  size_t place = standard_;
  for (size_t byte = 0; byte + las::kDescriptor <= size; byte += las::kDescriptor) {
    const auto type = static_cast<size_t>(at<uint8_t>(all, byte + 2));
    const auto options = static_cast<size_t>(at<uint8_t>(all, byte + 3));
    const std::string name = name_in(all.data() + byte + 4, 32);
    if (type > 3 * las::kExtraTypes.size())
      fail(begin + byte, "extra bytes '" + name + "' are of type " + std::to_string(type) +
                             ", which the specification does not know");
    const size_t parts = type == 0 ? 1 : (type - 1) / las::kExtraTypes.size() + 1;
    const NumberType number =
        type == 0 ? NumberType::kU8 : las::kExtraTypes[(type - 1) % las::kExtraTypes.size()];
    const size_t bytes = type == 0 ? options : bytes_of(number) * parts;
    if (bytes > record_ - place)
      fail(begin + byte, "extra bytes '" + name + "' end behind the record of " +
                             std::to_string(record_) + " bytes");
    for (size_t part = 0; part < parts && type > 0; ++part) {
      LasField field;
      field.name = parts == 1 ? name : name + "_" + std::to_string(part);
      field.at = place + part * bytes_of(number);
      field.type = number;
      if (options & 8U) field.scale = at<double>(all, byte + 112 + 8 * part);
      if (options & 16U) field.offset = at<double>(all, byte + 136 + 8 * part);
      fields_.push_back(field);
    }
    place += bytes;
  }
}

const LasField* LasFile::find(const std::string& name) const {
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [&](const auto& field) { return field.name == name; });
  return found == fields_.end() ? nullptr : &*found;
}

std::string LasFile::rows(int64_t first, int64_t n) const {
  SERPENTINE_CHECK(first >= 0 && n >= 0 && first <= count_ && n <= count_ - first, file_.path(),
                   "has points 0 to ", count_, ", asked for ", first, " to ", first + n);
  return file_.read_text(static_cast<size_t>(n) * record_,
                         data_at_ + static_cast<uint64_t>(first) * record_);
}

at::Tensor LasFile::points(int64_t first, int64_t n) const {
  const std::string bytes = rows(first, n);
  std::vector<at::Tensor> axes;
  axes.reserve(3);
  for (size_t axis = 0; axis < 3; ++axis) {
    axes.push_back(
        read_column(bytes.data() + 4 * axis, record_, n, NumberType::kI32, false).to(at::kDouble) *
            scale_[axis] +
        offset_[axis]);
  }
  return at::stack(axes, 1);
}

at::Tensor LasFile::values(const LasField& field, int64_t first, int64_t n) const {
  const std::string bytes = rows(first, n);
  at::Tensor stored = read_column(bytes.data() + field.at, record_, n, field.type, false);
  if (field.bits > 0) {
    const at::Tensor wide = stored.to(at::kLong);
    return at::bitwise_and(at::bitwise_right_shift(wide, field.first_bit),
                           static_cast<int64_t>((1U << static_cast<unsigned>(field.bits)) - 1U))
        .to(at::kByte);
  }
  if (field.scale == 1 && field.offset == 0) return stored;
  return stored.to(at::kDouble) * field.scale + field.offset;
}

PointCloud read_las(const std::string& path) {
  const LasFile file(path);
  PointCloud cloud;
  cloud.stored = NumberType::kF64;
  std::vector<at::Tensor> points;
  std::vector<std::vector<at::Tensor>> values(file.fields().size());
  for (int64_t first = 0; first < file.size(); first += kLasPiece) {
    const int64_t n = std::min(kLasPiece, file.size() - first);
    points.push_back(file.points(first, n));
    for (size_t i = 0; i < values.size(); ++i)
      values[i].push_back(file.values(file.fields()[i], first, n));
  }
  cloud.points = points.empty() ? at::empty({0, 3}, at::kDouble) : at::cat(points);
  for (size_t i = 0; i < values.size(); ++i) {
    const LasField& field = file.fields()[i];
    const bool scaled = field.scale != 1 || field.offset != 0;
    const NumberType type = scaled ? NumberType::kF64 : field.type;
    cloud.set(field.name,
              values[i].empty() ? at::empty({0}, at::TensorOptions(tensor_type(type)))
                                : at::cat(values[i]),
              type);
  }
  return cloud;
}

}  // namespace serpentine
