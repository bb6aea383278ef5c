#include "pointcloud/draw_cloud.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "core/check.h"
#include "core/io/image.h"
#include "pointcloud/cloud_source.h"

namespace serpentine {
namespace {

constexpr const char* kDrawCloudWho = "cloud picture";

// Tableau's ten colours and their lighter sisters
constexpr std::array<uint32_t, 20> kColours = {0x4E79A7, 0xF28E2B, 0xE15759, 0x76B7B2, 0x59A14F,
                                               0xEDC948, 0xB07AA1, 0xFF9DA7, 0x9C755F, 0xBAB0AC,
                                               0xA0CBE8, 0xFFBE7D, 0xFF9D9A, 0x86BCB6, 0x8CD17D,
                                               0xF1CE63, 0xD4A6C8, 0xFABFD2, 0xD7B5A6, 0x79706E};

std::array<uint8_t, 3> bytes_of_colour(uint32_t colour) {
  return {static_cast<uint8_t>(colour >> 16U & 255U), static_cast<uint8_t>(colour >> 8U & 255U),
          static_cast<uint8_t>(colour & 255U)};
}

// float64 [M, 3] of places in the unit sphere: to the right, up and towards the eye, in pixels
at::Tensor projected(const at::Tensor& places, const CloudView& view) {
  const double cy = std::cos(view.yaw), sy = std::sin(view.yaw), cp = std::cos(view.pitch),
               sp = std::sin(view.pitch);
  const at::Tensor wide = places.to(at::kDouble);
  const at::Tensor x = wide.select(1, 0), y = wide.select(1, 1), z = wide.select(1, 2);
  const at::Tensor across = x * cy - y * sy, away = x * sy + y * cy;
  const double scale = 0.42 * static_cast<double>(std::min(view.width, view.height)) * view.zoom;
  return at::stack({across * scale + static_cast<double>(view.width) / 2,
                    (away * cp - z * sp) * -scale + static_cast<double>(view.height) / 2,
                    away * sp + z * cp},
                   1)
      .contiguous();
}

void paint_points(at::Tensor& picture, const at::Tensor& places, const at::Tensor& colours,
                  const CloudView& view) {
  const int64_t count = places.size(0);
  const int64_t side = count < 20'000 ? 3 : count < 200'000 ? 2 : 1;
  const auto* place = places.const_data_ptr<double>();
  const auto* colour = colours.const_data_ptr<uint8_t>();
  auto* pixel = picture.mutable_data_ptr<uint8_t>();
  std::vector<double> nearest(static_cast<size_t>(view.width * view.height), -1e9);
  for (int64_t i = 0; i < count; ++i) {
    const double depth = place[3 * i + 2];
    const double light = std::clamp(0.75 + 0.3 * depth, 0.45, 1.0);
    const auto left = static_cast<int64_t>(std::floor(place[3 * i])),
               top = static_cast<int64_t>(std::floor(place[3 * i + 1]));
    for (int64_t y = std::max<int64_t>(top, 0); y < std::min(top + side, view.height); ++y) {
      for (int64_t x = std::max<int64_t>(left, 0); x < std::min(left + side, view.width); ++x) {
        const int64_t at = y * view.width + x;
        if (depth <= nearest[static_cast<size_t>(at)]) continue;
        nearest[static_cast<size_t>(at)] = depth;
        for (int64_t c = 0; c < 3; ++c)
          pixel[3 * at + c] = static_cast<uint8_t>(light * colour[3 * i + c]);
      }
    }
  }
}

void paint_walk(at::Tensor& picture, const at::Tensor& places, const at::Tensor& walk) {
  const at::Tensor whole = walk.to(at::kCPU, at::kLong).contiguous();
  const auto* point = whole.const_data_ptr<int64_t>();
  const auto* place = places.const_data_ptr<double>();
  const int64_t count = whole.numel();
  const auto pixel = [&](int64_t i, int64_t axis) {
    return static_cast<int64_t>(std::lround(place[3 * point[i] + axis]));
  };
  for (int64_t i = 1; i < count; ++i) {
    if (point[i] < 0 || point[i - 1] < 0) continue;
    draw_line(picture, pixel(i - 1, 0), pixel(i - 1, 1), pixel(i, 0), pixel(i, 1),
              walk_colour(static_cast<double>(i) / static_cast<double>(count)));
  }
}

}  // namespace

std::array<uint8_t, 3> walk_colour(double share) {
  std::array<uint8_t, 3> colour{};  // hues from red over green to violet, of even strength
  for (size_t c = 0; c < 3; ++c) {
    const double turn = std::fmod(300 * share + 360 - 120.0 * static_cast<double>(c), 360);
    const double apart = std::min(turn, 360 - turn);
    colour[c] =
        static_cast<uint8_t>(std::lround(61 + 184 * std::clamp((120 - apart) / 60, 0.0, 1.0)));
  }
  return colour;
}

void check_scene(const CloudScene& scene) {
  check_shape(kDrawCloudWho, scene.points, "points", {-1, 3}, "N, 3");
  const int64_t count = scene.points.size(0);
  SERPENTINE_CHECK(count > 0 && !scene.layers.empty(), kDrawCloudWho,
                   "there must be a point and a layer of colours");
  for (const auto& layer : scene.layers)
    check_shape(kDrawCloudWho, layer.colours, "colours", {count, 3}, "N, 3");
  if (!scene.walk.defined() || scene.walk.numel() == 0) return;
  SERPENTINE_CHECK(
      scene.walk.min().item<int64_t>() >= -1 && scene.walk.max().item<int64_t>() < count,
      kDrawCloudWho, "the traversal must name points below ", count);
}

at::Tensor as_seen(const at::Tensor& place, const at::Tensor& points) {
  const at::Tensor wide = points.to(at::kCPU, at::kDouble), centre = wide.mean(0);
  const double radius = (wide - centre).square().sum(1).max().sqrt().item<double>();
  const at::Tensor away = place.to(at::kCPU, at::kDouble) - centre;
  return (radius > 0 ? away / radius : away).to(at::kFloat).contiguous();
}

at::Tensor cloud_picture(const CloudScene& scene, size_t layer, const CloudView& view) {
  check_scene(scene);
  SERPENTINE_CHECK(layer < scene.layers.size(), kDrawCloudWho, "there is no layer ", layer);
  SERPENTINE_CHECK(view.width > 0 && view.height > 0, kDrawCloudWho, "a picture needs pixels");
  at::Tensor picture = at::full({view.height, view.width, 3}, 17, at::kByte);
  const at::Tensor places = projected(as_seen(scene.points, scene.points), view);
  const auto& of = scene.layers[layer];
  paint_points(picture, places, of.colours.to(at::kCPU, at::kByte).contiguous(), view);
  if (scene.walk.defined()) paint_walk(picture, places, scene.walk);
  for (const auto& mark : scene.marks) {
    const at::Tensor place =
        at::tensor({mark.place[0], mark.place[1], mark.place[2]}, at::kDouble).unsqueeze(0);
    const at::Tensor at = projected(as_seen(place, scene.points), view);
    draw_text(picture, std::lround(at[0][0].item<double>()), std::lround(at[0][1].item<double>()),
              mark.text, {230, 230, 230}, 0.4);
  }
  int64_t line = 20;
  for (const auto& key : of.keys) {
    draw_text(picture, 10, line, key.text, key.colour, 0.5);
    line += 18;
  }
  return picture;
}

at::Tensor class_colours(const at::Tensor& classes) {
  const auto count = static_cast<int64_t>(kColours.size());
  const at::Tensor table = at::empty({count, 3}, at::kByte);
  auto* to = table.mutable_data_ptr<uint8_t>();
  for (const uint32_t colour : kColours) {
    for (const uint8_t part : bytes_of_colour(colour)) *to++ = part;
  }
  return table.index_select(0, classes.to(at::kCPU, at::kLong).remainder(count));
}

std::vector<CloudKey> class_keys(const std::vector<std::string>& classes) {
  std::vector<CloudKey> keys;
  for (size_t i = 0; i < classes.size(); ++i)
    keys.push_back({classes[i], bytes_of_colour(kColours[i % kColours.size()])});
  return keys;
}

at::Tensor ramp_colours(const at::Tensor& values) {
  const at::Tensor wide = values.to(at::kCPU, at::kDouble).nan_to_num(), least = wide.min();
  const at::Tensor share = (wide - least) / (wide.max() - least).clamp_min(1e-12);
  return (at::stack({share, 1 - (2 * share - 1).abs(), 1 - share}, 1) * 255).round().to(at::kByte);
}

PointCloud coloured(const PointCloud& cloud, const at::Tensor& colours) {
  check_shape("colours", colours, "colours", {cloud.size(), 3}, "N, 3");
  PointCloud out = cloud;
  constexpr std::array<const char*, 3> kNames = {"red", "green", "blue"};
  for (int64_t i = 0; i < 3; ++i)
    out.set(kNames[static_cast<size_t>(i)], colours.select(1, i).to(at::kByte).contiguous(),
            NumberType::kU8);
  return out;
}

}  // namespace serpentine
