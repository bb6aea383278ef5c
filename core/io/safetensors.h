// Reading and writing .safetensors: 8-byte length, JSON header, raw little-endian data.
//
// The format: huggingface/safetensors, README "Format".
#pragma once

#include <map>
#include <string>

#include "core/io/state_dict.h"

namespace serpentine {

struct SafeTensors {
  StateDict tensors;                            // row-major CPU tensors that own their memory
  std::map<std::string, std::string> metadata;  // the header's __metadata__
};

/// Checks every length and offset against the file before it reads. Tensors come in the order of
/// their data. Throws c10::Error with file and cause.
SafeTensors read_safetensors(const std::string& path);

/// Writes to a temporary file beside `path`, syncs, then renames: a reader sees the old file or the
/// new one.
void write_safetensors(const std::string& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace serpentine
