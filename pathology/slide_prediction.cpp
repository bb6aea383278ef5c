#include "pathology/slide_prediction.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "core/io/image.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Parts of pyramids that killed processes left.
void remove_parts(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const auto at = name.rfind(".part-");
    if (at == std::string::npos) continue;
    const int process = std::atoi(name.c_str() + at + 6);
    if (process > 0 && kill(process, 0) != 0 && errno == ESRCH) fs::remove(entry.path());
  }
}

Json json_of(const Slide& slide, const SlidePrediction& prediction, const HeatStyle& style,
             const torch::Tensor& rank, const std::vector<int64_t>& top) {
  Json json = {{"slide", prediction.name},
               {"slide_path", fs::absolute(slide.path()).string()},
               {"width", slide.width()},
               {"height", slide.height()},
               {"mpp", slide.mpp().value},
               {"mpp_source", slide.mpp().source},
               {"model", prediction.model},
               {"models", prediction.models},
               {"encoder", prediction.encoder},
               {"tiles", prediction.grid.coords.size(0)},
               {"tiles_unreadable", prediction.tiles_unreadable},
               {"tile_size_level0", prediction.grid.size_level0},
               {"tile_mpp", prediction.grid.mpp},
               {"heat_side", std::max<int64_t>(1, prediction.grid.step_level0)},
               {"calibrated", prediction.calibrated},
               {"temperatures", prediction.temperatures},
               {"seconds", prediction.seconds}};
  if (prediction.probabilities.empty()) {
    json["risk"] = prediction.risk;
  } else {
    json["label"] = prediction.probabilities[static_cast<size_t>(prediction.label)].first;
    auto probabilities = Json::object();
    for (const auto& [name, value] : prediction.probabilities) probabilities[name] = value;
    json["probabilities"] = probabilities;
  }
  if (prediction.scores.defined()) {
    json["heat"] = {{"shows", prediction.meaning.word},
                    {"meaning", prediction.meaning.phrase},
                    {"scale", "rank within the slide, 0 to 1"},
                    {"lowest", prediction.scores.min().item<double>()},
                    {"highest", prediction.scores.max().item<double>()},
                    {"colours", style.map}};
  }
  auto tiles = Json::array();
  const auto at = prediction.grid.coords.accessor<int64_t, 2>();
  for (const int64_t i : top) {
    tiles.push_back({{"x", at[i][0]},
                     {"y", at[i][1]},
                     {prediction.meaning.word, prediction.scores[i].item<double>()},
                     {"rank", rank[i].item<double>()}});
  }
  json["top_tiles"] = tiles;
  return json;
}

std::string csv_of(const SlidePrediction& prediction, const torch::Tensor& rank) {
  std::string csv = "x,y," + prediction.meaning.word + ",rank\n";
  const auto at = prediction.grid.coords.accessor<int64_t, 2>();
  char line[128];
  for (int64_t i = 0; i < prediction.grid.coords.size(0); ++i) {
    std::snprintf(line, sizeof line, "%lld,%lld,%.9g,%.6f\n", static_cast<long long>(at[i][0]),
                  static_cast<long long>(at[i][1]), prediction.scores[i].item<double>(),
                  rank[i].item<double>());
    csv += line;
  }
  return csv;
}

/// Grey and alpha of the grid itself: value and whether a tile is there.
torch::Tensor heat_picture(const HeatGrid& heat) {
  const auto value = (heat.values * 255).round().to(torch::kUInt8);
  return torch::stack({value, value, value, heat.known * 255}, 2).contiguous();
}

torch::Tensor sheet_of(const Slide& slide, const TileGrid& grid, const torch::Tensor& rank,
                       const std::vector<int64_t>& top) {
  std::vector<torch::Tensor> pictures;
  std::vector<std::string> captions;
  const auto at = grid.coords.accessor<int64_t, 2>();
  for (const int64_t i : top) {
    TileState state{};
    pictures.push_back(read_tile(slide, grid, at[i][0], at[i][1], state));
    char caption[64];
    std::snprintf(caption, sizeof caption, "%lld, %lld: %.3f", static_cast<long long>(at[i][0]),
                  static_cast<long long>(at[i][1]), rank[i].item<double>());
    captions.emplace_back(caption);
  }
  return contact_sheet(pictures, captions, 4, 200);
}

std::string capital(std::string word) {
  if (!word.empty()) word[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(word[0])));
  return word;
}

}  // namespace

std::string SlidePrediction::sentence() const {
  char text[256];
  if (probabilities.empty()) {
    std::snprintf(text, sizeof text, "risk %.4f", risk);
    return text;
  }
  const auto& [class_name, value] = probabilities[static_cast<size_t>(label)];
  std::snprintf(text, sizeof text, "%s, %s %.3f", class_name.c_str(),
                calibrated ? "calibrated probability" : "probability (not calibrated)", value);
  return text;
}

std::vector<int64_t> top_tiles(const TileGrid& grid, const torch::Tensor& scores, int64_t count) {
  const auto order = scores.argsort(0, true);
  const auto sorted = order.accessor<int64_t, 1>();
  const auto at = grid.coords.accessor<int64_t, 2>();
  std::vector<int64_t> top;
  for (int64_t i = 0; i < order.size(0) && static_cast<int64_t>(top.size()) < count; ++i) {
    const int64_t tile = sorted[i];
    const bool near = std::any_of(top.begin(), top.end(), [&](int64_t other) {
      return std::abs(at[tile][0] - at[other][0]) < grid.size_level0 &&
             std::abs(at[tile][1] - at[other][1]) < grid.size_level0;
    });
    if (!near) top.push_back(tile);
  }
  return top;
}

void write_slide_prediction(const std::string& folder, const Slide& slide, const Tissue& tissue,
                            const SlidePrediction& prediction, const PredictionFiles& options) {
  fs::create_directories(folder);
  remove_parts(folder);
  fs::remove(folder + "/prediction.json");
  std::vector<ReportPicture> pictures;
  torch::Tensor rank;
  std::vector<int64_t> top;
  if (prediction.scores.defined()) {
    rank = ranks(prediction.scores);
    const HeatGrid heat = heat_grid(prediction.grid, rank, slide.width(), slide.height());
    top = top_tiles(prediction.grid, prediction.scores, options.top);
    write_image(folder + "/heat.png", heat_picture(heat));
    const double scale =
        std::min(1.0, 1600.0 / static_cast<double>(std::max(slide.width(), slide.height())));
    const auto pixels = [&](int64_t n) {
      return std::max<int64_t>(1, std::llround(static_cast<double>(n) * scale));
    };
    const auto overlay = heat_view(slide, heat, 0, 0, static_cast<double>(slide.width()),
                                   static_cast<double>(slide.height()), pixels(slide.width()),
                                   pixels(slide.height()), options.style);
    write_image(folder + "/overlay.png", overlay);
    const auto sheet = sheet_of(slide, prediction.grid, rank, top);
    write_image(folder + "/top_tiles.png", sheet);
    write_atomically(folder + "/tiles.csv", csv_of(prediction, rank));
    const std::string word = capital(prediction.meaning.word);
    const std::string label =
        "High " + prediction.meaning.word +
        (prediction.probabilities.empty()
             ? ""
             : ": " + prediction.probabilities[static_cast<size_t>(prediction.label)].first);
    write_atomically(
        folder + "/tiles.geojson",
        tiles_geojson(prediction.grid, rank, options.threshold, word + " rank", label).dump());
    if (options.heat_mpp > 0) {
      const double mpp = slide.mpp().value;
      const double downsample = mpp > 0 ? std::max(1.0, options.heat_mpp / mpp) : 4;
      write_heat_pyramid(folder + "/heatmap.ome.tif", slide, heat, downsample, options.style,
                         [&](int64_t done, int64_t all) {
                           if (options.progress) options.progress("heatmap", done, all);
                         });
    }
    pictures.push_back({kHeatTitle, encode_image(overlay, "jpg", 88), "jpeg"});
    pictures.push_back({"Tiles of highest " + prediction.meaning.word +
                            ": corner in level-0 pixels, rank within the slide",
                        encode_image(sheet, "jpg", 90), "jpeg"});
  }
  const auto plain = thumbnail(slide, 1000);
  pictures.push_back({"The slide", encode_image(plain, "jpg", 88), "jpeg"});
  write_atomically(folder + "/report.html",
                   prediction_page(slide, tissue, prediction, options.style, pictures));
  write_atomically(folder + "/prediction.json",
                   json_of(slide, prediction, options.style, rank, top).dump(1) + "\n");
}

}  // namespace serpentine
