// Text files: unpacking, encoding, the place of an offset.
#pragma once

#include <string>
#include <string_view>

namespace serpentine {

/// The whole file; gzip is unpacked. Throws with the path and the cause.
std::string read_text(const std::string& path);

/// Whether a file begins with these bytes; false if it cannot be read.
bool file_begins_with(const std::string& path, std::string_view bytes);

/// Throws with the place of the first byte that is not UTF-8, and for UTF-16, Parquet and binary
/// data.
void check_utf8(const std::string& path, std::string_view text);

/// "path:line:column" of a byte, both from 1; columns count characters.
std::string place_in(const std::string& path, std::string_view text, size_t offset);

/// 'text', shortened and without control characters, for an error message.
std::string quoted(std::string_view text);

}  // namespace serpentine
