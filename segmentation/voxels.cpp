#include "segmentation/voxels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include <torch/torch.h>

namespace serpentine {
namespace {

constexpr size_t kPackedBlock = size_t{1} << 18;
constexpr int64_t kDeflateMost = 1032;  // bytes out of one byte in

template <class T>
void numbers_to_float(const char* from, float* to, size_t count, bool swapped) {
  for (size_t i = 0; i < count; ++i) {
    std::array<char, sizeof(T)> bytes;
    std::memcpy(bytes.data(), from + i * sizeof(T), sizeof(T));
    if (swapped) std::reverse(bytes.begin(), bytes.end());
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    to[i] = static_cast<float>(value);
  }
}

struct NumberType {
  size_t width;
  void (*convert)(const char*, float*, size_t, bool);
};

NumberType number_type(VoxelType type) {
  switch (type) {
    case VoxelType::kInt8:
      return {1, numbers_to_float<int8_t>};
    case VoxelType::kUint8:
      return {1, numbers_to_float<uint8_t>};
    case VoxelType::kInt16:
      return {2, numbers_to_float<int16_t>};
    case VoxelType::kUint16:
      return {2, numbers_to_float<uint16_t>};
    case VoxelType::kInt32:
      return {4, numbers_to_float<int32_t>};
    case VoxelType::kUint32:
      return {4, numbers_to_float<uint32_t>};
    case VoxelType::kInt64:
      return {8, numbers_to_float<int64_t>};
    case VoxelType::kUint64:
      return {8, numbers_to_float<uint64_t>};
    case VoxelType::kFloat:
      return {4, numbers_to_float<float>};
    case VoxelType::kDouble:
      return {8, numbers_to_float<double>};
  }
  throw std::logic_error("number_type: no such type");
}

}  // namespace

size_t voxel_bytes(VoxelType type) { return number_type(type).width; }

void voxels_to_float(VoxelType type, const char* from, float* to, size_t count, bool swapped) {
  number_type(type).convert(from, to, count, swapped);
}

torch::Tensor take_voxels(const std::filesystem::path& file, const VoxelBytes& source,
                          VoxelType type, int64_t count, bool swapped) {
  const auto refuse = [&](int64_t there) {
    throw std::runtime_error(file.string() + ": is cut off or damaged: " + std::to_string(there) +
                             " of " + std::to_string(count) + " voxels could be read");
  };
  const auto width = static_cast<int64_t>(voxel_bytes(type));
  const auto held = static_cast<int64_t>(std::filesystem::file_size(file));
  if (count / kDeflateMost > held / width + 1) refuse(0);

  auto voxels = torch::empty({count});
  auto* values = voxels.mutable_data_ptr<float>();
  constexpr int64_t kChunk = int64_t{1} << 20;
  std::vector<char> buffer(static_cast<size_t>(std::min(kChunk, count) * width));
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t part = std::min(kChunk, count - done);
    const size_t got = source(buffer.data(), static_cast<size_t>(part * width));
    if (got < static_cast<size_t>(part * width)) refuse(done + static_cast<int64_t>(got) / width);
    voxels_to_float(type, buffer.data(), values + done, static_cast<size_t>(part), swapped);
  }
  return voxels;
}

PackedFile::PackedFile(const std::filesystem::path& file, int64_t begin, bool packed)
    : stream_(file, std::ios::binary), packed_(packed) {
  if (!stream_) throw std::runtime_error(file.string() + ": cannot be opened");
  stream_.seekg(begin);
  if (!packed_) return;
  buffer_.resize(kPackedBlock);
  if (inflateInit2(&inflate_, 15 + 32) != Z_OK) throw std::bad_alloc();
}

PackedFile::~PackedFile() {
  if (packed_) inflateEnd(&inflate_);
}

bool PackedFile::fill() {
  if (inflate_.avail_in > 0) return true;
  stream_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  inflate_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
  inflate_.avail_in = static_cast<uInt>(stream_.gcount());
  return inflate_.avail_in > 0;
}

size_t PackedFile::read(char* to, size_t bytes) {
  if (!packed_) {
    stream_.read(to, static_cast<std::streamsize>(bytes));
    return static_cast<size_t>(stream_.gcount());
  }
  size_t done = 0;
  while (done < bytes && !ended_ && fill()) {
    const auto room = static_cast<uInt>(std::min<size_t>(bytes - done, 1U << 30));
    inflate_.next_out = reinterpret_cast<Bytef*>(to + done);
    inflate_.avail_out = room;
    const int code = inflate(&inflate_, Z_NO_FLUSH);
    done += room - inflate_.avail_out;
    if (code == Z_STREAM_END) {
      ended_ = !fill() || inflateReset(&inflate_) != Z_OK;  // gzip files may be joined
    } else if (code != Z_OK) {
      ended_ = true;
    }
  }
  return done;
}

std::string packed_bytes(const std::string& raw, Packing how) {
  std::string packed(compressBound(static_cast<uLong>(raw.size())) + 64, '\0');
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, how == Packing::kGzip ? 15 + 16 : 15, 8,
                   Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::bad_alloc();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(raw.data()));
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  size_t in = raw.size(), out = packed.size();
  int code = Z_OK;
  while (code == Z_OK) {  // zlib counts in 32 bits
    stream.avail_in = static_cast<uInt>(std::min<size_t>(in, 1U << 30));
    stream.avail_out = static_cast<uInt>(std::min<size_t>(out, 1U << 30));
    const uInt had_in = stream.avail_in, had_out = stream.avail_out;
    code = deflate(&stream, in == had_in ? Z_FINISH : Z_NO_FLUSH);
    in -= had_in - stream.avail_in;
    out -= had_out - stream.avail_out;
  }
  deflateEnd(&stream);
  TORCH_CHECK(code == Z_STREAM_END, "packed_bytes: zlib says ", code);
  packed.resize(packed.size() - out);
  return packed;
}

}  // namespace serpentine
