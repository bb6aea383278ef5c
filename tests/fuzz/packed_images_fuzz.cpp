// Any bytes: an IDX file, CIFAR records, a tar shard, the header of a picture, or one error each.
#include <exception>

#include "core/io/picture_header.h"
#include "core/io/tar.h"
#include "fuzz/scratch.h"
#include "vision/packed_images.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const serpentine::Scratch in;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    serpentine::parse_idx(bytes, "fuzz");
  } catch (const std::exception&) {
  }
  for (const int64_t labels : {1, 2}) {
    try {
      serpentine::parse_cifar(bytes, labels, labels == 2, "fuzz");
    } catch (const std::exception&) {
    }
  }
  serpentine::picture_header(bytes);
  serpentine::jpeg_is_whole(bytes);
  try {
    if (in.fill(data, size)) {
      const serpentine::InputFile file(in.path());
      for (const auto& member : serpentine::list_tar(file).members)
        file.read_text(member.size, member.offset);
    }
  } catch (const std::exception&) {
  }
  return 0;
}
