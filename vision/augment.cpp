#include "vision/augment.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kAugmentWho = "augment";

void check_range(const std::vector<double>& range, const char* key) {
  SERPENTINE_CHECK(range.size() == 2 && range[0] > 0 && range[0] <= range[1], kAugmentWho, key,
                   " must be two numbers above 0, the smaller first");
}

/// A crop of random area and shape, scaled to the view (Szegedy et al., arXiv 1409.4842): ten
/// tries, then the largest central crop of an allowed shape.
torch::Tensor random_resized_crop(const torch::Tensor& planes, const ImageView& view,
                                  const ImageAugmentOptions& o, Random& random) {
  const int64_t height = planes.size(1), width = planes.size(2);
  const double area = static_cast<double>(height * width);
  int64_t h = 0, w = 0, top = 0, left = 0;
  for (int64_t attempt = 0; attempt < 10 && h == 0; ++attempt) {
    const double wanted = area * random.uniform(o.scale[0], o.scale[1]);
    const double shape = std::exp(random.uniform(std::log(o.ratio[0]), std::log(o.ratio[1])));
    const int64_t tried_w = std::llround(std::sqrt(wanted * shape));
    const int64_t tried_h = std::llround(std::sqrt(wanted / shape));
    if (tried_w < 1 || tried_h < 1 || tried_w > width || tried_h > height) continue;
    h = tried_h;
    w = tried_w;
    top = random.below(height - h + 1);
    left = random.below(width - w + 1);
  }
  if (h == 0) {
    const double shape = static_cast<double>(width) / static_cast<double>(height);
    const double allowed = std::clamp(shape, o.ratio[0], o.ratio[1]);
    w = std::clamp<int64_t>(std::llround(static_cast<double>(height) * allowed), 1, width);
    h = std::clamp<int64_t>(std::llround(static_cast<double>(width) / allowed), 1, height);
    top = (height - h) / 2;
    left = (width - w) / 2;
  }
  return resized(planes.slice(1, top, top + h).slice(2, left, left + w), view.height, view.width,
                 view.bicubic);
}

/// The evaluation view with a border of zeros, cut at a random place.
torch::Tensor padded_crop(const torch::Tensor& image, int64_t pad, Random& random) {
  const int64_t height = image.size(1), width = image.size(2);
  const auto padded = at::constant_pad_nd(image, {pad, pad, pad, pad}, 0);
  const int64_t top = random.below(2 * pad + 1), left = random.below(2 * pad + 1);
  return padded.slice(1, top, top + height).slice(2, left, left + width);
}

/// A rectangle of normal noise (Zhong et al., arXiv 1708.04896), on the normalised image in place.
void erase(torch::Tensor& image, Random& random) {
  const int64_t height = image.size(1), width = image.size(2);
  for (int64_t attempt = 0; attempt < 10; ++attempt) {
    const double area = random.uniform(0.02, 1.0 / 3) * static_cast<double>(height * width);
    const double shape = std::exp(random.uniform(std::log(0.3), -std::log(0.3)));
    const int64_t h = std::llround(std::sqrt(area * shape));
    const int64_t w = std::llround(std::sqrt(area / shape));
    if (h < 1 || w < 1 || h >= height || w >= width) continue;
    const int64_t top = random.below(height - h + 1), left = random.below(width - w + 1);
    auto noise = torch::empty({image.size(0), h, w}, torch::kFloat32);
    float* value = noise.data_ptr<float>();
    for (int64_t i = 0; i < noise.numel(); ++i) value[i] = static_cast<float>(random.normal());
    image.slice(1, top, top + h).slice(2, left, left + w).copy_(noise);
    return;
  }
}

}  // namespace

void ImageAugmentOptions::fields(Fields& f) {
  f("crop", crop,
    "random_resized: a part of random area and shape; padded: a border of zeros, cut at random",
    {.choices = {"none", "random_resized", "padded"}});
  f("scale", scale, "random_resized: least and largest share of the picture's area");
  f("ratio", ratio, "random_resized: least and largest width over height");
  f("pad", pad, "padded: pixels of the border", {.least = 0, .most = 1024});
  f("flip", flip, "probability of mirroring left to right", {.least = 0, .most = 1});
  f("flip_vertical", flip_vertical, "probability of mirroring top to bottom",
    {.least = 0, .most = 1});
  f("randaugment", randaugment, "RandAugment operations of a picture; 0: none",
    {.least = 0, .most = 16});
  f("magnitude", magnitude, "strength of RandAugment", {.least = 0, .most = 10});
  f("magnitude_deviation", magnitude_deviation, "standard deviation of that strength",
    {.least = 0, .most = 10});
  f("jitter", jitter, "largest change of brightness, contrast, saturation and hue", {.least = 0});
  f("erase", erase, "probability of filling a rectangle with noise", {.least = 0, .most = 1});
  f("mixup", mixup, "parameter of mixup's beta distribution; 0: none", {.least = 0});
  f("cutmix", cutmix, "parameter of cutmix's beta distribution; 0: none", {.least = 0});
  f("mix", mix, "probability that a batch is mixed", {.least = 0, .most = 1});
  f("switch_to_cutmix", switch_to_cutmix, "share of cutmix where both are on",
    {.least = 0, .most = 1});
}

void ImageAugmentOptions::check() const {
  check_range(scale, "scale");
  check_range(ratio, "ratio");
  SERPENTINE_CHECK(scale[1] <= 1, kAugmentWho, "scale must not be above 1");
  SERPENTINE_CHECK(jitter.empty() || jitter.size() == 4, kAugmentWho,
                   "jitter must be four numbers (brightness, contrast, saturation, hue), got ",
                   jitter.size());
  SERPENTINE_CHECK(jitter.empty() || jitter[3] <= 0.5, kAugmentWho,
                   "the hue's jitter is 0.5 at most");
}

torch::Tensor augmented(const torch::Tensor& picture, const ImageView& view,
                        const ImageAugmentOptions& o, Random& random) {
  torch::Tensor image =
      o.crop == "random_resized"
          ? random_resized_crop(planes_of(picture, view.channels), view, o, random)
          : centre_view(picture, view);
  if (o.crop == "padded") image = padded_crop(image, o.pad, random);
  if (random.chance(o.flip)) image = image.flip({2});
  if (random.chance(o.flip_vertical)) image = image.flip({1});
  image = to_unit(image);
  if (o.randaugment > 0)
    image =
        rand_augment(image, o.randaugment, o.magnitude, o.magnitude_deviation, view.mean, random);
  if (!o.jitter.empty()) image = colour_jitter(image, o.jitter, random);
  image = normalised(image, view);
  if (random.chance(o.erase)) erase(image, random);
  return image;
}

void mix_batch(Batch& batch, int64_t classes, const ImageAugmentOptions& o, Random& random) {
  if (!o.mixes() || batch.size() == 0) return;
  const bool mixing = random.chance(o.mix);
  const bool cut = o.cutmix > 0 && (o.mixup <= 0 || random.chance(o.switch_to_cutmix));
  double share = mixing ? random.beta(cut ? o.cutmix : o.mixup) : 1;
  const auto other = batch.input.flip({0});
  if (mixing && cut) {
    const int64_t height = batch.input.size(2), width = batch.input.size(3);
    const double side = std::sqrt(1 - share);
    const auto h = static_cast<int64_t>(static_cast<double>(height) * side);
    const auto w = static_cast<int64_t>(static_cast<double>(width) * side);
    const int64_t y = random.below(height), x = random.below(width);
    const int64_t top = std::clamp<int64_t>(y - h / 2, 0, height);
    const int64_t bottom = std::clamp<int64_t>(y + h / 2, 0, height);
    const int64_t left = std::clamp<int64_t>(x - w / 2, 0, width);
    const int64_t right = std::clamp<int64_t>(x + w / 2, 0, width);
    batch.input = batch.input.clone();
    batch.input.slice(2, top, bottom)
        .slice(3, left, right)
        .copy_(other.slice(2, top, bottom).slice(3, left, right));
    share = 1 - static_cast<double>((bottom - top) * (right - left)) /
                    static_cast<double>(height * width);
  } else if (mixing) {
    batch.input = batch.input * share + other * (1 - share);
  }
  const auto own = torch::one_hot(batch.target, classes).to(torch::kFloat32);
  batch.target = own * share + own.flip({0}) * (1 - share);
  if (const auto weight = batch.get("weight"); weight.defined())
    batch.named["weight"] = weight * share + weight.flip({0}) * (1 - share);
}

torch::Tensor colour_jitter(torch::Tensor image, const std::vector<double>& shares,
                            Random& random) {
  std::vector<size_t> sequence = {0, 1, 2, 3};
  for (uint64_t i = 4; i > 1; --i) std::swap(sequence[i - 1], sequence[random.below(i)]);
  for (const size_t which : sequence) {
    if (shares[which] <= 0) continue;
    if (which == 3) {
      image = hue_turned(image, random.uniform(-shares[3], shares[3]));
      continue;
    }
    const double factor = random.uniform(std::max(0.0, 1 - shares[which]), 1 + shares[which]);
    image = which == 0   ? brightened(image, factor)
            : which == 1 ? contrasted(image, factor)
                         : saturated(image, factor);
  }
  return image;
}

}  // namespace serpentine
