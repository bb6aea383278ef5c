// The writing half of segmentation/nifti.h.
#include <cstring>
#include <string>
#include <utility>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "segmentation/nifti.h"
#include "segmentation/voxels.h"

namespace serpentine {
namespace {

constexpr size_t kNiftiWriteBytes1 = 348;

template <class T>
void set(std::string& raw, size_t at, T value) {
  std::memcpy(raw.data() + at, &value, sizeof value);
}

}  // namespace

void write_nifti(const std::filesystem::path& file, const torch::Tensor& given,
                 const NiftiHeader& like) {
  TORCH_CHECK(given.dim() == 3, "write_nifti: voxels must be [K, J, I], got ", given.sizes());
  const auto voxels = given.to(torch::kCPU).contiguous();
  struct Kind {
    int datatype, bits;
  };
  const auto kind = [&]() -> Kind {
    switch (voxels.scalar_type()) {
      case torch::kByte:
        return {2, 8};
      case torch::kShort:
        return {4, 16};
      case torch::kInt:
        return {8, 32};
      case torch::kFloat:
        return {16, 32};
      default:
        TORCH_CHECK(false, "write_nifti: uint8, int16, int32 or float32, got ", voxels.dtype());
    }
  }();
  std::string raw = like.raw;
  const bool one = like.version == 1;
  for (size_t axis = 0; axis < 8; ++axis) {
    const int64_t side = axis == 0   ? 3
                         : axis <= 3 ? voxels.size(static_cast<int64_t>(3 - axis))
                                     : 1;
    if (one) {
      set<int16_t>(raw, 40 + 2 * axis, static_cast<int16_t>(side));
    } else {
      set<int64_t>(raw, 16 + 8 * axis, side);
    }
  }
  const size_t type_at = one ? 70 : 12;
  set<int16_t>(raw, type_at, static_cast<int16_t>(kind.datatype));
  set<int16_t>(raw, type_at + 2, static_cast<int16_t>(kind.bits));
  const int64_t begin = one ? 352 : 544;
  if (one) {
    set<float>(raw, 108, static_cast<float>(begin));
    for (const auto& [at, value] : {std::pair{112, 1.F}, {116, 0.F}, {124, 0.F}, {128, 0.F}})
      set<float>(raw, static_cast<size_t>(at), value);
  } else {
    set<int64_t>(raw, 168, begin);
    for (const auto& [at, value] : {std::pair{176, 1.}, {184, 0.}, {192, 0.}, {200, 0.}})
      set<double>(raw, static_cast<size_t>(at), value);
  }
  raw.resize(static_cast<size_t>(begin), '\0');
  raw.append(static_cast<const char*>(voxels.const_data_ptr()), voxels.nbytes());
  if (file.extension() != ".gz") {
    write_atomically(file.string(), raw);
    return;
  }
  write_atomically(file.string(), packed_bytes(raw, Packing::kGzip));
}

NiftiHeader new_nifti_header(std::array<int64_t, 3> size, std::array<double, 3> spacing,
                             const Affine* affine) {
  NiftiHeader header;
  header.size = {size[0], size[1], size[2], 1};
  header.spacing = spacing;
  header.oriented = affine != nullptr;
  header.affine =
      affine != nullptr
          ? *affine
          : Affine{{{spacing[0], 0, 0, 0}, {0, spacing[1], 0, 0}, {0, 0, spacing[2], 0}}};
  header.raw.assign(kNiftiWriteBytes1, '\0');
  set<int32_t>(header.raw, 0, static_cast<int32_t>(kNiftiWriteBytes1));
  header.raw[38] = 'r';
  set<float>(header.raw, 76, 1.F);
  for (size_t axis = 0; axis < 3; ++axis) {
    set<int16_t>(header.raw, 42 + 2 * axis, static_cast<int16_t>(size[axis]));
    set<float>(header.raw, 80 + 4 * axis, static_cast<float>(spacing[axis]));
  }
  header.raw[123] = 2;  // millimetres
  set<int16_t>(header.raw, 254, header.oriented ? int16_t{1} : int16_t{0});
  for (size_t row = 0; row < 3; ++row) {
    for (size_t column = 0; column < 4; ++column)
      set<float>(header.raw, 280 + 16 * row + 4 * column,
                 static_cast<float>(header.affine[row][column]));
  }
  std::memcpy(header.raw.data() + 344, "n+1", 4);
  return header;
}

}  // namespace serpentine
