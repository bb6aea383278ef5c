// DICOM files of the tests, byte by byte: no library that we test has written them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine::testing {

/// A DICOM file, little-endian with explicit types (PS3.5 7.1.2, PS3.10 7.1).
class DicomBytes {
 public:
  void add(uint16_t group, uint16_t element, const std::string& type, std::string value) {
    if (value.size() % 2 == 1) value += type == "UI" ? '\0' : ' ';
    number<uint16_t>(group);
    number<uint16_t>(element);
    bytes_ += type;
    if (type == "OB" || type == "OW") {
      number<uint16_t>(0);
      number<uint32_t>(static_cast<uint32_t>(value.size()));
    } else {
      number<uint16_t>(static_cast<uint16_t>(value.size()));
    }
    bytes_ += value;
  }
  void add(uint16_t group, uint16_t element, uint16_t value) {
    add(group, element, "US", std::string(reinterpret_cast<const char*>(&value), 2));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  std::string bytes_;
};

struct SliceFile {
  std::string series = "1.2.3.4", instance = "1.2.3.4.5", reference = "1.2.3.52";
  std::string position = "10\\20\\30", orientation = "1\\0\\0\\0\\1\\0";
  std::string spacing = "2\\0.5", slope = "2", intercept = "-1000";
  uint16_t rows = 2, columns = 3, samples = 1, frames = 1;
  int16_t first = 0;  // pixels count up from here
};

inline std::string dicom_bytes(const SliceFile& slice) {
  DicomBytes meta, data;
  const std::string image_class = "1.2.840.10008.5.1.4.1.1.2";  // CT
  meta.add(0x0002, 0x0001, "OB", std::string("\0\1", 2));
  meta.add(0x0002, 0x0002, "UI", image_class);
  meta.add(0x0002, 0x0003, "UI", slice.instance);
  meta.add(0x0002, 0x0010, "UI", "1.2.840.10008.1.2.1");
  DicomBytes length;
  const auto bytes = static_cast<uint32_t>(meta.bytes().size());
  length.add(0x0002, 0x0000, "UL", std::string(reinterpret_cast<const char*>(&bytes), 4));
  data.add(0x0008, 0x0016, "UI", image_class);
  data.add(0x0008, 0x0018, "UI", slice.instance);
  data.add(0x0008, 0x0060, "CS", "CT");
  data.add(0x0010, 0x0010, "PN", "Snake^Sam");
  data.add(0x0010, 0x0020, "LO", "P 7");
  data.add(0x0018, 0x0050, "DS", "4");
  data.add(0x0020, 0x000d, "UI", "1.2.3");
  data.add(0x0020, 0x000e, "UI", slice.series);
  data.add(0x0020, 0x0032, "DS", slice.position);
  data.add(0x0020, 0x0037, "DS", slice.orientation);
  if (!slice.reference.empty()) data.add(0x0020, 0x0052, "UI", slice.reference);
  data.add(0x0028, 0x0002, slice.samples);
  data.add(0x0028, 0x0004, "CS", slice.samples == 1 ? "MONOCHROME2" : "RGB");
  if (slice.samples > 1) data.add(0x0028, 0x0006, 0);
  if (slice.frames > 1) data.add(0x0028, 0x0008, "IS", std::to_string(slice.frames));
  data.add(0x0028, 0x0010, slice.rows);
  data.add(0x0028, 0x0011, slice.columns);
  if (!slice.spacing.empty()) data.add(0x0028, 0x0030, "DS", slice.spacing);
  data.add(0x0028, 0x0100, 16);
  data.add(0x0028, 0x0101, 16);
  data.add(0x0028, 0x0102, 15);
  data.add(0x0028, 0x0103, 1);
  data.add(0x0028, 0x1052, "DS", slice.intercept);
  data.add(0x0028, 0x1053, "DS", slice.slope);
  std::vector<int16_t> pixels(
      static_cast<size_t>(slice.rows * slice.columns * slice.samples * slice.frames));
  for (size_t i = 0; i < pixels.size(); ++i)
    pixels[i] = static_cast<int16_t>(slice.first + static_cast<int16_t>(i));
  data.add(0x7fe0, 0x0010, "OW",
           std::string(reinterpret_cast<const char*>(pixels.data()), 2 * pixels.size()));
  return std::string(128, '\0') + "DICM" + length.bytes() + meta.bytes() + data.bytes();
}

}  // namespace serpentine::testing
