// Any bytes: a LAS file that can be read and written with new classes, or one error.
#include <cstdio>
#include <exception>

#include <ATen/ATen.h>

#include "fuzz/scratch.h"
#include "pointcloud/las.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const serpentine::Scratch in;
  if (!in.fill(data, size)) return 0;
  try {
    const serpentine::LasFile file(in.path());
    serpentine::read_las(in.path());
    const auto zeros = [](int64_t, int64_t n) { return at::zeros({n}, at::kLong); };
    const std::string out = "/tmp/fuzz_las_" + std::to_string(::getpid());
    file.write_classes(out, zeros);
    file.write_new_field(out, "label", zeros);
    serpentine::read_las(out);
    std::remove(out.c_str());
  } catch (const std::exception&) {
  }
  return 0;
}
