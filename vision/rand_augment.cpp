// Operations on one picture's tones, colours and geometry, and the random choice of them.
#include <algorithm>
#include <array>
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "vision/augment.h"

namespace serpentine {
namespace {

torch::Tensor grey(const torch::Tensor& image) {
  if (image.size(0) == 1) return image;
  const auto share = torch::tensor({0.299f, 0.587f, 0.114f}).view({3, 1, 1});
  return (image * share).sum(0, true);
}

torch::Tensor blend(const torch::Tensor& from, const torch::Tensor& image, double factor) {
  return (from + (image - from) * factor).clamp_(0, 1);
}

torch::Tensor sharpened(const torch::Tensor& image, double factor) {
  if (image.size(1) < 3 || image.size(2) < 3) return image;
  auto kernel = torch::ones({1, 1, 3, 3}) / 13;
  kernel[0][0][1][1] = 5.0 / 13;
  auto smooth = image.clone();  // the outermost pixels stay
  smooth.slice(1, 1, -1).slice(2, 1, -1).copy_(
      torch::conv2d(image.unsqueeze(1), kernel).squeeze(1));
  return blend(smooth, image, factor);
}

torch::Tensor auto_contrasted(const torch::Tensor& image) {
  const auto low = image.amin({1, 2}, true), span = image.amax({1, 2}, true) - low;
  return torch::where(span > 0, (image - low) / span.clamp_min(1e-6), image);
}

/// Equal shares of the tones in 256 steps, channel by channel, by Pillow's rule.
torch::Tensor equalized(const torch::Tensor& image) {
  const auto tones = (image * 255).round().to(torch::kLong);
  auto out = image.clone();
  for (int64_t c = 0; c < image.size(0); ++c) {
    const auto counts = torch::bincount(tones[c].flatten(), {}, 256);
    const auto occurring = counts.masked_select(counts > 0);
    const int64_t step = (counts.sum() - occurring[-1]).item<int64_t>() / 255;
    if (step == 0) continue;
    const auto table = ((counts.cumsum(0) - counts + step / 2).floor_divide(step)).clamp(0, 255);
    out[c] = table.index_select(0, tones[c].flatten()).view_as(tones[c]).to(torch::kFloat32) / 255;
  }
  return out;
}

/// The picture under the map from target to source coordinates, both in [-1, 1]; sides may differ,
/// so `matrix` holds for pixels of equal height and width.
torch::Tensor warped(const torch::Tensor& image, std::array<double, 6> matrix,
                     const std::vector<double>& fill) {
  const double height = static_cast<double>(image.size(1)),
               width = static_cast<double>(image.size(2));
  matrix[1] *= height / width;
  matrix[3] *= width / height;
  const auto theta =
      torch::tensor(at::ArrayRef<double>(matrix.data(), 6), torch::kFloat32).view({1, 2, 3});
  const auto grid = at::affine_grid_generator(theta, {1, 1, image.size(1), image.size(2)}, false);
  const auto colour = torch::tensor(fill, torch::kFloat32).view({-1, 1, 1});
  const auto moved = at::grid_sampler((image - colour).unsqueeze(0), grid, /*bilinear=*/0,
                                      /*zeros=*/0, /*align_corners=*/false);
  return moved.squeeze(0) + colour;
}

using Operation = torch::Tensor (*)(const torch::Tensor&, double, const std::vector<double>&);
struct Named {
  const char* name;
  bool signed_level;  // the level may be negative
  Operation apply;    // level in [0, 1] or [-1, 1]
};

// NOLINTBEGIN(bugprone-easily-swappable-parameters): one signature
constexpr std::array<Named, 15> kOperations = {{
    {"auto_contrast", false,
     [](const torch::Tensor& x, double, const std::vector<double>&) { return auto_contrasted(x); }},
    {"equalize", false,
     [](const torch::Tensor& x, double, const std::vector<double>&) { return equalized(x); }},
    {"invert", false,
     [](const torch::Tensor& x, double, const std::vector<double>&) { return 1 - x; }},
    {"rotate", true,
     [](const torch::Tensor& x, double level, const std::vector<double>& fill) {
       const double angle = level * 30 * 3.141592653589793 / 180;
       return warped(x, {std::cos(angle), -std::sin(angle), 0, std::sin(angle), std::cos(angle), 0},
                     fill);
     }},
    {"posterize", false,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       const double step = std::pow(2, 8 - std::max(0, 4 - static_cast<int>(level * 4)));
       return ((x * 255).round() / step).floor() * step / 255;
     }},
    {"solarize", false,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return torch::where(x < 256.0 / 255 * (1 - level), x, 1 - x);
     }},
    {"solarize_add", false,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return torch::where(x < 128.0 / 255, (x + level * 110 / 255).clamp_max(1), x);
     }},
    {"colour", true,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return saturated(x, 1 + 0.9 * level);
     }},
    {"contrast", true,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return contrasted(x, 1 + 0.9 * level);
     }},
    {"brightness", true,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return brightened(x, 1 + 0.9 * level);
     }},
    {"sharpness", true,
     [](const torch::Tensor& x, double level, const std::vector<double>&) {
       return sharpened(x, 1 + 0.9 * level);
     }},
    {"shear_x", true,
     [](const torch::Tensor& x, double level, const std::vector<double>& fill) {
       return warped(x, {1, 0.3 * level, 0, 0, 1, 0}, fill);
     }},
    {"shear_y", true,
     [](const torch::Tensor& x, double level, const std::vector<double>& fill) {
       return warped(x, {1, 0, 0, 0.3 * level, 1, 0}, fill);
     }},
    {"translate_x", true,
     [](const torch::Tensor& x, double level, const std::vector<double>& fill) {
       return warped(x, {1, 0, 0.9 * level, 0, 1, 0}, fill);  // a grid's side is 2: 0.45 of it
     }},
    {"translate_y", true,
     [](const torch::Tensor& x, double level, const std::vector<double>& fill) {
       return warped(x, {1, 0, 0, 0, 1, 0.9 * level}, fill);
     }},
}};
// NOLINTEND(bugprone-easily-swappable-parameters)

}  // namespace

torch::Tensor brightened(const torch::Tensor& image, double factor) {
  return (image * factor).clamp_(0, 1);
}

torch::Tensor contrasted(const torch::Tensor& image, double factor) {
  return blend(grey(image).mean(), image, factor);
}

torch::Tensor saturated(const torch::Tensor& image, double factor) {
  return image.size(0) == 1 ? image : blend(grey(image), image, factor);
}

/// The hexagonal hue of HSV: a colour is (value, chroma, hue in [0, 6)).
torch::Tensor hue_turned(const torch::Tensor& image, double turn) {
  if (image.size(0) != 3) return image;
  const auto value = image.amax(0), chroma = value - image.amin(0);
  const auto r = image[0], g = image[1], b = image[2], safe = chroma.clamp_min(1e-6);
  const auto hue = torch::where(value.eq(r), (g - b) / safe,
                                torch::where(value.eq(g), 2 + (b - r) / safe, 4 + (r - g) / safe)) +
                   6 * turn;
  const auto channel = [&](double shift) {
    const auto k = (hue + shift).remainder(6);
    return value - chroma * torch::minimum(k, 4 - k).clamp(0, 1);
  };
  return torch::stack({channel(5), channel(3), channel(1)});
}

std::vector<std::string> rand_augment_operations() {
  std::vector<std::string> names;
  for (const auto& operation : kOperations) names.emplace_back(operation.name);
  return names;
}

torch::Tensor apply_operation(const std::string& name, const torch::Tensor& image, double magnitude,
                              bool negative, const std::vector<double>& fill) {
  const auto* found = std::find_if(kOperations.begin(), kOperations.end(),
                                   [&](const Named& known) { return name == known.name; });
  SERPENTINE_CHECK(found != kOperations.end(), "augment", "there is no operation '", name, "'");
  const double level = magnitude / 10 * (negative && found->signed_level ? -1 : 1);
  return found->apply(image, level, fill);
}

torch::Tensor rand_augment(torch::Tensor image, int64_t operations, double magnitude,
                           double deviation, const std::vector<double>& fill, Random& random) {
  for (int64_t i = 0; i < operations; ++i) {
    const auto& operation = kOperations[random.below(uint64_t{kOperations.size()})];
    const bool applied = random.chance(0.5), negative = random.chance(0.5);
    const double strength = std::clamp(random.normal(magnitude, deviation), 0.0, 10.0);
    if (applied) image = apply_operation(operation.name, image, strength, negative, fill);
  }
  return image;
}

}  // namespace serpentine
