#include "pathology/stain.h"

#include <cmath>
#include <numbers>
#include <tuple>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kLight = 240;     // of clear glass, Macenko's Io
constexpr double kStained = 0.15;  // least optical density of a stained pixel, Macenko's beta
constexpr int64_t kLeastPixels = 200;

/// [N, 3], natural logarithm.
torch::Tensor optical_density(const torch::Tensor& pixels) {
  return -((pixels.to(torch::kFloat) + 1) / kLight).log();
}

torch::Tensor xyz_matrix() {  // sRGB to XYZ over the white of D65
  return torch::tensor({{0.412453F / 0.950456F, 0.357580F / 0.950456F, 0.180423F / 0.950456F},
                        {0.212671F, 0.715160F, 0.072169F},
                        {0.019334F / 1.088754F, 0.119193F / 1.088754F, 0.950227F / 1.088754F}});
}

torch::Tensor lab_matrix() {  // of the cube roots, without the constant of L
  return torch::tensor({{0.F, 116.F, 0.F}, {500.F, -500.F, 0.F}, {0.F, 200.F, -200.F}});
}

constexpr double kKnee = 6.0 / 29;

torch::Tensor lab_of(const torch::Tensor& rgb) {
  const auto u = rgb.to(torch::kFloat) / 255;
  const auto linear = torch::where(u <= 0.04045, u / 12.92, ((u + 0.055) / 1.055).pow(2.4));
  const auto t = torch::matmul(linear, xyz_matrix().t());
  const auto f = torch::where(t > kKnee * kKnee * kKnee, t.clamp_min(1e-9).pow(1.0 / 3),
                              t / (3 * kKnee * kKnee) + 4.0 / 29);
  auto lab = torch::matmul(f, lab_matrix().t());
  lab.select(-1, 0).sub_(16);
  return lab;
}

torch::Tensor rgb_of(const torch::Tensor& lab) {
  auto shifted = lab.clone();
  shifted.select(-1, 0).add_(16);
  const auto f = torch::matmul(shifted, torch::inverse(lab_matrix()).t());
  const auto t = torch::where(f > kKnee, f.pow(3), 3 * kKnee * kKnee * (f - 4.0 / 29));
  const auto linear = torch::matmul(t, torch::inverse(xyz_matrix()).t()).clamp(0, 1);
  const auto u = torch::where(linear <= 0.0031308, linear * 12.92,
                              1.055 * linear.clamp_min(1e-9).pow(1 / 2.4) - 0.055);
  return (u * 255).round().clamp(0, 255).to(torch::kUInt8);
}

/// Concentrations [N, 2] of both stains: least squares.
torch::Tensor concentrations(const torch::Tensor& density, const torch::Tensor& basis) {
  const auto gram = torch::matmul(basis.t(), basis);
  return torch::matmul(density, torch::matmul(basis, torch::inverse(gram)));
}

StainFit fit_macenko(const torch::Tensor& pixels) {
  const auto all = optical_density(pixels);
  const auto stained = std::get<0>(all.min(1)) > kStained;
  const auto density = all.index({stained});
  if (density.size(0) < kLeastPixels) return {};
  const auto centred = density - density.mean(0);
  const auto covariance = torch::matmul(centred.t(), centred) / (density.size(0) - 1);
  auto plane = std::get<1>(torch::linalg_eigh(covariance)).slice(1, 1, 3).contiguous();
  for (int64_t k = 0; k < 2; ++k) {  // both directions point towards more stain
    if (plane.select(1, k).sum().item<float>() < 0) plane.select(1, k).neg_();
  }
  const auto flat = torch::matmul(density, plane);
  const auto angle = torch::atan2(flat.select(1, 0), flat.select(1, 1));
  const auto edge = [&](double share) {
    const auto value = torch::quantile(angle, share).item<double>();
    const auto direction = torch::matmul(
        plane,
        torch::tensor({static_cast<float>(std::sin(value)), static_cast<float>(std::cos(value))}));
    return direction / direction.norm();
  };
  auto first = edge(0.01), second = edge(0.99);
  // haematoxylin takes more of the red than eosin
  if (first[0].item<float>() < second[0].item<float>()) std::swap(first, second);
  StainFit fit;
  fit.basis = torch::stack({first, second}, 1);
  if (fit.basis.isnan().any().item<bool>() ||
      std::abs(torch::dot(first, second).item<double>()) > 0.9999) {
    return {};
  }
  fit.scale = torch::quantile(concentrations(density, fit.basis), 0.99, 0).clamp_min(1e-3);
  return fit;
}

StainFit fit_reinhard(const torch::Tensor& pixels) {
  const auto stained = optical_density(pixels).mean(1) > kStained;
  const auto some = pixels.index({stained});
  if (some.size(0) < kLeastPixels) return {};
  const auto lab = lab_of(some);
  return {lab.mean(0).unsqueeze(1), lab.std(0).clamp_min(1e-3)};
}

}  // namespace

StainNormaliser::StainNormaliser(const std::string& method) : macenko_(method == "macenko") {
  SERPENTINE_CHECK(macenko_ || method == "reinhard", "stain",
                   "the method is macenko or reinhard, got '", method, "'");
  if (macenko_) {  // the published reference
    target_ = {torch::tensor({{0.5626F, 0.2159F}, {0.7201F, 0.8012F}, {0.4062F, 0.5581F}}),
               torch::tensor({1.9705F, 1.0308F})};
  } else {  // of a typical H&E slide: an estimate; give a slide of your own for another
    target_ = {torch::tensor({{69.2F}, {22.9F}, {-15.1F}}), torch::tensor({13.0F, 8.9F, 6.1F})};
  }
}

StainFit StainNormaliser::fit(const torch::Tensor& pixels) const {
  SERPENTINE_CHECK(pixels.dim() == 2 && pixels.size(1) == 3, "stain", "pixels must be [N, 3], got ",
                   pixels.sizes());
  // torch's quantile takes 16 million values at most, and a sample is as good
  const int64_t most = 2000000, step = (pixels.size(0) + most - 1) / most;
  const auto sample = step > 1 ? pixels.slice(0, 0, pixels.size(0), step) : pixels;
  return macenko_ ? fit_macenko(sample) : fit_reinhard(sample);
}

torch::Tensor StainNormaliser::apply(const torch::Tensor& pictures, const StainFit& fit) const {
  if (!fit.defined()) return pictures;
  const auto flat = pictures.reshape({-1, 3});
  torch::Tensor out;
  if (macenko_) {
    const auto amount =
        concentrations(optical_density(flat), fit.basis) * (target_.scale / fit.scale);
    const auto density = torch::matmul(amount, target_.basis.t());
    out = (torch::exp(-density) * kLight - 1).round().clamp(0, 255).to(torch::kUInt8);
  } else {
    const auto lab = lab_of(flat);
    const auto moved = (lab - fit.basis.t()) * (target_.scale / fit.scale) + target_.basis.t();
    // what is not stained is glass: it keeps its colour
    const auto stained = (optical_density(flat).mean(1) > kStained).unsqueeze(1);
    out = torch::where(stained, rgb_of(moved), flat);
  }
  return out.view(pictures.sizes());
}

}  // namespace serpentine
