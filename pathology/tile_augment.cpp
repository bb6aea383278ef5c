#include "pathology/tile_augment.h"

#include <array>
#include <vector>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

/// SplitMix64: equal on every machine, unlike the distributions of the standard library.
class TileDice {
 public:
  explicit TileDice(uint64_t state) : state_(state) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31U);
  }
  /// In [-1, 1).
  float sign() {
    return static_cast<float>(static_cast<double>(bits() >> 11U) / 4503599627370496.0 - 1);
  }

 private:
  uint64_t state_;
};

/// Everything the draw may depend on, as one number.
uint64_t tile_seed(const std::string& slide, int64_t x, int64_t y, int64_t copy, int64_t seed) {
  uint64_t hash = 1469598103934665603ULL;
  for (const char c : slide) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  for (const int64_t value : {x, y, copy, seed})
    hash = TileDice(hash ^ static_cast<uint64_t>(value)).bits();
  return hash;
}

/// Rows: haematoxylin, eosin, DAB as unit vectors of optical density.
torch::Tensor stain_matrix() {
  const auto rows =
      torch::tensor({{0.65F, 0.70F, 0.29F}, {0.07F, 0.99F, 0.11F}, {0.27F, 0.57F, 0.78F}});
  return rows / rows.norm(2, 1, true);
}

/// One of the eight positions of a square [S, S, 3].
torch::Tensor tile_position(const torch::Tensor& picture, uint64_t position) {
  auto out = position % 2 == 1 ? picture.flip(1) : picture;
  return torch::rot90(out, static_cast<int64_t>(position / 2 % 4), {0, 1});
}

}  // namespace

torch::Tensor augmented_tiles(const torch::Tensor& pictures, const torch::Tensor& corners,
                              const std::string& slide, int64_t copy, const TileAugment& options) {
  const int64_t count = pictures.size(0), side = pictures.size(1);
  check_shape("augment", pictures, "pictures", {count, side, side, 3}, "B, S, S, 3");
  check_shape("augment", corners, "corners", {count, 2}, "B, 2");
  const auto at = corners.accessor<int64_t, 2>();
  std::vector<torch::Tensor> turned;
  std::vector<float> factors, shifts;
  for (int64_t i = 0; i < count; ++i) {
    TileDice dice(tile_seed(slide, at[i][0], at[i][1], copy, options.seed));
    turned.push_back(tile_position(pictures[i], dice.bits() >> 32U));
    for (int64_t stain = 0; stain < 3; ++stain) {
      factors.push_back(1 + static_cast<float>(options.stain) * dice.sign());
      shifts.push_back(static_cast<float>(options.stain) * dice.sign());
    }
  }
  const auto square = torch::stack(turned);
  if (options.stain <= 0) return square;
  const auto matrix = stain_matrix();
  const auto density = -((square.to(torch::kFloat) + 1) / 256).log().view({count, side * side, 3});
  const auto amount = torch::matmul(density, torch::inverse(matrix));
  const auto changed = amount * torch::tensor(factors).view({count, 1, 3}) +
                       torch::tensor(shifts).view({count, 1, 3});
  return (torch::exp(-torch::matmul(changed, matrix)) * 256 - 1)
      .round()
      .clamp(0, 255)
      .to(torch::kUInt8)
      .view(square.sizes());
}

}  // namespace serpentine
