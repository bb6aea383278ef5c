// Any bytes: a cloud, which can be written again, or one error of the OFF reader.
#include <cstddef>
#include <cstdint>
#include <exception>

#include "pointcloud/cloud.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto cloud = serpentine::parse_off(bytes, "fuzz");
    if (cloud.faces.defined() && cloud.fields.empty()) serpentine::off_text(cloud);
  } catch (const std::exception&) {
  }
  return 0;
}
