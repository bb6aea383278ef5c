// What a DICOM-SEG file holds, without LibTorch's or DCMTK's types.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace serpentine {

struct SegContents {
  struct Segment {
    std::string name;
    std::array<int, 3> colour{};  // red, green, blue in 0..255
  };
  std::vector<std::string> sources;  // DICOM files, one a slice, along their normal
  int64_t rows = 0, columns = 0;
  double between = 0;  // millimetres from slice to slice; 0: there is one
  std::vector<Segment> segments;
  /// Writes rows x columns bytes, 0 or 1; false where all are 0.
  std::function<bool(size_t segment, size_t slice, uint8_t* pixels)> frame;
};

bool dicom_seg_available();
/// Throws what to install where the build cannot write one.
void check_dicom_seg();
/// Appears whole or not at all. Throws "FILE: why".
void write_seg_file(const std::string& file, const SegContents& contents);

}  // namespace serpentine
