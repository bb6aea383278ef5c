#include "pathology/tile_augment.h"

#include <vector>

#include <torch/torch.h>

#include "core/check.h"
#include "core/data/random.h"

namespace serpentine {
namespace {

/// Rows: haematoxylin, eosin, DAB as unit vectors of optical density.
torch::Tensor stain_matrix() {
  const auto rows =
      torch::tensor({{0.65F, 0.70F, 0.29F}, {0.07F, 0.99F, 0.11F}, {0.27F, 0.57F, 0.78F}});
  return rows / rows.norm(2, 1, true);
}

/// One of the eight positions of a square [S, S, 3].
torch::Tensor tile_position(const torch::Tensor& picture, int64_t position) {
  auto out = position % 2 == 1 ? picture.flip(1) : picture;
  return torch::rot90(out, position / 2, {0, 1});
}

}  // namespace

torch::Tensor augmented_tiles(const torch::Tensor& pictures, const torch::Tensor& corners,
                              const std::string& slide, int64_t copy, const TileAugment& options) {
  const int64_t count = pictures.size(0), side = pictures.size(1);
  check_shape("augment", pictures, "pictures", {count, side, side, 3}, "B, S, S, 3");
  check_shape("augment", corners, "corners", {count, 2}, "B, 2");
  const auto at = corners.accessor<int64_t, 2>();
  const auto name = static_cast<int64_t>(text_key(slide));
  std::vector<torch::Tensor> turned;
  std::vector<float> factors, shifts;
  for (int64_t i = 0; i < count; ++i) {
    Random chance(options.seed, 0, {name, at[i][0], at[i][1], copy});
    turned.push_back(tile_position(pictures[i], chance.below(int64_t{8})));
    for (int64_t stain = 0; stain < 3; ++stain) {
      factors.push_back(static_cast<float>(1 + options.stain * chance.uniform(-1, 1)));
      shifts.push_back(static_cast<float>(options.stain * chance.uniform(-1, 1)));
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
