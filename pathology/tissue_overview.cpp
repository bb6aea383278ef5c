// The parts of tissue.h that need no OpenCV of their own.
#include <algorithm>
#include <cmath>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "pathology/tissue.h"

namespace serpentine {

void TissueOptions::fields(Fields& f) {
  f("method", method, "how tissue is told from glass", {.choices = {"otsu", "entropy", "fixed"}});
  f("threshold", threshold, "least saturation of 255, for method fixed", {.least = 0, .most = 255});
  f("mpp", mpp, "micrometres of a mask pixel", {.least = 0.1});
  f("min_area", min_area, "smaller pieces are dropped, square micrometres", {.least = 0});
  f("min_hole", min_hole, "smaller holes are filled, square micrometres", {.least = 0});
  f("close", close, "pieces nearer than this are joined, micrometres", {.least = 0});
  f("reject_pen", reject_pen, "leave out ink of felt pens");
}

Tissue find_tissue(const Slide& slide, const TissueOptions& options) {
  constexpr double kLeast = 768, kMost = 6000;  // pixels along the longer side
  const double mpp = slide.mpp().value;
  const auto longest = static_cast<double>(std::max(slide.width(), slide.height()));
  double scale = mpp > 0 ? options.mpp / mpp : 16;
  scale = std::max(1.0, std::clamp(scale, longest / kMost, std::max(1.0, longest / kLeast)));
  const auto width = static_cast<double>(slide.width()),
             height = static_cast<double>(slide.height());
  const auto pixels = [&](double n) { return std::max<int64_t>(1, std::llround(n / scale)); };
  // what cannot be read counts as tissue: its tiles are tried and reported, not overlooked
  const auto overview =
      read_view(slide, 0, 0, width, height, pixels(width), pixels(height), {200, 120, 180});
  return find_tissue(overview, scale, mpp * scale, options);
}

double Tissue::fraction() const { return mask.to(torch::kDouble).mean().item<double>(); }

double Tissue::pen_fraction() const { return pen.to(torch::kDouble).mean().item<double>(); }

nlohmann::json tissue_geojson(const Tissue& tissue) {
  const auto ring = [](const torch::Tensor& points) {
    auto list = nlohmann::json::array();
    const auto at = points.accessor<int64_t, 2>();
    for (int64_t i = 0; i < points.size(0); ++i) list.push_back({at[i][0], at[i][1]});
    list.push_back({at[0][0], at[0][1]});  // GeoJSON closes its rings
    return list;
  };
  auto features = nlohmann::json::array();
  for (const auto& contour : tissue.contours) {
    auto rings = nlohmann::json::array({ring(contour.outline)});
    for (const auto& hole : contour.holes) {
      if (hole.size(0) >= 3) rings.push_back(ring(hole));
    }
    features.push_back({{"type", "Feature"},
                        {"geometry", {{"type", "Polygon"}, {"coordinates", rings}}},
                        {"properties",
                         {{"objectType", "annotation"},
                          {"classification", {{"name", "Tissue"}, {"color", {46, 160, 67}}}},
                          {"tissue_id", features.size()}}}});
  }
  return {{"type", "FeatureCollection"}, {"features", features}};
}

}  // namespace serpentine
