// Any bytes: a KITTI scan, an .npy or an .npz of points, or one error each.
#include <exception>

#include "fuzz/scratch.h"
#include "pointcloud/cloud.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const serpentine::Scratch in;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    serpentine::parse_kitti(bytes, "fuzz");
  } catch (const std::exception&) {
  }
  try {
    serpentine::npy_text(serpentine::parse_npy_cloud(bytes, "fuzz"));
  } catch (const std::exception&) {
  }
  try {
    if (in.fill(data, size)) serpentine::npz_text(serpentine::read_npz_cloud(in.path()));
  } catch (const std::exception&) {
  }
  return 0;
}
