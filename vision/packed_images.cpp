#include "vision/packed_images.h"

#include <cstring>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/bytes.h"

namespace serpentine {

torch::Tensor parse_idx(std::string_view bytes, const std::string& who) {
  const auto fail = [&](const std::string& why) { throw std::runtime_error(who + ": " + why); };
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(bytes[at]); };
  if (bytes.size() < 4 || byte(0) != 0 || byte(1) != 0) fail("is not an IDX file");
  if (byte(2) != 8)
    fail("holds values of IDX type " + std::to_string(byte(2)) + "; only bytes (8) are read");
  const size_t axes = byte(3);
  if (axes < 1 || axes > 8) fail("has " + std::to_string(axes) + " axes; 1 to 8 are read");
  const size_t start = 4 + 4 * axes;
  if (bytes.size() < start) fail("is cut off in its header");
  std::vector<int64_t> shape;
  for (size_t axis = 0; axis < axes; ++axis) {
    int64_t extent = 0;
    for (size_t i = 0; i < 4; ++i) extent = extent << 8 | byte(4 + 4 * axis + i);
    shape.push_back(extent);
  }
  int64_t size = 0;
  const auto held = static_cast<int64_t>(bytes.size() - start);
  if (!checked_bytes(shape, 1, size) || size != held) {
    std::string text;
    for (const int64_t extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
    fail("promises " + text + " values, but " + std::to_string(held) + " bytes follow");
  }
  auto values = torch::empty(shape, torch::kUInt8);
  if (size > 0) std::memcpy(values.data_ptr(), bytes.data() + start, static_cast<size_t>(size));
  return values;
}

CifarRecords parse_cifar(std::string_view bytes, int64_t label_bytes, bool coarse,
                         const std::string& who) {
  constexpr int64_t kPixels = 3 * 32 * 32;
  const int64_t record = label_bytes + kPixels, size = static_cast<int64_t>(bytes.size());
  if (size == 0 || size % record != 0) {
    throw std::runtime_error(who + ": has " + std::to_string(size) +
                             " bytes, which are no whole records of " + std::to_string(record));
  }
  auto rows = torch::empty({size / record, record}, torch::kUInt8);
  std::memcpy(rows.data_ptr(), bytes.data(), bytes.size());
  const auto label = rows.select(1, coarse ? 0 : label_bytes - 1).to(torch::kLong).contiguous();
  CifarRecords out;
  out.labels.assign(label.const_data_ptr<int64_t>(),
                    label.const_data_ptr<int64_t>() + label.numel());
  out.images = rows.slice(1, label_bytes).view({-1, 3, 32, 32}).permute({0, 2, 3, 1}).contiguous();
  return out;
}

torch::Tensor medmnist_images(const torch::Tensor& array, const std::string& who) {
  if (array.scalar_type() != torch::kUInt8)
    throw std::runtime_error(who + ": pictures must be uint8, got " +
                             c10::toString(array.scalar_type()));
  if (array.dim() == 3) return array.unsqueeze(3);
  const bool colours = array.dim() == 4 && (array.size(3) == 3 || array.size(3) == 1);
  if (!colours) {
    std::string shape;
    for (const int64_t extent : array.sizes())
      shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
    throw std::runtime_error(who + ": pictures must be [M, H, W] or [M, H, W, 3], got [" + shape +
                             "] (volumes are not images)");
  }
  return array;
}

}  // namespace serpentine
