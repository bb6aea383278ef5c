// The tables over all slides of a folder, and the picture of one.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/image.h"
#include "core/io/json_file.h"
#include "pathology/tile_job.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A cell on one line, so that a table can be searched by lines.
std::string quoted(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return csv_cell(text);
}

std::string cell(const Json& report, const char* key) {
  if (!report.contains(key)) return "";
  const Json& value = report[key];
  if (value.is_string()) return quoted(value.get<std::string>());
  if (!value.is_number_float()) return value.dump();
  std::ostringstream out;
  out.precision(5);
  out << value.get<double>();
  return out.str();
}

void tint(torch::Tensor& picture, const torch::Tensor& where, Colour colour, double share) {
  const auto target = torch::tensor({double(colour[0]), double(colour[1]), double(colour[2])});
  const auto mask = where.ne(0).unsqueeze(-1).to(torch::kFloat) * share;
  const auto mixed = picture.to(torch::kFloat) * (1 - mask) + target.to(torch::kFloat) * mask;
  picture = mixed.round().to(torch::kUInt8).contiguous();
}

}  // namespace

torch::Tensor tile_picture(const Tissue& tissue, const TileGrid& grid,
                           const std::vector<uint8_t>& marks) {
  constexpr int64_t kSide = 1600;
  const int64_t rows = tissue.overview.size(0), columns = tissue.overview.size(1);
  const double shrink =
      std::min(1.0, static_cast<double>(kSide) / static_cast<double>(std::max(rows, columns)));
  const auto pixels = [&](int64_t n) {
    return std::max<int64_t>(1, std::llround(static_cast<double>(n) * shrink));
  };
  const auto small = [&](const torch::Tensor& plane) {
    return resize_image(plane.unsqueeze(-1).contiguous(), pixels(rows), pixels(columns),
                        Resampling::kNearest)
        .squeeze(-1);
  };
  auto picture = resize_image(tissue.overview, pixels(rows), pixels(columns), Resampling::kArea);
  tint(picture, small(tissue.pen), {255, 0, 200}, 0.6);
  const double scale = tissue.scale / shrink;
  const auto at = [&](int64_t place) { return std::llround(static_cast<double>(place) / scale); };
  static constexpr Colour kColours[] = {
      {31, 111, 235}, {240, 140, 0}, {215, 25, 28}, {170, 30, 170}};
  const auto corners = grid.coords.accessor<int64_t, 2>();
  for (int64_t i = 0; i < grid.coords.size(0); ++i) {
    const int64_t x = at(corners[i][0]), y = at(corners[i][1]);
    const int64_t w = at(corners[i][0] + grid.size_level0) - x,
                  h = at(corners[i][1] + grid.size_level0) - y;
    const uint8_t mark = marks[static_cast<size_t>(i)];
    draw_rectangle(picture, x, y, w, h, kColours[mark], mark == 0 ? 1 : 2);
  }
  const auto line = [&](const torch::Tensor& points, Colour colour) {
    const auto p = points.accessor<int64_t, 2>();
    for (int64_t i = 0; i < points.size(0); ++i) {
      const int64_t j = (i + 1) % points.size(0);
      draw_line(picture, at(p[i][0]), at(p[i][1]), at(p[j][0]), at(p[j][1]), colour, 2);
    }
  };
  for (const auto& contour : tissue.contours) {
    line(contour.outline, {20, 160, 60});
    for (const auto& hole : contour.holes) line(hole, {220, 160, 0});
  }
  return picture;
}

int64_t summarise_tiles(const std::string& folder) {
  std::map<std::string, Json> reports;
  for (const auto& entry : fs::directory_iterator(folder + "/reports")) {
    if (entry.path().extension() != ".json") continue;
    const Json report = read_json(entry.path().string());
    if (report.is_object()) reports[report.value("name", "")] = report;
  }
  static constexpr const char* kColumns[] = {
      "name",          "outcome",       "tiles",           "tiles_planned", "tiles_unreadable",
      "tiles_coarser", "tiles_blurred", "tissue_fraction", "pen_fraction",  "mpp",
      "mpp_source",    "width",         "height",          "format",        "seconds",
      "path",          "remark",        "reason"};
  std::string quality, quarantine = "name,path,reason\n";
  for (const char* column : kColumns) quality += (quality.empty() ? "" : ",") + std::string(column);
  quality += "\n";
  int64_t failed = 0;
  for (const auto& [name, report] : reports) {
    std::string row;
    for (const char* column : kColumns) row += (row.empty() ? "" : ",") + cell(report, column);
    quality += row + "\n";
    if (report.value("outcome", "") != "failed") continue;
    ++failed;
    quarantine += quoted(name) + "," + cell(report, "path") + "," + cell(report, "reason") + "\n";
  }
  write_atomically(folder + "/quality.csv", quality);
  write_atomically(folder + "/quarantine.csv", quarantine);
  return failed;
}

}  // namespace serpentine
