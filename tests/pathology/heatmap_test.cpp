// Scores as grids, pyramids, GeoJSON and the files of a prediction.
#include "pathology/heatmap.h"

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "pathology/slide_files.h"
#include "pathology/slide_prediction.h"

namespace serpentine {
namespace {

TileGrid grid_of(std::vector<int64_t> corners, int64_t size, int64_t step) {
  TileGrid grid;
  grid.size = grid.size_read = grid.size_level0 = size;
  grid.step_level0 = step;
  grid.coords = torch::tensor(corners, torch::kLong).view({-1, 2});
  return grid;
}

TEST(Heatmap, RanksShareTies) {
  const auto rank = ranks(torch::tensor({0.5, 0.1, 0.9, 0.5, 0.2}));
  const auto expected = torch::tensor({0.625F, 0.0F, 1.0F, 0.625F, 0.25F});
  EXPECT_TRUE(rank.allclose(expected)) << rank;
  EXPECT_EQ(ranks(torch::tensor({3.0}))[0].item<float>(), 1.0F);
}

TEST(Heatmap, OverlappingTilesAreAveraged) {
  // tiles of two cells' side, one cell apart
  const TileGrid grid = grid_of({0, 0, 100, 0}, 200, 100);
  const HeatGrid heat = heat_grid(grid, torch::tensor({0.2F, 0.6F}), 500, 300);
  const auto expected = torch::tensor(
      {{0.2F, 0.4F, 0.6F, 0.F, 0.F}, {0.2F, 0.4F, 0.6F, 0.F, 0.F}, {0.F, 0.F, 0.F, 0.F, 0.F}});
  EXPECT_TRUE(heat.values.allclose(expected)) << heat.values;
  EXPECT_EQ(heat.known.sum().item<int64_t>(), 6);
}

TEST(Heatmap, TopTilesDoNotOverlap) {
  const TileGrid grid = grid_of({0, 0, 50, 0, 200, 0, 200, 60, 400, 400}, 100, 50);
  const auto top = top_tiles(grid, torch::tensor({0.9, 0.8, 0.3, 0.7, 0.1}), 3);
  EXPECT_EQ(top, (std::vector<int64_t>{0, 3, 4}));
}

TEST(Heatmap, TilesForQuPathHaveMeasurements) {
  const TileGrid grid = grid_of({0, 0, 100, 0}, 100, 100);
  const auto json = tiles_geojson(grid, torch::tensor({0.2F, 0.95F}), 0.9, "Attention rank", "hot");
  ASSERT_EQ(json["features"].size(), 2U);
  EXPECT_FALSE(json["features"][0]["properties"].contains("classification"));
  EXPECT_EQ(json["features"][1]["properties"]["classification"]["name"], "hot");
  EXPECT_NEAR(json["features"][1]["properties"]["measurements"]["Attention rank"].get<double>(),
              0.95, 1e-6);
  EXPECT_EQ(json["features"][0]["geometry"]["coordinates"][0].size(), 5U);
}

class Pyramid : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!images_available() || !libtiff_available())
      GTEST_SKIP() << "built without libtiff or OpenCV";
  }
  Scratch scratch_;
};

TEST_F(Pyramid, IsReadBackWithItsLevelsAndResolution) {
  // a slope, which JPEG keeps
  const PartView view = [](double x, double y, double width, double height, int64_t w, int64_t h) {
    const auto row = (torch::arange(w) + 0.5) * (width / static_cast<double>(w)) + x;
    const auto column = (torch::arange(h) + 0.5) * (height / static_cast<double>(h)) + y;
    auto out = torch::empty({h, w, 3}, torch::kUInt8);
    out.select(2, 0).copy_((row / 8).unsqueeze(0).expand({h, w}));
    out.select(2, 1).copy_((column / 8).unsqueeze(1).expand({h, w}));
    out.select(2, 2).fill_(100);
    return out;
  };
  const std::string path = scratch_.file("slope.ome.tif");
  int64_t last = 0, all = 0;
  write_pyramid(path, 1900, 1300, 0.75, "slope", view, [&](int64_t done, int64_t of) {
    EXPECT_EQ(done, ++last);
    all = of;
  });
  EXPECT_EQ(last, all);
  const auto slide = open_slide(path);
  EXPECT_EQ(slide->format(), "tiff");
  EXPECT_EQ(slide->width(), 1900);
  ASSERT_EQ(slide->levels().size(), 3U);
  EXPECT_EQ(slide->levels()[2].width, 475);
  EXPECT_NEAR(slide->mpp().value, 0.75, 1e-9);
  EXPECT_EQ(slide->mpp().source, "OME PhysicalSizeX");
  for (int64_t level = 0; level < 3; ++level) {
    const auto scale = static_cast<double>(int64_t{1} << level);
    const auto got = slide->read(400, 300, level, 200, 150).to(torch::kInt);
    const auto want = view(400, 300, 200 * scale, 150 * scale, 200, 150).to(torch::kInt);
    EXPECT_LE((got - want).abs().to(torch::kFloat).mean().item<float>(), 2.0F) << level;
  }
  // nothing but the file is left
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch_.path()), {}), 1);
  EXPECT_ANY_THROW(write_pyramid(scratch_.file("no/such/folder.tif"), 10, 10, 0, "x", view));
}

TEST_F(Pyramid, FailureLeavesNoFile) {
  const PartView broken = [](double x, double, double, double, int64_t w, int64_t h) {
    if (x > 0) throw std::runtime_error("the slide went away");
    return torch::zeros({h, w, 3}, torch::kUInt8);
  };
  EXPECT_ANY_THROW(write_pyramid(scratch_.file("half.tif"), 2000, 400, 0, "half", broken));
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(Pyramid, PredictionWritesAllItsFiles) {
  if (!slides_readable()) GTEST_SKIP();
  const auto slide = open_slide(sample_slide());
  const Tissue tissue = find_tissue(*slide);
  SlidePrediction prediction;
  prediction.name = "cmu <1>";
  prediction.grid = plan_tiles(*slide, tissue, {});
  const int64_t tiles = prediction.grid.coords.size(0);
  prediction.scores = torch::softmax(torch::linspace(0, 3, tiles, torch::kDouble), 0);
  prediction.probabilities = {{"benign", 0.2}, {"malignant", 0.8}};
  prediction.label = 1;
  prediction.calibrated = true;
  prediction.temperatures = {1.5};
  const std::string folder = scratch_.file("out");
  std::filesystem::create_directories(folder);
  write_bytes(folder + "/heatmap.ome.tif.part-999999999", "left by a killed process");
  write_slide_prediction(folder, *slide, tissue, prediction, {});
  for (const char* name : {"report.html", "overlay.png", "heatmap.ome.tif", "heat.png",
                           "top_tiles.png", "tiles.csv", "tiles.geojson", "prediction.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder + "/" + name)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(folder + "/heatmap.ome.tif.part-999999999"));
  const auto json = nlohmann::json::parse(bytes_of(folder + "/prediction.json"));
  EXPECT_EQ(json["label"], "malignant");
  EXPECT_EQ(json["tiles"], tiles);
  const std::string page = bytes_of(folder + "/report.html");
  EXPECT_NE(page.find("cmu &lt;1&gt;"), std::string::npos);
  EXPECT_NE(page.find("calibrated probability 0.800"), std::string::npos);
  EXPECT_NE(page.find("scale turbo"), std::string::npos) << "the colour scale must be named";
  EXPECT_EQ(json["heat"]["shows"], "attention");
  EXPECT_TRUE(json["top_tiles"][0].contains("attention"));
  // risks of a survival model, in the other colours
  prediction.probabilities.clear();
  prediction.risk = -1.25;
  prediction.scores = torch::linspace(-3.5, -0.5, tiles, torch::kDouble);
  prediction.meaning = {"risk", "risk that the model would give each tile alone"};
  PredictionFiles files;
  files.style.map = "viridis";
  files.heat_mpp = 0;
  write_slide_prediction(scratch_.file("risk"), *slide, tissue, prediction, files);
  const std::string risk = bytes_of(scratch_.file("risk") + "/report.html");
  for (const char* part : {"risk -1.2500", "risk that the model would give each tile alone",
                           "scale viridis", "ramp viridis", "value -3.5<", "value -0.5<"}) {
    EXPECT_NE(risk.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(bytes_of(scratch_.file("risk") + "/tiles.csv").substr(0, 13), "x,y,risk,rank");
  EXPECT_NE(bytes_of(scratch_.file("risk") + "/tiles.geojson").find("Risk rank"),
            std::string::npos);
  // without scores there is no heat, but still an answer
  prediction.scores = torch::Tensor();
  write_slide_prediction(scratch_.file("plain"), *slide, tissue, prediction, {});
  EXPECT_TRUE(std::filesystem::exists(scratch_.file("plain") + "/prediction.json"));
  EXPECT_FALSE(std::filesystem::exists(scratch_.file("plain") + "/heat.png"));
}

}  // namespace
}  // namespace serpentine
