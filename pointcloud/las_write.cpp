// Writing LAS: copies with new classes, and new files of point formats 6 and 7.
#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "pointcloud/las.h"
#include "pointcloud/las_layout.h"

namespace serpentine {
namespace {

constexpr int64_t kLasWritePiece = 262144;               // points in memory at a time
constexpr uint64_t kLasWriteBlock = uint64_t{1} << 24U;  // bytes that are copied at a time

template <class Number>
void put(std::string& bytes, size_t byte, Number value) {
  std::memcpy(bytes.data() + byte, &value, sizeof value);
}

template <class Number>
Number get(const std::string& bytes, size_t byte) {
  return load_little<Number>(bytes.data() + byte);
}

void copy(const InputFile& from, uint64_t begin, uint64_t end, AtomicFile& to) {
  for (; begin < end; begin += std::min(kLasWriteBlock, end - begin))
    to.write(from.read_text(std::min(kLasWriteBlock, end - begin), begin));
}

// what `of` gives for some points, as bytes
at::Tensor checked(const std::function<at::Tensor(int64_t, int64_t)>& of, int64_t first, int64_t n,
                   int64_t most, const std::string& who) {
  const at::Tensor labels = of(first, n).to(at::kCPU, at::kLong).contiguous();
  SERPENTINE_CHECK(labels.dim() == 1 && labels.size(0) == n, who, "one class a point is needed, ",
                   n, " of them, got ", labels.sizes());
  if (n == 0) return labels;
  const auto least = labels.min().item<int64_t>(), greatest = labels.max().item<int64_t>();
  SERPENTINE_CHECK(least >= 0 && greatest <= most, who, "the field holds classes 0 to ", most,
                   ", got ", least < 0 ? least : greatest,
                   most == 31 ? "; write them to a new field" : "");
  return labels;
}

std::string descriptor(const std::string& name, size_t type, size_t options) {
  std::string bytes(las::kDescriptor, '\0');
  bytes[2] = static_cast<char>(type);
  bytes[3] = static_cast<char>(options);
  bytes.replace(4, name.size(), name);
  return bytes;
}

std::string extra_record(const std::string& descriptors) {
  std::string bytes(las::kVlrHeader, '\0');
  bytes.replace(2, 9, "LASF_Spec");
  put(bytes, las::kVlrId, las::kExtraBytes);
  SERPENTINE_CHECK(descriptors.size() <= UINT16_MAX, "LAS", "there are too many extra fields");
  put(bytes, las::kVlrSize, static_cast<uint16_t>(descriptors.size()));
  return bytes + descriptors;
}

size_t extra_type(NumberType type) {
  return std::find(las::kExtraTypes.begin(), las::kExtraTypes.end(), type) -
         las::kExtraTypes.begin() + 1;
}

constexpr size_t kName = 32;  // bytes of an extra field's name

}  // namespace

void LasFile::write_classes(const std::string& path,
                            const std::function<at::Tensor(int64_t, int64_t)>& of) const {
  const LasField& field = *find("classification");
  AtomicFile out(path);
  copy(file_, 0, data_at_, out);
  for (int64_t first = 0; first < count_; first += kLasWritePiece) {
    const int64_t n = std::min(kLasWritePiece, count_ - first);
    const at::Tensor labels = checked(of, first, n, most_classes(), path);
    std::string bytes = rows(first, n);
    const auto mask = field.bits > 0 ? (1U << static_cast<unsigned>(field.bits)) - 1U : 255U;
    for (int64_t i = 0; i < n; ++i) {
      char& byte = bytes[static_cast<size_t>(i) * record_ + field.at];
      const auto kept = static_cast<unsigned char>(byte) & ~mask;
      byte = static_cast<char>(kept | static_cast<unsigned>(labels.const_data_ptr<int64_t>()[i]));
    }
    out.write(bytes);
  }
  copy(file_, data_at_ + static_cast<uint64_t>(count_) * record_, file_.size(), out);
  out.commit();
}

void LasFile::write_new_field(const std::string& path, const std::string& name,
                              const std::function<at::Tensor(int64_t, int64_t)>& of) const {
  SERPENTINE_CHECK(!name.empty() && name.size() < kName, path, "a new field's name has 1 to ",
                   kName - 1, " bytes, got '", name, "'");
  SERPENTINE_CHECK(!find(name), path, "the file has a field '", name, "' already");

  // bytes that nothing describes are described as such, so that the new one is found behind them
  std::string descriptors;
  size_t described = standard_;
  if (extra_at_ > 0) {
    const size_t whole = extra_size_ / las::kDescriptor * las::kDescriptor;
    descriptors = file_.read_text(whole, extra_at_ + las::kVlrHeader);
    for (size_t byte = 0; byte < whole; byte += las::kDescriptor) {
      const auto type = static_cast<size_t>(get<uint8_t>(descriptors, byte + 2));
      const size_t types = las::kExtraTypes.size();
      described += type == 0
                       ? get<uint8_t>(descriptors, byte + 3)
                       : bytes_of(las::kExtraTypes[(type - 1) % types]) * ((type - 1) / types + 1);
    }
  }
  while (described < record_) {
    const size_t some = std::min<size_t>(record_ - described, UINT8_MAX);
    descriptors += descriptor("unknown", 0, some);
    described += some;
  }
  descriptors += descriptor(name, extra_type(NumberType::kU8), 0);
  const std::string record = extra_record(descriptors);
  const uint64_t removed = extra_at_ > 0 ? las::kVlrHeader + extra_size_ : 0;
  const uint64_t moved = record.size() - removed;  // may wrap: unsigned sums come out right
  const uint64_t rest = data_at_ + static_cast<uint64_t>(count_) * record_;
  SERPENTINE_CHECK(record_ < UINT16_MAX, path, "records cannot grow beyond 65535 bytes");

  std::string header = header_;
  put(header, las::kRecord, static_cast<uint16_t>(record_ + 1));
  put(header, las::kDataAt, static_cast<uint32_t>(data_at_ + moved));
  if (extra_at_ == 0) put(header, las::kVlrs, vlrs_ + 1);
  for (const size_t byte : {las::kWaveformAt, las::kEvlrsAt}) {
    const bool exists = minor_ >= (byte == las::kEvlrsAt ? 4 : 3);
    const uint64_t begin = exists ? get<uint64_t>(header, byte) : 0;
    if (begin >= rest) put(header, byte, begin + moved + static_cast<uint64_t>(count_));
  }
  AtomicFile out(path);
  out.write(header);
  out.write(record);
  copy(file_, header_size_, extra_at_ > 0 ? extra_at_ : data_at_, out);
  if (extra_at_ > 0) copy(file_, extra_at_ + removed, data_at_, out);
  for (int64_t first = 0; first < count_; first += kLasWritePiece) {
    const int64_t n = std::min(kLasWritePiece, count_ - first);
    const at::Tensor labels = checked(of, first, n, UINT8_MAX, path);
    const std::string bytes = rows(first, n);
    std::string wider;
    wider.reserve(bytes.size() + static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      wider.append(bytes, static_cast<size_t>(i) * record_, record_);
      wider += static_cast<char>(labels.const_data_ptr<int64_t>()[i]);
    }
    out.write(wider);
  }
  copy(file_, rest, file_.size(), out);
  out.commit();
}

namespace {

// the fields of a cloud: those that the point format names, and the others as extra bytes
struct Plan {
  std::vector<std::pair<const CloudField*, LasField>> columns;
  std::string descriptors;
  size_t record = 0;
};

Plan plan_of(const PointCloud& cloud, int format) {
  Plan plan;
  plan.record = las::kRecordBytes[format];
  for (const auto& field : cloud.fields) {
    SERPENTINE_CHECK(field.values.dim() == 1, "LAS", "the field '", field.name,
                     "' has several columns; write each as a field of its own");
    LasField to;
    to.name = field.name;
    const auto known = std::find_if(las::kParts.begin(), las::kParts.end(), [&](const auto& part) {
      return part.name == field.name && part.at[format] >= 0;
    });
    if (known != las::kParts.end()) {
      to.at = static_cast<size_t>(known->at[format]);
      to.type = known->type;
      to.first_bit = known->bits14.first;
      to.bits = known->bits14.count;
      if (field.name == "scan_angle") {
        to.type = NumberType::kI16;
        to.scale = las::kAngleStep;
      }
    } else {
      SERPENTINE_CHECK(field.name.size() < kName, "LAS", "the field name '", field.name,
                       "' has more than ", kName - 1, " bytes");
      to.at = plan.record;
      to.type = field.type;
      plan.record += bytes_of(field.type);
      plan.descriptors += descriptor(field.name, extra_type(field.type), 0);
    }
    plan.columns.emplace_back(&field, to);
  }
  SERPENTINE_CHECK(plan.record <= UINT16_MAX, "LAS", "a point may have 65535 bytes, not ",
                   plan.record);
  return plan;
}

void put_column(const CloudField& field, const LasField& to, std::string& rows, size_t record) {
  char* begin = rows.data() + to.at;
  if (to.bits == 0) {
    const at::Tensor stored =
        to.scale == 1 ? field.values : (field.values.to(at::kDouble) / to.scale).round();
    write_column(stored, begin, record, to.type, false);
    return;
  }
  const auto most = static_cast<int64_t>((1U << static_cast<unsigned>(to.bits)) - 1U);
  const at::Tensor whole = field.values.to(at::kLong).clamp(0, most).contiguous();
  for (int64_t i = 0; i < whole.numel(); ++i)
    begin[static_cast<size_t>(i) * record] =
        static_cast<char>(static_cast<unsigned char>(begin[static_cast<size_t>(i) * record]) |
                          static_cast<unsigned>(whole.const_data_ptr<int64_t>()[i])
                              << static_cast<unsigned>(to.first_bit));
}

}  // namespace

void write_las(const std::string& path, const PointCloud& cloud, double step) {
  SERPENTINE_CHECK(step > 0, path, "the step of places must be above 0, got ", step);
  const bool colour = cloud.find("red") && cloud.find("green") && cloud.find("blue");
  const int format = colour ? 7 : 6;
  const Plan plan = plan_of(cloud, format);
  const std::string record = plan.descriptors.empty() ? "" : extra_record(plan.descriptors);
  const int64_t count = cloud.size();
  std::string header(las::kHeader14, '\0');
  header.replace(0, 4, "LASF");
  header.replace(58, 10, "serpentine");
  header[6] = 16;  // coordinate systems are WKT, as format 6 and later ask
  header[las::kMajor] = 1;
  header[las::kMinor] = 4;
  put(header, las::kHeaderSize, static_cast<uint16_t>(las::kHeader14));
  put(header, las::kDataAt, static_cast<uint32_t>(las::kHeader14 + record.size()));
  put(header, las::kVlrs, static_cast<uint32_t>(record.empty() ? 0 : 1));
  header[las::kFormat] = static_cast<char>(format);
  put(header, las::kRecord, static_cast<uint16_t>(plan.record));
  put(header, las::kCount, static_cast<uint64_t>(count));
  std::string rows(static_cast<size_t>(count) * plan.record, '\0');
  for (int64_t axis = 0; axis < 3; ++axis) {
    const at::Tensor along = cloud.points.select(1, axis);
    const double least = count > 0 ? along.min().item<double>() : 0,
                 most = count > 0 ? along.max().item<double>() : 0;
    SERPENTINE_CHECK(std::isfinite(least) && std::isfinite(most), path,
                     "places must be finite; leave out the others first");
    const double offset = std::floor(least);
    SERPENTINE_CHECK((most - offset) / step < INT32_MAX, path, "a step of ", step,
                     " is too fine for places from ", least, " to ", most);
    put(header, las::kScale + 8 * axis, step);
    put(header, las::kOffset + 8 * axis, offset);
    put(header, las::kBounds + 16 * axis, most);
    put(header, las::kBounds + 16 * axis + 8, least);
    write_column(((along - offset) / step).round(), rows.data() + 4 * axis, plan.record,
                 NumberType::kI32, false);
  }
  for (const auto& [field, to] : plan.columns) put_column(*field, to, rows, plan.record);
  AtomicFile out(path);
  out.write(header + record);
  out.write(rows);
  out.commit();
}

}  // namespace serpentine
