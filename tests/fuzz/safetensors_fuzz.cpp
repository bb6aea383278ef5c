// Any bytes: tensors or one c10::Error.
#include <c10/util/Exception.h>

#include "core/io/safetensors.h"
#include "fuzz/scratch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const serpentine::Scratch scratch;
  if (!scratch.fill(data, size)) return 0;
  try {
    serpentine::read_safetensors(scratch.path());
  } catch (const c10::Error&) {
  }
  return 0;
}
