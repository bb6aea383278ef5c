#include "segmentation/resample.h"

#include <algorithm>
#include <cmath>

#include <torch/torch.h>

namespace serpentine {
namespace {

constexpr double kAnisotropy = 3;
constexpr int64_t kChunkVoxels = int64_t{1} << 22;

std::vector<double> weights_at(double fraction, Taps taps) {
  if (taps == Taps::kNearest) return {1};
  const double t = fraction;
  if (taps == Taps::kLinear) return {1 - t, t};
  return {((-t + 2) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((-3 * t + 4) * t + 1) * t / 2,
          (t - 1) * t * t / 2};
}

}  // namespace

std::pair<int64_t, int64_t> AxisTaps::reads(int64_t first, int64_t last) const {
  const auto part = index.narrow(1, first, last - first);
  return {part.min().item<int64_t>(), part.max().item<int64_t>() + 1};
}

AxisTaps axis_taps(int64_t in, int64_t out, Taps taps) {
  const auto count = static_cast<int64_t>(taps);
  AxisTaps made{torch::empty({count, out}, torch::kLong), torch::empty({count, out}), in, out};
  auto index = made.index.accessor<int64_t, 2>();
  auto weight = made.weight.accessor<float, 2>();
  for (int64_t o = 0; o < out; ++o) {
    const double at =
        (static_cast<double>(o) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
    const double base = taps == Taps::kNearest ? std::floor(at + 0.5) : std::floor(at);
    const auto weights = weights_at(at - base, taps);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t place = static_cast<int64_t>(base) + k - (taps == Taps::kCubic ? 1 : 0);
      index[k][o] = std::clamp<int64_t>(place, 0, in - 1);
      weight[k][o] = static_cast<float>(weights[static_cast<size_t>(k)]);
    }
  }
  return made;
}

torch::Tensor resample_axis(const torch::Tensor& x, int64_t axis, const AxisTaps& taps,
                            int64_t first, int64_t last, int64_t offset) {
  if (last < 0) last = taps.out;
  if (taps.in == taps.out) return x.narrow(axis, first - offset, last - first);
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[static_cast<size_t>(axis)] = last - first;
  torch::Tensor sum;
  for (int64_t k = 0; k < taps.index.size(0); ++k) {
    const auto read = x.index_select(
        axis, taps.index[k].narrow(0, first, last - first).sub(offset).to(x.device()));
    if (taps.index.size(0) == 1) return read;
    const auto weight =
        taps.weight[k].narrow(0, first, last - first).to(x.device(), x.scalar_type()).view(shape);
    if (sum.defined()) {
      sum.addcmul_(read, weight);
    } else {
      sum = read * weight;
    }
  }
  return sum;
}

torch::Tensor resample_image(const torch::Tensor& data, const std::array<int64_t, 3>& size,
                             int64_t nearest_axis) {
  if (data.size(1) == size[0] && data.size(2) == size[1] && data.size(3) == size[2])
    return data.contiguous();
  std::vector<AxisTaps> taps;
  for (int64_t axis = 0; axis < 3; ++axis) {
    taps.push_back(axis_taps(data.size(axis + 1), size[static_cast<size_t>(axis)],
                             axis == nearest_axis ? Taps::kNearest : Taps::kCubic));
  }
  // some slices at a time: the steps between need room of their own
  auto made = torch::empty({data.size(0), size[0], size[1], size[2]});
  const int64_t slice = data.size(0) * std::max(data.size(2) * data.size(3), size[1] * size[2]);
  const int64_t chunk = std::max<int64_t>(1, kChunkVoxels / std::max<int64_t>(1, slice));
  for (int64_t z = 0; z < size[0]; z += chunk) {
    const int64_t end = std::min(size[0], z + chunk);
    auto x = resample_axis(data, 1, taps[0], z, end);
    x = resample_axis(x, 2, taps[1]);
    made.narrow(1, z, end - z).copy_(resample_axis(x, 3, taps[2]));
  }
  return made;
}

torch::Tensor resample_labels(const torch::Tensor& labels, const std::array<int64_t, 3>& size,
                              int64_t nearest_axis) {
  if (labels.size(0) == size[0] && labels.size(1) == size[1] && labels.size(2) == size[2])
    return labels;
  std::vector<AxisTaps> taps;
  for (int64_t axis = 0; axis < 3; ++axis) {
    taps.push_back(axis_taps(labels.size(axis), size[static_cast<size_t>(axis)],
                             axis == nearest_axis ? Taps::kNearest : Taps::kLinear));
  }
  auto best = torch::full({size[0], size[1], size[2]}, -1.F);
  auto chosen = torch::zeros({size[0], size[1], size[2]}, torch::kInt);
  const auto values = std::get<0>(torch::_unique(labels));
  for (int64_t i = 0; i < values.numel(); ++i) {
    const auto value = values[i].item<int32_t>();
    auto share = labels.eq(value).to(torch::kFloat);
    for (int64_t axis = 0; axis < 3; ++axis)
      share = resample_axis(share, axis, taps[static_cast<size_t>(axis)]);
    const auto better = share.gt(best);
    best = torch::where(better, share, best);
    chosen.masked_fill_(better, value);
  }
  return chosen;
}

std::array<int64_t, 3> resampled_size(const std::array<int64_t, 3>& size,
                                      const std::array<double, 3>& spacing,
                                      const std::array<double, 3>& target) {
  std::array<int64_t, 3> made{};
  for (size_t axis = 0; axis < 3; ++axis) {
    const double length = static_cast<double>(size[axis]) * spacing[axis] / target[axis];
    made[axis] = std::max<int64_t>(1, std::llround(length));
  }
  return made;
}

int64_t coarse_axis(const std::array<double, 3>& spacing) {
  const auto largest = std::max_element(spacing.begin(), spacing.end());
  double next = 0;
  for (auto axis = spacing.begin(); axis != spacing.end(); ++axis)
    if (axis != largest) next = std::max(next, *axis);
  return *largest > kAnisotropy * next ? largest - spacing.begin() : -1;
}

}  // namespace serpentine
