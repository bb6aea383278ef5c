// DICOM in a build without GDCM: every function says how to get it.
#include <stdexcept>

#include "segmentation/dicom.h"

namespace serpentine {
namespace {

[[noreturn]] void no_gdcm(const std::filesystem::path& file) {
  throw std::runtime_error(file.string() +
                           ": is DICOM, which this build does not read (install libgdcm-dev and "
                           "configure with -DSERPENTINE_GDCM=ON)");
}

}  // namespace

bool dicom_available() { return false; }
std::optional<DicomSlice> read_dicom_slice(const std::filesystem::path& file) { no_gdcm(file); }
void read_dicom_pixels(const DicomSlice& slice, float*) { no_gdcm(slice.file); }

}  // namespace serpentine
