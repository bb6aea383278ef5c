// LZF, the compression of binary_compressed PCD files. Format: M. Lehmann, liblzf.
#pragma once

#include <string>
#include <string_view>

namespace serpentine {

/// Unpacks to exactly `size` bytes; throws, with `who` and the byte, when the data do not.
std::string lzf_unpack(std::string_view packed, size_t size, const std::string& who);

/// Packs; the result may be longer than what went in.
std::string lzf_pack(std::string_view bytes);

}  // namespace serpentine
