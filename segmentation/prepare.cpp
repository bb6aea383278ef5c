#include "segmentation/prepare.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "segmentation/resample.h"

namespace serpentine {
namespace {

/// {value: bits of the regions that have it}, or {value: class}.
std::map<int64_t, int32_t> class_of_value(const SegmentationPlan& plan) {
  std::map<int64_t, int32_t> numbers;
  for (size_t k = 0; k < plan.values.size(); ++k) {
    std::stringstream list(plan.values[k]);
    for (std::string part; std::getline(list, part, '+');) {
      const int64_t value = std::stoll(part);
      if (plan.regions) {
        numbers[value] |= int32_t{1} << k;
      } else {
        numbers[value] = static_cast<int32_t>(k);
      }
    }
  }
  if (plan.regions) numbers.emplace(0, 0);
  if (plan.ignore >= 0) numbers[plan.ignore] = -1;
  return numbers;
}

/// Mean and deviation of x [D, H, W] over what the mask has (everything without one); slice by
/// slice, for a copy in double precision of a whole volume is large.
std::pair<double, double> moments(const torch::Tensor& x, const torch::Tensor& mask) {
  double count = 0, sum = 0, square = 0;
  const auto slice = [&](int64_t z) {
    const auto seen = mask.defined() ? x[z].masked_select(mask[z]) : x[z];
    return seen.to(torch::kDouble);
  };
  for (int64_t z = 0; z < x.size(0); ++z) {
    const auto seen = slice(z);
    count += static_cast<double>(seen.numel());
    sum += seen.sum().item<double>();
  }
  if (count == 0) return {0, 1};
  const double mean = sum / count;
  for (int64_t z = 0; z < x.size(0); ++z) square += (slice(z) - mean).square().sum().item<double>();
  return {mean, std::sqrt(square / count)};
}

torch::Tensor normalized(const SegmentationPlan& plan, const torch::Tensor& data) {
  const auto mask = plan.inside_mask ? data.ne(0).any(0) : torch::Tensor();
  auto made = torch::empty(data.sizes());
  for (int64_t c = 0; c < data.size(0); ++c) {
    auto x = made[c].copy_(data[c]);
    const auto& how = plan.normalize[static_cast<size_t>(c)];
    if (how == "ct") {
      const auto* stats = &plan.ct[static_cast<size_t>(4 * c)];
      x.clamp_(stats[2], stats[3]).sub_(stats[0]).div_(std::max(stats[1], 1e-8));
    } else if (how == "unit") {
      x.div_(x.max().item<double>() > 255 ? 65535. : 255.);
    } else if (how == "zscore") {
      const auto [mean, deviation] = moments(data[c], mask);
      x.sub_(mean).div_(std::max(deviation, 1e-8));
      if (mask.defined()) x.mul_(mask);
    }
  }
  return made;
}

std::array<double, 3> target_spacing(const SegmentationPlan& plan, const Volume& volume) {
  if (volume.picture) return volume.spacing;
  std::array<double, 3> target = {plan.spacing[0], plan.spacing[1], plan.spacing[2]};
  if (plan.dims == 2) target[0] = volume.spacing[0];  // slices stay as they are
  return target;
}

}  // namespace

Box nonzero_box(const torch::Tensor& data) {
  Box box{{0, 0, 0}, {data.size(1), data.size(2), data.size(3)}};
  const auto mask = data.ne(0).any(0);
  for (int64_t axis = 0; axis < 3; ++axis) {
    const auto along = mask.any(axis == 0 ? 2 : 0).any(axis == 2 ? 0 : 1).nonzero().flatten();
    if (along.numel() == 0) return {{0, 0, 0}, {data.size(1), data.size(2), data.size(3)}};
    box.first[static_cast<size_t>(axis)] = along[0].item<int64_t>();
    box.last[static_cast<size_t>(axis)] = along[-1].item<int64_t>() + 1;
  }
  return box;
}

torch::Tensor cropped(const torch::Tensor& data, const Box& box) {
  auto x = data;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const auto at = static_cast<size_t>(axis);
    x = x.narrow(x.dim() - 3 + axis, box.first[at], box.last[at] - box.first[at]);
  }
  return x;
}

int64_t coarse_axis_of(const SegmentationPlan& plan, const Volume& volume) {
  if (volume.picture) return -1;
  const auto own = coarse_axis(volume.spacing);
  if (own >= 0) return own;
  return coarse_axis({plan.spacing[0], plan.spacing[1], plan.spacing[2]});
}

std::array<int64_t, 3> prepared_size(const SegmentationPlan& plan, const Volume& volume,
                                     const Box& box) {
  return resampled_size(box.size(), volume.spacing, target_spacing(plan, volume));
}

torch::Tensor prepare_image(const SegmentationPlan& plan, const Volume& volume, const Box& box) {
  if (volume.data.size(0) != plan.in_channels) {
    throw std::runtime_error(volume.name + ": has " + std::to_string(volume.data.size(0)) +
                             " channels, the plan has " + std::to_string(plan.in_channels));
  }
  if (volume.picture && plan.dims == 3)
    throw std::runtime_error(volume.name + ": is a picture, the plan is for volumes");
  check_finite(volume);
  const auto data = normalized(plan, cropped(volume.data, box));
  return resample_image(data, prepared_size(plan, volume, box), coarse_axis_of(plan, volume));
}

torch::Tensor to_classes(const SegmentationPlan& plan, const torch::Tensor& values,
                         const std::string& name) {
  const auto known = class_of_value(plan);
  auto classes = torch::zeros_like(values);
  const auto present = std::get<0>(torch::_unique(values, /*sorted=*/true));
  for (int64_t i = 0; i < present.numel(); ++i) {
    const auto value = present[i].item<int64_t>();
    const auto found = known.find(value);
    if (found == known.end()) {
      throw std::runtime_error(name + ": holds the value " + std::to_string(value) +
                               ", which no class of the plan has");
    }
    classes.masked_fill_(values.eq(value), found->second);
  }
  return classes;
}

torch::Tensor to_values(const SegmentationPlan& plan, const torch::Tensor& classes) {
  auto values = torch::zeros_like(classes);
  for (size_t k = 0; k < plan.values.size(); ++k) {
    if (plan.regions) {
      values.masked_fill_(classes.bitwise_and(int64_t{1} << k).ne(0), plan.region_order[k]);
    } else {
      values.masked_fill_(classes.eq(static_cast<int64_t>(k)), std::stoll(plan.values[k]));
    }
  }
  return values;
}

PreparedCase prepare_case(const SegmentationPlan& plan, const CaseFiles& files) {
  const Volume volume = read_channels(files.images);
  const auto values = read_labels(files.label, volume, plan.label_scale);
  const Box box = nonzero_box(volume.data);
  PreparedCase made{files.name, prepare_image(plan, volume, box), {}};
  const auto classes = to_classes(plan, cropped(values, box), files.label);
  made.target =
      resample_labels(classes, {made.image.size(1), made.image.size(2), made.image.size(3)},
                      coarse_axis_of(plan, volume));
  return made;
}

}  // namespace serpentine
