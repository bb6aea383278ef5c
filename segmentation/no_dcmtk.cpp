// DICOM-SEG in a build without DCMTK: says how to get it.
#include <stdexcept>

#include "segmentation/seg_file.h"

namespace serpentine {

bool dicom_seg_available() { return false; }

void check_dicom_seg() {
  throw std::runtime_error(
      "this build writes no DICOM-SEG (install libdcmtk-dev and configure with "
      "-DSERPENTINE_DCMTK=ON)");
}

void write_seg_file(const std::string&, const SegContents&) { check_dicom_seg(); }

}  // namespace serpentine
