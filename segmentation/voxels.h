// Numbers of volume files: their types and byte orders, packed by gzip or zlib or plain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <torch/types.h>
#include <zlib.h>

namespace serpentine {

enum class VoxelType {
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat,
  kDouble
};

size_t voxel_bytes(VoxelType type);

/// `swapped`: the numbers are in the other byte order than this machine's.
void voxels_to_float(VoxelType type, const char* from, float* to, size_t count, bool swapped);

/// Fills `to`; returns how many bytes there were.
using VoxelBytes = std::function<size_t(char* to, size_t bytes)>;

/// float32 [count]. Throws "FILE: is cut off: 12 of 64 voxels could be read". A header that asks
/// for more than its file can hold, packed as tightly as deflate can, is refused before memory is
/// taken.
torch::Tensor take_voxels(const std::filesystem::path& file, const VoxelBytes& source,
                          VoxelType type, int64_t count, bool swapped);

/// The bytes of a file from `begin` on; packed: gzip or zlib, told apart by their first bytes.
class PackedFile {
 public:
  PackedFile(const std::filesystem::path& file, int64_t begin, bool packed);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;
  size_t read(char* to, size_t bytes);

 private:
  bool fill();

  std::ifstream stream_;
  bool packed_, ended_ = false;
  std::vector<char> buffer_;
  z_stream inflate_{};
};

enum class Packing { kGzip, kZlib };
std::string packed_bytes(const std::string& raw, Packing how);

}  // namespace serpentine
