// TensorBoard event files: TFRecord frames of hand-encoded Event messages.
//
// The formats: tensorflow/core/lib/io/record_writer.cc and core/util/event.proto.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/io/append_file.h"

namespace serpentine {

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord stores it.
uint32_t masked_crc32c(std::string_view bytes);

/// Appends scalars to a new file `folder`/events.out.tfevents.<time>.<host>.<pid>.
class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(const std::string& folder);
  /// `wall_time`: seconds since 1970.
  void scalars(int64_t step, const std::map<std::string, double>& values, double wall_time);

 private:
  AppendFile file_;
};

/// Removes the events after `step` from all event files of a folder; damaged ends are cut off.
void truncate_events(const std::string& folder, int64_t step);

}  // namespace serpentine
