#include "segmentation/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

namespace serpentine {
namespace {

using torch::Tensor;

/// Rotation about z, y, x by three angles: [3, 3] over (z, y, x).
Tensor rotation(const std::array<double, 3>& angle) {
  const auto turn = [](int64_t a, int64_t b, double by) {
    auto matrix = torch::eye(3);
    matrix[a][a] = matrix[b][b] = std::cos(by);
    matrix[a][b] = -std::sin(by);
    matrix[b][a] = std::sin(by);
    return matrix;
  };
  return turn(1, 2, angle[0]).mm(turn(0, 2, angle[1])).mm(turn(0, 1, angle[2]));
}

/// Smooth displacements in voxels: noise on a coarse grid, interpolated. [3, d, h, w].
Tensor bends(const std::array<int64_t, 3>& size, double amplitude, Chance& chance) {
  namespace F = torch::nn::functional;
  const auto coarse = [](int64_t side) { return std::max<int64_t>(2, side / 16 + 2); };
  auto noise =
      torch::rand({1, 3, coarse(size[0]), coarse(size[1]), coarse(size[2])}, chance.generator()) *
          2 -
      1;
  if (size[0] == 1) noise.select(1, 0).zero_();
  return F::interpolate(noise, F::InterpolateFuncOptions()
                                   .size(std::vector<int64_t>{size[0], size[1], size[2]})
                                   .mode(torch::kTrilinear)
                                   .align_corners(true))[0] *
         amplitude;
}

Tensor blurred(const Tensor& image, double sigma) {
  const auto radius = static_cast<int64_t>(std::ceil(3 * sigma));
  auto kernel =
      torch::arange(-radius, radius + 1, torch::kFloat).square().div(-2 * sigma * sigma).exp();
  kernel = kernel / kernel.sum();
  auto x = image.unsqueeze(1);  // [C, 1, d, h, w]
  for (int64_t axis = 0; axis < 3; ++axis) {
    if (x.size(axis + 2) == 1) continue;
    std::vector<int64_t> shape = {1, 1, 1, 1, 1};
    shape[static_cast<size_t>(axis + 2)] = 2 * radius + 1;
    std::vector<int64_t> pads(6, 0);
    pads[static_cast<size_t>(2 * (2 - axis))] = pads[static_cast<size_t>(2 * (2 - axis) + 1)] =
        radius;
    x = torch::conv3d(torch::replication_pad3d(x, pads), kernel.view(shape));
  }
  return x.squeeze(1);
}

Tensor low_resolution(const Tensor& image, double zoom) {
  namespace F = torch::nn::functional;
  std::vector<int64_t> small, full;
  for (int64_t axis = 1; axis < 4; ++axis) {
    full.push_back(image.size(axis));
    small.push_back(
        std::max<int64_t>(1, std::llround(static_cast<double>(image.size(axis)) * zoom)));
  }
  const auto few = F::interpolate(image.unsqueeze(0),
                                  F::InterpolateFuncOptions().size(small).mode(torch::kNearest));
  return F::interpolate(
      few, F::InterpolateFuncOptions().size(full).mode(torch::kTrilinear).align_corners(false))[0];
}

/// Values as a share of their range to a power, with mean and deviation kept.
Tensor gamma_changed(const Tensor& x, double gamma) {
  const auto low = x.min(), range = (x.max() - low).clamp_min(1e-7);
  const auto mean = x.mean(), deviation = x.std(/*unbiased=*/false);
  auto y = ((x - low) / range).pow(gamma) * range + low;
  y = (y - y.mean()) / y.std(/*unbiased=*/false).clamp_min(1e-8) * deviation + mean;
  return y;
}

}  // namespace

void PatchAugmentOptions::fields(Fields& f) {
  f("enabled", enabled, "vary training patches at all");
  f("rotate", rotate, "most degrees of a rotation; 0: 30 in volumes, 180 in slices", {.least = 0});
  f("rotate_p", rotate_p, "probability of a rotation", {.least = 0, .most = 1});
  f("scale_least", scale_least, "least size of what a patch shows", {.least = 0.1});
  f("scale_most", scale_most, "largest size of what a patch shows", {.least = 0.1});
  f("scale_p", scale_p, "probability of another size", {.least = 0, .most = 1});
  f("elastic", elastic, "most voxels that bending moves", {.least = 0});
  f("elastic_p", elastic_p, "probability of bending", {.least = 0, .most = 1});
  f("mirror", mirror, "axes that are mirrored half of the time, of zyx");
  f("noise_p", noise_p, "probability of noise", {.least = 0, .most = 1});
  f("blur_p", blur_p, "probability of blur", {.least = 0, .most = 1});
  f("brightness_p", brightness_p, "probability of another brightness", {.least = 0, .most = 1});
  f("contrast_p", contrast_p, "probability of another contrast", {.least = 0, .most = 1});
  f("low_resolution_p", low_resolution_p, "probability of fewer pixels", {.least = 0, .most = 1});
  f("gamma_p", gamma_p, "probability of a gamma curve", {.least = 0, .most = 1});
  f("inverted_gamma_p", inverted_gamma_p, "probability of one of the negative",
    {.least = 0, .most = 1});
}

at::Generator Chance::generator() { return at::make_generator<at::CPUGeneratorImpl>(next()); }

Patch plain_patch(const Tensor& image, const Tensor& target, const std::array<int64_t, 3>& size,
                  const std::array<int64_t, 3>& first) {
  auto x = image, y = target;
  std::vector<int64_t> pads(6, 0);
  bool padded = false;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const auto at = static_cast<size_t>(axis);
    const int64_t whole = image.size(axis + 1);
    const int64_t begin = std::clamp<int64_t>(first[at], 0, whole),
                  end = std::clamp<int64_t>(first[at] + size[at], begin, whole);
    x = x.narrow(axis + 1, begin, end - begin);
    if (y.defined()) y = y.narrow(axis, begin, end - begin);
    const int64_t before = std::min<int64_t>(size[at], std::max<int64_t>(0, begin - first[at]));
    pads[2 * (2 - at)] = before;
    pads[2 * (2 - at) + 1] = size[at] - (end - begin) - before;
    padded = padded || pads[2 * (2 - at)] > 0 || pads[2 * (2 - at) + 1] > 0;
  }
  if (padded) {
    x = torch::constant_pad_nd(x, pads, 0);
    if (y.defined()) y = torch::constant_pad_nd(y, pads, 0);
  }
  return {x.contiguous(), y.defined() ? y.contiguous() : y};
}

Patch cut_patch(const Tensor& image, const Tensor& target, const std::array<int64_t, 3>& size,
                const std::array<int64_t, 3>& centre, const PatchAugmentOptions& options,
                Chance& chance) {
  const bool flat = size[0] == 1, long_axis = 3 * size[0] < std::max(size[1], size[2]);
  const bool rotates = options.enabled && chance.happens(options.rotate_p),
             scales = options.enabled && chance.happens(options.scale_p),
             bends_it = options.enabled && chance.happens(options.elastic_p);
  std::array<int64_t, 3> first{};
  for (size_t axis = 0; axis < 3; ++axis) first[axis] = centre[axis] - size[axis] / 2;
  if (!rotates && !scales && !bends_it) return plain_patch(image, target, size, first);

  // thick slices are turned within their plane only
  const double most = (options.rotate > 0    ? options.rotate
                       : (flat || long_axis) ? 180.
                                             : 30.) *
                      std::numbers::pi / 180;
  std::array<double, 3> angle = {};
  if (rotates) {
    angle[0] = chance.uniform(-most, most);
    if (!flat && !long_axis) {
      angle[1] = chance.uniform(-most, most);
      angle[2] = chance.uniform(-most, most);
    }
  }
  const double scale = scales ? chance.uniform(options.scale_least, options.scale_most) : 1;
  std::vector<Tensor> axes;
  for (size_t axis = 0; axis < 3; ++axis) {
    axes.push_back(torch::arange(size[axis], torch::kFloat) -
                   static_cast<double>(size[axis] - 1) / 2);
  }
  const auto grid = torch::stack(torch::meshgrid(axes, "ij")).flatten(1);  // [3, voxels]
  auto places = rotation(angle).mm(grid);
  if (flat || long_axis) {
    places.narrow(0, 1, 2).mul_(scale);
  } else {
    places.mul_(scale);
  }
  places = places.view({3, size[0], size[1], size[2]});
  if (bends_it) places = places + bends(size, options.elastic, chance);

  // only the part of the case that the patch reads
  std::array<int64_t, 3> begin{}, extent{};
  for (size_t axis = 0; axis < 3; ++axis) {
    const auto along = places[static_cast<int64_t>(axis)];
    const double middle =
        static_cast<double>(first[axis]) + static_cast<double>(size[axis] - 1) / 2;
    along.add_(middle);
    begin[axis] = static_cast<int64_t>(std::floor(along.min().item<double>()));
    extent[axis] = static_cast<int64_t>(std::ceil(along.max().item<double>())) + 1 - begin[axis];
    along.sub_(static_cast<double>(begin[axis]));
  }
  const auto part = plain_patch(image, target, extent, begin);
  std::vector<Tensor> share;  // x, y, z in -1..1 between the centres of the border voxels
  for (size_t axis = 3; axis-- > 0;) {
    const auto span = static_cast<double>(std::max<int64_t>(1, extent[axis] - 1));
    share.push_back(places[static_cast<int64_t>(axis)] * (2 / span) - (extent[axis] > 1 ? 1. : 0.));
  }
  const auto where = torch::stack(share, -1).unsqueeze(0);
  constexpr int64_t kLinear = 0, kNearest = 1, kBorder = 1;
  Patch cut;
  cut.image = torch::grid_sampler(part.image.unsqueeze(0), where, kLinear, kBorder, true)[0];
  cut.target = torch::grid_sampler(
                   part.target.to(torch::kFloat).view({1, 1, extent[0], extent[1], extent[2]}),
                   where, kNearest, kBorder, true)[0][0]
                   .round()
                   .to(torch::kInt);
  return cut;
}

void vary_patch(Patch& patch, const PatchAugmentOptions& options, Chance& chance) {
  if (!options.enabled) return;
  std::vector<int64_t> turned;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const char name = "zyx"[axis];
    if (options.mirror.find(name) != std::string::npos && chance.happens(0.5))
      turned.push_back(axis);
  }
  if (!turned.empty()) {
    patch.target = patch.target.flip(turned).contiguous();
    for (auto& axis : turned) ++axis;
    patch.image = patch.image.flip(turned).contiguous();
  }
  auto& x = patch.image;
  if (chance.happens(options.noise_p)) {
    const double deviation = std::sqrt(chance.uniform(0, 0.1));
    x = x + torch::randn(x.sizes(), chance.generator(), x.options()) * deviation;
  }
  if (chance.happens(options.blur_p)) x = blurred(x, chance.uniform(0.5, 1));
  if (chance.happens(options.brightness_p)) x = x * chance.uniform(0.75, 1.25);
  if (chance.happens(options.contrast_p)) {
    const auto mean = x.mean(), low = x.min(), high = x.max();
    x = ((x - mean) * chance.uniform(0.75, 1.25) + mean).clamp(low, high);
  }
  if (chance.happens(options.low_resolution_p)) x = low_resolution(x, chance.uniform(0.5, 1));
  if (chance.happens(options.inverted_gamma_p)) x = -gamma_changed(-x, chance.uniform(0.7, 1.5));
  if (chance.happens(options.gamma_p)) x = gamma_changed(x, chance.uniform(0.7, 1.5));
}

}  // namespace serpentine
