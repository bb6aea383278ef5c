// Tiles at the slide's edges, on damaged levels, and augmented.
#include <set>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/hdf5.h"
#include "pathology/bag_file.h"
#include "pathology/colour_encoder.h"
#include "pathology/embed_job.h"
#include "pathology/heatmap.h"
#include "pathology/slide_files.h"
#include "pathology/tile_augment.h"

namespace serpentine {
namespace {

class TileEdges : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!slides_readable() || !hdf5_available()) GTEST_SKIP() << "built without OpenCV or HDF5";
  }
  std::shared_ptr<Slide> picture(int64_t height, int64_t width) const {
    const std::string path = scratch_.file("pink.png");
    auto pink = torch::full({height, width, 3}, 120, torch::kUInt8);
    pink.select(2, 0).fill_(205);
    pink.select(2, 2).fill_(180);
    write_image(path, pink);
    return open_slide(path);
  }
  /// Corners of tiles of 256 pixels where everything is tissue.
  static std::vector<std::pair<int64_t, int64_t>> corners(const Slide& slide, double min_tissue,
                                                          int64_t overlap = 0) {
    Tissue tissue;
    tissue.scale = 4;
    tissue.mask = torch::ones({(slide.height() + 3) / 4, (slide.width() + 3) / 4}, torch::kUInt8);
    TileOptions options;
    options.downsample = 1;
    options.min_tissue = min_tissue;
    options.overlap = overlap;
    const TileGrid grid = plan_tiles(slide, tissue, options);
    std::vector<std::pair<int64_t, int64_t>> all;
    for (int64_t i = 0; i < grid.coords.size(0); ++i)
      all.emplace_back(grid.coords[i][0].item<int64_t>(), grid.coords[i][1].item<int64_t>());
    return all;
  }
  Scratch scratch_;
};

using Corners = std::vector<std::pair<int64_t, int64_t>>;

TEST_F(TileEdges, TheRightAndLowerEdgeAreCovered) {
  const auto slide = picture(500, 600);  // 88 of 256 pixels in the last column, 244 in the last row
  EXPECT_EQ(corners(*slide, 0.25),
            (Corners{{0, 0}, {256, 0}, {512, 0}, {0, 256}, {256, 256}, {512, 256}}));
  EXPECT_EQ(corners(*slide, 0.5), (Corners{{0, 0}, {256, 0}, {0, 256}, {256, 256}}));
  // with an overlap no tile is added beyond the one that reaches the edge
  EXPECT_EQ(corners(*picture(256, 512), 0.25, 128), (Corners{{0, 0}, {128, 0}, {256, 0}}));
  EXPECT_EQ(corners(*picture(256, 512), 0.25), (Corners{{0, 0}, {256, 0}}));
  EXPECT_EQ(corners(*picture(90, 100), 0.25), (Corners{{0, 0}})) << "smaller than a tile";
}

TEST_F(TileEdges, WhatSticksOutIsWhite) {
  const auto slide = picture(500, 600);
  TileGrid grid;
  grid.size = grid.size_level0 = grid.size_read = 256;
  TileState state{};
  const auto tile = read_tile(*slide, grid, 512, 0, state);
  EXPECT_EQ(state, TileState::kGood);
  EXPECT_TRUE(tile.slice(1, 88).eq(255).all().item<bool>());
  EXPECT_EQ(tile[100][80][1].item<int>(), 120);
}

TEST_F(TileEdges, ADamagedTileComesFromACoarserLevel) {
  if (!libtiff_available()) GTEST_SKIP() << "built without libtiff";
  const PartView view = [](double x, double y, double width, double height, int64_t w, int64_t h) {
    const auto column = (torch::arange(w) + 0.5) * (width / static_cast<double>(w)) + x;
    const auto row = (torch::arange(h) + 0.5) * (height / static_cast<double>(h)) + y;
    auto out = torch::empty({h, w, 3}, torch::kUInt8);
    out.select(2, 0).copy_((column / 8).unsqueeze(0).expand({h, w}));
    out.select(2, 1).copy_((row / 8).unsqueeze(1).expand({h, w}));
    out.select(2, 2).fill_(100);
    return out;
  };
  const std::string path = scratch_.file("slope.ome.tif");
  write_pyramid(path, 2048, 1536, 0.5, "slope", view);
  // the first tile of level 0 loses its beginning
  std::string bytes = bytes_of(path);
  const auto first = bytes.find("\xff\xd8\xff");
  ASSERT_NE(first, std::string::npos);
  bytes.replace(first, 600, 600, '\0');
  write_bytes(path, bytes);
  const auto slide = open_slide(path);
  ASSERT_GE(slide->levels().size(), 2U);
  TileGrid grid;
  grid.size = grid.size_level0 = grid.size_read = 256;
  int64_t coarser = 0, good = 0;
  for (int64_t y = 0; y < 1536; y += 256) {
    for (int64_t x = 0; x < 2048; x += 256) {
      TileState state{};
      const auto tile = read_tile(*slide, grid, x, y, state).to(torch::kInt);
      ASSERT_NE(state, TileState::kUnreadable) << x << ", " << y;
      ++(state == TileState::kCoarser ? coarser : good);
      const auto at = static_cast<double>(x), down = static_cast<double>(y);
      const auto want = view(at, down, 256, 256, 256, 256).to(torch::kInt);
      EXPECT_LE((tile - want).abs().to(torch::kFloat).mean().item<float>(), 3.0F)
          << "the coarser level shows the same place: " << x << ", " << y;
    }
  }
  EXPECT_EQ(coarser, 4) << "the tiles of one block of 512 pixels";
  EXPECT_EQ(good, 44);
}

TEST_F(TileEdges, CopiesAreTurnedAndStainedByTheSeed) {
  torch::manual_seed(3);
  const auto tiles = torch::randint(60, 250, {5, 16, 16, 3}, torch::kLong).to(torch::kUInt8);
  const auto corners = torch::arange(10, torch::kLong).view({5, 2}) * 256;
  TileAugment options;
  options.stain = 0;
  const auto turned = augmented_tiles(tiles, corners, "slide", 0, options);
  std::set<int64_t> positions;
  for (int64_t i = 0; i < 5; ++i) {  // one of the eight positions of the same square
    int64_t found = -1;
    for (int64_t p = 0; p < 8; ++p) {
      const auto mirrored = p % 2 == 1 ? tiles[i].flip(1) : tiles[i];
      if (turned[i].equal(torch::rot90(mirrored, p / 2, {0, 1}))) found = p;
    }
    EXPECT_GE(found, 0) << i;
    positions.insert(found);
  }
  EXPECT_GT(positions.size(), 1U);

  options.stain = 0.05;
  const auto first = augmented_tiles(tiles, corners, "slide", 0, options);
  EXPECT_TRUE(first.equal(augmented_tiles(tiles, corners, "slide", 0, options)));
  EXPECT_TRUE(first[3].equal(
      augmented_tiles(tiles.slice(0, 3, 4), corners.slice(0, 3, 4), "slide", 0, options)[0]))
      << "the batch must not matter";
  EXPECT_FALSE(first.equal(augmented_tiles(tiles, corners, "slide", 1, options)));
  EXPECT_FALSE(first.equal(augmented_tiles(tiles, corners, "other", 0, options)));
  options.seed = 2;
  EXPECT_FALSE(first.equal(augmented_tiles(tiles, corners, "slide", 0, options)));
  // the jitter is slight: a flat tile keeps its place, whatever its position
  const auto flat =
      torch::tensor({205, 120, 180}, torch::kLong).to(torch::kUInt8).expand({5, 16, 16, 3});
  const auto moved = augmented_tiles(flat, corners, "slide", 0, options).to(torch::kInt);
  const auto away = (moved - flat.to(torch::kInt)).abs();
  EXPECT_GT(away.max().item<int>(), 0);
  EXPECT_LE(away.max().item<int>(), 45);
}

TEST_F(TileEdges, CopiesStandBesideTheFeatures) {
  TileJob tiling;
  tiling.out = scratch_.file("tiles");
  tiling.read = false;
  tiling.tile.mpp = 1;
  open_tile_folder(tiling);
  const SlideFile file{sample_slide(), "cmu"};
  ASSERT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kDone);
  const TileRecord record = read_coords(tiling.out + "/coords/cmu.h5");
  EmbedJob plain;
  plain.out = scratch_.file("plain");
  plain.encoder = "colour";
  open_feature_folder(plain);
  ASSERT_EQ(embed_slide(file, record, colour_features, plain).outcome, SlideReport::Outcome::kDone);
  EmbedJob both = plain;
  both.out = scratch_.file("both");
  both.augment.copies = 2;
  both.formats = {"h5", "safetensors"};
  open_feature_folder(both);
  ASSERT_EQ(embed_slide(file, record, colour_features, both).outcome, SlideReport::Outcome::kDone);
  const auto features = read_tile_features(plain.out + "/h5_files/cmu.h5").features;
  for (const char* name : {"/h5_files/cmu.h5", "/cmu.safetensors"}) {
    const TileFeatures seen = read_tile_features(both.out + name, true);
    EXPECT_TRUE(seen.features.equal(features)) << name << ": the features stay those of the tiles";
    ASSERT_TRUE(seen.copies.defined()) << name;
    EXPECT_EQ(seen.copies.sizes(), (std::vector<int64_t>{2, features.size(0), features.size(1)}));
    EXPECT_FALSE(seen.copies[0].equal(seen.copies[1]));
    EXPECT_FALSE(read_tile_features(both.out + name).copies.defined()) << "only when asked for";
  }
  EXPECT_ANY_THROW(read_tile_features(plain.out + "/h5_files/cmu.h5", true));
  EXPECT_ANY_THROW(open_feature_folder([&] {
    EmbedJob other = plain;
    other.augment.copies = 1;
    return other;
  }()))
      << "other settings";
}

TEST_F(TileEdges, ACorrectedResolutionLeavesNoOldFeatures) {
  TileJob tiling;
  tiling.out = scratch_.file("tiles");
  tiling.read = false;
  open_tile_folder(tiling);
  const SlideFile file{sample_slide(), "cmu"};
  ASSERT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kDone);
  EmbedJob job;
  job.out = scratch_.file("features");
  job.encoder = "colour";
  open_feature_folder(job);
  const std::string coords = tiling.out + "/coords/cmu.h5", features = job.out + "/h5_files/cmu.h5";
  const auto embed = [&] { return embed_slide(file, read_coords(coords), colour_features, job); };
  const auto first = embed();
  ASSERT_EQ(first.outcome, SlideReport::Outcome::kDone);
  EXPECT_EQ(embed().outcome, SlideReport::Outcome::kSkipped);
  tiling.slide.mpp_of = {{"cmu-1-small-region", 0.3}};
  ASSERT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kDone);
  const TileEncoder broken = [](const torch::Tensor&) -> torch::Tensor {
    throw std::runtime_error("no encoder");
  };
  EXPECT_EQ(embed_slide(file, read_coords(coords), broken, job).outcome,
            SlideReport::Outcome::kFailed);
  EXPECT_FALSE(std::filesystem::exists(features)) << "features of another resolution";
  const auto again = embed();
  ASSERT_EQ(again.outcome, SlideReport::Outcome::kDone);
  EXPECT_NE(again.content["tiles"], first.content["tiles"]);
  EXPECT_TRUE(std::filesystem::exists(features));
}

}  // namespace
}  // namespace serpentine
