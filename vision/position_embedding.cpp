#include "vision/position_embedding.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "vision/map_layers.h"

namespace serpentine {
namespace {

constexpr double kTheta = 10000, kSpan = 14;  // of rotary angles; a grid is stretched to 14 steps

torch::Tensor resized_rows(const torch::Tensor& rows, int64_t height, int64_t width,
                           int64_t new_height, int64_t new_width) {
  const int64_t channels = rows.size(2);
  const auto map = rows.view({1, height, width, channels}).permute({0, 3, 1, 2});
  return resized_embedding(map, new_height, new_width)
      .permute({0, 2, 3, 1})
      .reshape({1, new_height * new_width, channels});
}

}  // namespace

torch::Tensor resized_positions(const torch::Tensor& table, int64_t height, int64_t width,
                                int64_t new_height, int64_t new_width, ExtraRows extra) {
  if (height == new_height && width == new_width) return table;
  const int64_t patches = height * width;
  const auto resized = [&](const torch::Tensor& rows) {
    return resized_rows(rows.contiguous(), height, width, new_height, new_width);
  };
  switch (extra) {
    case ExtraRows::kNone:
      return resized(table);
    case ExtraRows::kFirst:
      return torch::cat({table.narrow(1, 0, 1), resized(table.narrow(1, 1, patches))}, 1);
    case ExtraRows::kEnds:
      return torch::cat({table.narrow(1, 0, 1), resized(table.narrow(1, 1, patches)),
                         table.narrow(1, patches + 1, 1)},
                        1);
    case ExtraRows::kMiddle:
      break;
  }
  const int64_t middle = patches / 2, new_middle = new_height * new_width / 2;
  const auto rows = resized(
      torch::cat({table.narrow(1, 0, middle), table.narrow(1, middle + 1, patches - middle)}, 1));
  return torch::cat({rows.narrow(1, 0, new_middle), table.narrow(1, middle, 1),
                     rows.narrow(1, new_middle, rows.size(1) - new_middle)},
                    1);
}

torch::Tensor resized_positions_published(const torch::Tensor& table, int64_t num_new,
                                          int64_t num_extra) {
  const auto side = [](int64_t count) {
    const auto root = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(count))));
    SERPENTINE_CHECK(count > 0 && root * root == count, "pos_embed",
                     "the published resize takes square grids only, got ", count,
                     " patches; pos_embed_resize: correct takes any");
    return root;
  };
  const int64_t old_side = side(table.size(1) - num_extra), new_side = side(num_new - num_extra);
  if (old_side == new_side) return table;
  const auto rows = table.narrow(1, num_extra, old_side * old_side).contiguous();
  return torch::cat(
      {table.narrow(1, 0, num_extra), resized_rows(rows, old_side, old_side, new_side, new_side)},
      1);
}

RotaryGridImpl::RotaryGridImpl(int64_t channels, int64_t side) : channels_(channels), side_(side) {
  SERPENTINE_CHECK(channels % 4 == 0, "rope", "the channels must be a multiple of 4, got ",
                   channels);
  const auto angle = angles(side, side);
  freqs_cos_ = register_buffer("freqs_cos", angle.cos());
  freqs_sin_ = register_buffer("freqs_sin", angle.sin());
}

// [h w, C]: rows' angles in the first half of the channels, columns' in the second, each in pairs
torch::Tensor RotaryGridImpl::angles(int64_t height, int64_t width) const {
  const auto one = [&](int64_t count) {
    const auto power =
        torch::arange(0, channels_ / 2, 2, torch::kDouble) / static_cast<double>(channels_ / 2);
    const auto at = torch::arange(count, torch::kDouble) / static_cast<double>(count) * kSpan;
    return torch::outer(at, torch::pow(kTheta, -power)).repeat_interleave(2, 1);  // [n, C / 2]
  };
  const auto rows = one(height).unsqueeze(1).expand({height, width, channels_ / 2});
  const auto columns = one(width).unsqueeze(0).expand({height, width, channels_ / 2});
  return torch::cat({rows, columns}, -1).flatten(0, 1).to(torch::kFloat);
}

torch::Tensor RotaryGridImpl::forward(const torch::Tensor& x, int64_t height, int64_t width) const {
  const int64_t extra = x.size(1) - height * width;
  SERPENTINE_CHECK(extra == 0 || extra == 1, "rope", "takes at most one class token, got ", extra);
  auto cosine = freqs_cos_, sine = freqs_sin_;
  if (height != side_ || width != side_) {
    const auto angle = angles(height, width).to(x.device());
    cosine = angle.cos();
    sine = angle.sin();
  }
  const auto rows = x.narrow(1, extra, height * width);
  const auto pairs = rows.unflatten(-1, {channels_ / 2, 2}).unbind(-1);
  const auto turned = torch::stack({-pairs[1], pairs[0]}, -1).flatten(-2);
  const auto y = (rows * cosine + turned * sine).to(x.scalar_type());
  return extra == 0 ? y : torch::cat({x.narrow(1, 0, 1), y}, 1);
}

}  // namespace serpentine
