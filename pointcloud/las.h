// LAS 1.2 to 1.4, the format of airborne and mobile laser scans.
//
// ASPRS, "LAS Specification 1.4 - R15" (2019). Files are read and written in pieces, so that memory
// does not grow with them, and what is not understood is copied byte for byte.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/bytes.h"
#include "pointcloud/cloud.h"

namespace serpentine {

/// A number in every point record, or some bits of a byte.
struct LasField {
  std::string name;
  size_t at = 0;  // byte in the record
  NumberType type = NumberType::kU8;
  int first_bit = 0, bits = 0;   // bits 0: the whole number
  double scale = 1, offset = 0;  // of extra bytes: value = stored * scale + offset
};

/// An open LAS file. Errors are c10::Error with the file and the byte.
class LasFile {
 public:
  /// Reads the header, the variable length records and what extra bytes mean. A .laz file is
  /// refused with the command that unpacks it.
  explicit LasFile(const std::string& path);

  int64_t size() const { return count_; }  // points
  int format() const { return format_; }   // 0..10
  const std::array<double, 3>& scale() const { return scale_; }
  const std::array<double, 3>& offset() const { return offset_; }
  const std::vector<LasField>& fields() const { return fields_; }
  const LasField* find(const std::string& name) const;

  /// float64 [n, 3] of the points `first` to `first + n`.
  at::Tensor points(int64_t first, int64_t n) const;
  /// [n] of one field; scaled extra bytes are float64.
  at::Tensor values(const LasField& field, int64_t first, int64_t n) const;

  /// The largest class that the classification field of this format holds: 31 or 255.
  int64_t most_classes() const { return format_ >= 6 ? 255 : 31; }

  /// Copies the file to `path` with new classes: of(first, n) gives int64 [n]. Everything else
  /// stays, byte for byte. Throws for a class that the field cannot hold.
  void write_classes(const std::string& path,
                     const std::function<at::Tensor(int64_t first, int64_t n)>& of) const;

  /// The same into a new field of extra bytes, one unsigned byte, called `name`: records grow by a
  /// byte and a variable length record says so; the classification stays.
  void write_new_field(const std::string& path, const std::string& name,
                       const std::function<at::Tensor(int64_t first, int64_t n)>& of) const;

 private:
  void read_header();
  void read_records();
  void read_extra_bytes(uint64_t at, size_t size);
  void add_standard_fields();
  std::string rows(int64_t first, int64_t n) const;
  [[noreturn]] void fail(uint64_t byte, const std::string& message) const;

  InputFile file_;
  std::string header_;
  int minor_ = 0, format_ = 0;
  uint64_t header_size_ = 0, data_at_ = 0, evlrs_at_ = 0;
  size_t record_ = 0, standard_ = 0;  // bytes of a record, and of those that the format names
  uint32_t vlrs_ = 0;
  int64_t count_ = 0;
  std::array<double, 3> scale_{}, offset_{};
  std::vector<LasField> fields_;
  uint64_t extra_at_ = 0;  // the record that describes extra bytes; 0: there is none
  size_t extra_size_ = 0;
};

/// A whole file in memory, fields under the names that the specification and PDAL use.
PointCloud read_las(const std::string& path);

/// A new LAS 1.4 file of point format 6, or 7 with red, green and blue; places are kept to `step`
/// (in their unit). Of the fields: intensity, classification, return_number, number_of_returns,
/// gps_time, point_source_id, user_data, and the colours; others become extra bytes.
void write_las(const std::string& path, const PointCloud& cloud, double step = 0.001);

}  // namespace serpentine
