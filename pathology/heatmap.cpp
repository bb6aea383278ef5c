#include "pathology/heatmap.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/io/image.h"

namespace serpentine {
namespace {

/// Values and their weights of a part of the grid at any size, bilinear between cell centres or the
/// nearest cell; [H, W] each.
std::pair<torch::Tensor, torch::Tensor> sample(const HeatGrid& heat, double x, double y,
                                               double width, double height, int64_t out_width,
                                               int64_t out_height, bool smooth) {
  const int64_t rows = heat.values.size(0), columns = heat.values.size(1);
  const auto axis = [&](double begin, double extent, int64_t count) {
    const auto step = extent / static_cast<double>(count);
    return (torch::arange(count, torch::kDouble) + 0.5) * (step / heat.side) + begin / heat.side -
           0.5;
  };
  const auto px = axis(x, width, out_width), py = axis(y, height, out_height);
  const auto known = heat.known.to(torch::kFloat), values = heat.values * known;
  const auto pick = [&](const torch::Tensor& of, const torch::Tensor& r, const torch::Tensor& c) {
    return of.index_select(0, r.clamp(0, rows - 1)).index_select(1, c.clamp(0, columns - 1));
  };
  if (!smooth) {
    const auto r = py.round().to(torch::kLong), c = px.round().to(torch::kLong);
    return {pick(values, r, c), pick(known, r, c)};
  }
  const auto r0 = py.floor(), c0 = px.floor();
  const auto fr = (py - r0).to(torch::kFloat).unsqueeze(1),
             fc = (px - c0).to(torch::kFloat).unsqueeze(0);
  const auto r = r0.to(torch::kLong), c = c0.to(torch::kLong);
  const auto blend = [&](const torch::Tensor& of) {
    return pick(of, r, c) * (1 - fr) * (1 - fc) + pick(of, r, c + 1) * (1 - fr) * fc +
           pick(of, r + 1, c) * fr * (1 - fc) + pick(of, r + 1, c + 1) * fr * fc;
  };
  const auto weight = blend(known);
  return {blend(values) / weight.clamp_min(1e-6), weight};
}

}  // namespace

HeatGrid heat_grid(const TileGrid& grid, const torch::Tensor& scores, int64_t slide_width,
                   int64_t slide_height) {
  const int64_t tiles = grid.coords.size(0);
  check_shape("heatmap", scores, "scores", {tiles}, "T");
  HeatGrid heat;
  heat.side = static_cast<double>(std::max<int64_t>(1, grid.step_level0));
  const auto cells = [&](int64_t extent) {
    return std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil(static_cast<double>(extent) / heat.side)));
  };
  const int64_t rows = cells(slide_height), columns = cells(slide_width);
  auto sum = torch::zeros({rows, columns}, torch::kDouble);
  auto count = torch::zeros({rows, columns}, torch::kDouble);
  auto s = sum.accessor<double, 2>(), n = count.accessor<double, 2>();
  const auto at = grid.coords.accessor<int64_t, 2>();
  const auto value = scores.to(torch::kDouble).contiguous();
  const auto v = value.accessor<double, 1>();
  for (int64_t i = 0; i < tiles; ++i) {
    const auto first = [&](int64_t place) -> int64_t {
      return std::llround(static_cast<double>(place) / heat.side);
    };
    const auto last = [&](int64_t place) {
      return std::max(first(place) + 1, first(place + grid.size_level0));
    };
    for (int64_t r = first(at[i][1]); r < std::min(rows, last(at[i][1])); ++r) {
      for (int64_t c = first(at[i][0]); c < std::min(columns, last(at[i][0])); ++c) {
        s[r][c] += v[i];
        n[r][c] += 1;
      }
    }
  }
  heat.known = count.gt(0).to(torch::kUInt8);
  heat.values = (sum / count.clamp_min(1)).to(torch::kFloat);
  return heat;
}

torch::Tensor ranks(const torch::Tensor& scores) {
  const auto flat = scores.detach().to(torch::kCPU, torch::kDouble).contiguous();
  const auto* value = flat.const_data_ptr<double>();
  const int64_t count = flat.numel();
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value[a] < value[b]; });
  auto out = torch::zeros({count}, torch::kFloat);
  auto* rank = out.data_ptr<float>();
  for (int64_t begin = 0; begin < count;) {
    int64_t end = begin + 1;
    while (end < count &&
           value[order[static_cast<size_t>(end)]] == value[order[static_cast<size_t>(begin)]]) {
      ++end;
    }
    const double middle = static_cast<double>(begin + end - 1) / 2;
    for (int64_t i = begin; i < end; ++i) {
      rank[order[static_cast<size_t>(i)]] =
          count > 1 ? static_cast<float>(middle / static_cast<double>(count - 1)) : 1.0F;
    }
    begin = end;
  }
  return out;
}

torch::Tensor heat_view(const Slide& slide, const HeatGrid& heat, double x, double y, double width,
                        double height, int64_t out_width, int64_t out_height,
                        const HeatStyle& style) {
  const auto picture =
      read_view(slide, x, y, width, height, out_width, out_height).to(torch::kFloat);
  const auto [values, weight] =
      sample(heat, x, y, width, height, out_width, out_height, style.smooth);
  const auto colour = colour_map(values, style.map).to(torch::kFloat);
  const auto alpha = (weight * style.opacity).unsqueeze(-1);
  return (picture * (1 - alpha) + colour * alpha).round().to(torch::kUInt8).contiguous();
}

torch::Tensor heat_layer(const HeatGrid& heat, double x, double y, double width, double height,
                         int64_t out_width, int64_t out_height, const HeatStyle& style,
                         double threshold) {
  const auto [values, weight] =
      sample(heat, x, y, width, height, out_width, out_height, style.smooth);
  const auto shown = (weight > 0.5).logical_and(values >= threshold);
  const auto alpha = shown.to(torch::kUInt8).mul(255).unsqueeze(-1);
  return torch::cat({colour_map(values, style.map), alpha}, 2).contiguous();
}

void write_heat_pyramid(const std::string& path, const Slide& slide, const HeatGrid& heat,
                        double downsample, const HeatStyle& style,
                        const std::function<void(int64_t, int64_t)>& progress) {
  const auto reduced = [&](int64_t extent) {
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(extent) / downsample));
  };
  const PartView view = [&](double x, double y, double width, double height, int64_t out_width,
                            int64_t out_height) {
    return heat_view(slide, heat, x * downsample, y * downsample, width * downsample,
                     height * downsample, out_width, out_height, style);
  };
  write_pyramid(path, reduced(slide.width()), reduced(slide.height()),
                slide.mpp().value * downsample, "heatmap", view, progress);
}

nlohmann::json tiles_geojson(const TileGrid& grid, const torch::Tensor& scores, double threshold,
                             const std::string& name, const std::string& label) {
  auto features = nlohmann::json::array();
  const auto at = grid.coords.accessor<int64_t, 2>();
  const auto value = scores.to(torch::kFloat).contiguous();
  const auto score = value.accessor<float, 1>();
  for (int64_t i = 0; i < grid.coords.size(0); ++i) {
    const int64_t x = at[i][0], y = at[i][1], s = grid.size_level0;
    nlohmann::json properties = {{"objectType", "detection"}, {"measurements", {{name, score[i]}}}};
    if (score[i] >= threshold) {
      properties["classification"] = {{"name", label}, {"color", {200, 0, 0}}};
    }
    features.push_back(
        {{"type", "Feature"},
         {"geometry",
          {{"type", "Polygon"},
           {"coordinates", {{{x, y}, {x + s, y}, {x + s, y + s}, {x, y + s}, {x, y}}}}}},
         {"properties", properties}});
  }
  return {{"type", "FeatureCollection"}, {"features", features}};
}

}  // namespace serpentine
