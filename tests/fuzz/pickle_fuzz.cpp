// Any bytes: tensors or one c10::Error, and nothing runs.
#include <c10/util/Exception.h>

#include <cstring>
#include <string>

#include "core/io/torch_pickle.h"
#include "fuzz/scratch.h"

// An input that begins with 'L' is what follows the first three pickles of the format before torch
// 1.6: this reaches the tensors without a zip's checksums in the way. Others are whole files.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const serpentine::Scratch scratch;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size > 0 && data[0] == 'L') {
    const std::string head(
        "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
        "\x80\x02M\xe9\x03."
        "\x80\x02}.",
        25);
    bytes = head + bytes.substr(1);
  }
  if (!scratch.fill(bytes.data(), bytes.size())) return 0;
  try {
    serpentine::read_torch_pickle(scratch.path());
  } catch (const c10::Error&) {
  }
  return 0;
}
