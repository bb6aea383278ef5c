#include "pathology/colour_encoder.h"

#include <vector>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

/// [B, 5, S, S]: optical density of red, green, blue, then haematoxylin and eosin.
torch::Tensor density_planes(const torch::Tensor& pictures) {
  const auto density = -((pictures.to(torch::kFloat) + 1) / 256).log();
  // rows are the inverse of Ruifrok's matrix of haematoxylin, eosin and their residue
  const auto unmix = torch::tensor({{1.8780F, 1.0077F, -0.5561F}, {-0.0659F, 1.1347F, -0.1355F}});
  const auto stains = torch::matmul(density, unmix.t());
  return torch::cat({density, stains}, -1).permute({0, 3, 1, 2}).contiguous();
}

torch::Tensor edges(const torch::Tensor& planes) {
  const auto dx = (planes.slice(3, 1) - planes.slice(3, 0, -1)).abs().mean({2, 3});
  const auto dy = (planes.slice(2, 1) - planes.slice(2, 0, -1)).abs().mean({2, 3});
  return dx + dy;
}

/// Shares of six bins of hue, weighted by chroma: [B, 6].
torch::Tensor hues(const torch::Tensor& pictures) {
  const auto rgb = pictures.to(torch::kFloat) / 255;
  const auto r = rgb.select(-1, 0), g = rgb.select(-1, 1), b = rgb.select(-1, 2);
  const auto x = r - (g + b) / 2, y = (g - b) * 0.8660254;
  const auto bin = ((torch::atan2(y, x) / 6.2831853 + 1) * 6).floor().remainder(6);
  const auto chroma = (x * x + y * y).sqrt();
  std::vector<torch::Tensor> shares;
  for (int k = 0; k < 6; ++k) shares.push_back((chroma * (bin == k)).mean({1, 2}));
  return torch::stack(shares, 1);
}

}  // namespace

torch::Tensor colour_features(const torch::Tensor& pictures) {
  SERPENTINE_CHECK(pictures.dim() == 4 && pictures.size(3) == 3, "colour features",
                   "pictures must be [B, S, S, 3], got ", pictures.sizes());
  const torch::NoGradGuard no_grad;
  const auto planes = density_planes(pictures);
  // quantiles of a coarse copy: sorting every pixel would cost more than decoding them
  const auto coarse = torch::adaptive_avg_pool2d(planes, {32, 32}).flatten(2);
  const auto sorted = std::get<0>(coarse.sort(2));
  std::vector<torch::Tensor> all = {planes.mean({2, 3}), planes.flatten(2).std(2),
                                    sorted.select(2, 102), sorted.select(2, 512),
                                    sorted.select(2, 921)};
  auto scale = planes;
  for (int level = 0; level < 3; ++level) {
    all.push_back(edges(scale));
    scale = torch::avg_pool2d(scale, 2, 2, 0, true);
  }
  all.push_back((planes.slice(1, 0, 3).mean(1) < 0.15).to(torch::kFloat).mean({1, 2}).unsqueeze(1));
  all.push_back((planes.select(1, 3) > 0.8).to(torch::kFloat).mean({1, 2}).unsqueeze(1));
  all.push_back(hues(pictures));
  return torch::cat(all, 1);
}

}  // namespace serpentine
