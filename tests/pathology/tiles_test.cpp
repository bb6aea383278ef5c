// Tissue, grids, streams, files and jobs of tiles.
#include "pathology/tiles.h"

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/hdf5.h"
#include "pathology/colour_encoder.h"
#include "pathology/embed_job.h"
#include "pathology/slide_files.h"
#include "pathology/slide_lock.h"
#include "pathology/stain.h"
#include "pathology/tile_job.h"

namespace serpentine {
namespace {

class Tiles : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!slides_readable() || !hdf5_available()) GTEST_SKIP() << "built without OpenCV or HDF5";
  }
  TileJob job(const std::string& out) const {
    TileJob made;
    made.out = scratch_.file(out);
    open_tile_folder(made);
    return made;
  }
  Scratch scratch_;
};

/// Glass with a pink disc of radius 60 and a stroke of blue ink; 8 micrometres a pixel.
torch::Tensor drawn_slide() {
  auto picture = torch::full({400, 400, 3}, 240, torch::kUInt8);
  const auto y = torch::arange(400).view({400, 1}), x = torch::arange(400).view({1, 400});
  const auto disc = ((y - 150).pow(2) + (x - 150).pow(2)) < 60 * 60;
  const auto hole = ((y - 150).pow(2) + (x - 150).pow(2)) < 20 * 20;
  const auto ink = (y > 300).logical_and(y < 340).logical_and(x > 50).logical_and(x < 350);
  const auto paint = [&](const torch::Tensor& where, std::array<int, 3> colour) {
    for (int64_t c = 0; c < 3; ++c)
      picture.select(2, c).masked_fill_(where, colour[static_cast<size_t>(c)]);
  };
  paint(disc, {205, 120, 180});
  paint(hole, {240, 240, 240});
  paint(ink, {20, 60, 190});
  return picture;
}

TEST_F(Tiles, TissueIsFoundWithHoleAndWithoutInk) {
  const Tissue tissue = find_tissue(drawn_slide(), 1, 8);
  ASSERT_EQ(tissue.contours.size(), 1U);
  EXPECT_EQ(tissue.contours[0].holes.size(), 1U);
  EXPECT_NEAR(tissue.fraction(), 3.14159 * (60 * 60 - 20 * 20) / 160000, 0.004);
  EXPECT_GT(tissue.pen_fraction(), 0.05);
  EXPECT_EQ(tissue.mask[320][200].item<int>(), 0);
  TissueOptions keep;
  keep.reject_pen = false;
  EXPECT_EQ(find_tissue(drawn_slide(), 1, 8, keep).contours.size(), 2U);
  const auto json = tissue_geojson(tissue);
  ASSERT_EQ(json["features"].size(), 1U);
  const auto& rings = json["features"][0]["geometry"]["coordinates"];
  ASSERT_EQ(rings.size(), 2U);
  EXPECT_EQ(rings[0].front(), rings[0].back());
}

TEST_F(Tiles, EntropyFindsTextureWithoutColour) {
  auto grey = torch::full({300, 300, 3}, 235, torch::kUInt8);
  torch::manual_seed(1);
  const auto noise = torch::randint(110, 240, {120, 120, 1}, torch::kLong).to(torch::kUInt8);
  grey.slice(0, 90, 210).slice(1, 90, 210).copy_(noise.expand({120, 120, 3}));
  TissueOptions options;
  options.method = "entropy";
  EXPECT_NEAR(find_tissue(grey, 1, 8, options).fraction(), 0.16, 0.03);
}

TEST_F(Tiles, GlassHoldsNoTissue) {
  torch::manual_seed(1);
  const auto glass = torch::randint(232, 246, {300, 300, 3}, torch::kLong).to(torch::kUInt8);
  EXPECT_TRUE(find_tissue(glass, 1, 8).contours.empty());
}

TEST_F(Tiles, GridHasTheResolutionAskedFor) {
  const auto slide = open_slide(sample_slide());
  const Tissue tissue = find_tissue(*slide);
  TileOptions options;
  options.mpp = 0.998;
  options.overlap = 64;
  const TileGrid grid = plan_tiles(*slide, tissue, options);
  EXPECT_EQ(grid.size_level0, 512);
  EXPECT_EQ(grid.step_level0, 384);
  EXPECT_GT(grid.coords.size(0), 10);
  // a tile of the edge may stick out, but a quarter of it (min_tissue) lies on the slide
  EXPECT_LE(grid.coords.select(1, 0).max().item<int64_t>() + 128, 2220);
  EXPECT_LE(grid.coords.select(1, 1).max().item<int64_t>() + 128, 2967);
  EXPECT_EQ(grid.coords.remainder(384).abs().sum().item<int64_t>(), 0);
  options.mpp = 0.1;
  EXPECT_ANY_THROW(plan_tiles(*slide, tissue, options));
}

TEST_F(Tiles, StreamGivesTheTilesInOrderWithAnyNumberOfThreads) {
  const auto slide = open_slide(sample_slide());
  const TileGrid grid = plan_tiles(*slide, find_tissue(*slide), {});
  std::vector<torch::Tensor> runs;
  for (const int64_t threads : {1, 4}) {
    TileStream stream(*slide, grid, {threads, 7, 3, true});
    std::vector<torch::Tensor> all;
    while (const auto batch = stream.next()) {
      EXPECT_EQ(batch->sharpness.size(), static_cast<size_t>(batch->pictures.size(0)));
      all.push_back(batch->pictures);
    }
    runs.push_back(torch::cat(all));
  }
  EXPECT_EQ(runs[0].size(0), grid.coords.size(0));
  EXPECT_TRUE(runs[0].equal(runs[1]));
  TileStream abandoned(*slide, grid, {2, 4, 2, false});
  EXPECT_TRUE(abandoned.next().has_value());  // its threads end with it
}

TEST_F(Tiles, CoordinatesOfBothLayoutsComeBack) {
  const auto slide = open_slide(sample_slide());
  TileOptions options;
  options.mpp = 1;
  const TileGrid grid = plan_tiles(*slide, find_tissue(*slide), options);
  for (const auto layout : {TileLayout::kTrident, TileLayout::kClam}) {
    const std::string path = scratch_.file("coords.h5");
    write_coords(path, record_of("cmu", *slide, grid), layout);
    const TileRecord back = read_coords(path);
    EXPECT_EQ(back.name, "cmu");
    EXPECT_EQ(back.grid.size, 256);
    EXPECT_EQ(back.grid.size_level0, grid.size_level0);
    EXPECT_EQ(back.grid.size_read, grid.size_read);
    EXPECT_EQ(back.mpp_source, slide->mpp().source);
    EXPECT_TRUE(back.grid.coords.equal(grid.coords));
    const auto all = Hdf5Reader(path).attributes("coords");
    EXPECT_EQ(std::get<int64_t>(all.at("patch_size")),
              layout == TileLayout::kClam ? grid.size_read : 256);
    for (const char* key :
         {"patch_level", "patch_size_level0", "target_magnification", "level0_width"}) {
      EXPECT_EQ(all.count(key), 1U) << key;
    }
  }
}

TEST_F(Tiles, JobFindsDamageAndResumes) {
  TileJob tiling = job("tiles");
  const std::string path = scratch_.file("damaged.svs");
  write_damaged_slide(path);
  const SlideFile file{path, "damaged"};
  const SlideReport first = tile_slide(file, tiling);
  EXPECT_EQ(first.outcome, SlideReport::Outcome::kDone) << first.sentence();
  EXPECT_GT(first.content["tiles_unreadable"].get<int>(), 0);
  EXPECT_EQ(first.content["tiles"].get<int>() + first.content["tiles_unreadable"].get<int>(),
            first.content["tiles_planned"].get<int>());
  EXPECT_TRUE(std::filesystem::exists(tiling.out + "/bad_regions/damaged.geojson"));
  EXPECT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kSkipped);
  // another process works on it
  std::string holder;
  tiling.again = true;
  {
    const auto lock = SlideLock::take(tiling.out + "/locks/damaged.lock", holder);
    ASSERT_TRUE(lock.has_value());
    EXPECT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kBusy);
  }
  EXPECT_EQ(tile_slide(file, tiling).outcome, SlideReport::Outcome::kDone);
  tiling.again = false;
  tiling.tile.size = 128;
  EXPECT_ANY_THROW(open_tile_folder(tiling));
}

TEST_F(Tiles, LockOfADeadProcessIsTakenOver) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  write_bytes(scratch_.file("x.lock"), std::string(host) + " 999999999\n");
  std::string holder;
  EXPECT_TRUE(SlideLock::take(scratch_.file("x.lock"), holder).has_value());
  EXPECT_FALSE(std::filesystem::exists(scratch_.file("x.lock")));
}

TEST_F(Tiles, BadSlidesAreReportedNeverThrown) {
  const TileJob tiling = job("tiles");
  const std::string bytes = bytes_of(sample_slide());
  write_bytes(scratch_.file("cut.svs"), bytes.substr(0, bytes.size() / 2));
  write_image(scratch_.file("unknown.png"), drawn_slide());
  write_image(scratch_.file("glass.png"), torch::full({600, 600, 3}, 243, torch::kUInt8));
  TileJob with_mpp = tiling;
  with_mpp.slide.default_mpp = 0.5;
  EXPECT_EQ(tile_slide({scratch_.file("cut.svs"), "cut"}, tiling).outcome,
            SlideReport::Outcome::kFailed);
  const auto unknown = tile_slide({scratch_.file("unknown.png"), "unknown"}, tiling);
  EXPECT_EQ(unknown.outcome, SlideReport::Outcome::kFailed);
  EXPECT_NE(unknown.sentence().find("--default-mpp"), std::string::npos) << unknown.sentence();
  EXPECT_EQ(tile_slide({scratch_.file("glass.png"), "glass"}, with_mpp).outcome,
            SlideReport::Outcome::kNoTissue);
  EXPECT_EQ(summarise_tiles(tiling.out), 2);
  const std::string csv = bytes_of(tiling.out + "/quarantine.csv");
  EXPECT_NE(csv.find("cut.svs"), std::string::npos);
  EXPECT_EQ(csv.find("glass"), std::string::npos);
}

TEST_F(Tiles, FeaturesLeaveOutWhatCannotBeRead) {
  const std::string path = scratch_.file("damaged.svs");
  write_damaged_slide(path);
  TileJob tiling = job("tiles");
  tiling.read = false;
  ASSERT_EQ(tile_slide({path, "damaged"}, tiling).outcome, SlideReport::Outcome::kDone);
  const TileRecord record = read_coords(tiling.out + "/coords/damaged.h5");
  EmbedJob embedding;
  embedding.out = scratch_.file("features");
  embedding.formats = {"h5", "pt", "safetensors"};
  embedding.encoder = "colour";
  embedding.stain = "macenko";
  open_feature_folder(embedding);
  const auto report = embed_slide({path, "damaged"}, record, colour_features, embedding);
  ASSERT_EQ(report.outcome, SlideReport::Outcome::kDone) << report.sentence();
  const int64_t bad = report.content["tiles_unreadable"], kept = report.content["tiles"];
  EXPECT_GT(bad, 0);
  EXPECT_EQ(bad + kept, record.grid.coords.size(0));
  const Hdf5Reader file(embedding.out + "/h5_files/damaged.h5");
  const std::vector<int64_t> shape = {kept, kColourFeatures};
  EXPECT_EQ(file.shape("features"), shape);
  EXPECT_EQ(file.shape("coords").front(), kept);
  EXPECT_TRUE(std::filesystem::exists(embedding.out + "/pt_files/damaged.pt"));
  EXPECT_TRUE(std::filesystem::exists(embedding.out + "/damaged.safetensors"));
  EXPECT_EQ(embed_slide({path, "damaged"}, record, colour_features, embedding).outcome,
            SlideReport::Outcome::kSkipped);
  embedding.again = true;
  const TileEncoder broken = [](const torch::Tensor& t) {
    return torch::full({t.size(0), 3}, std::nan(""), torch::kFloat);
  };
  EXPECT_EQ(embed_slide({path, "damaged"}, record, broken, embedding).outcome,
            SlideReport::Outcome::kFailed);
}

TEST_F(Tiles, StainsMoveToTheTargetAndGlassStays) {
  const auto slide = open_slide(sample_slide());
  const auto tile = slide->read(900, 900, 0, 512, 512);
  for (const char* method : {"macenko", "reinhard"}) {
    const StainNormaliser stain(method);
    const StainFit fit = stain.fit(tile.view({-1, 3}));
    ASSERT_TRUE(fit.defined());
    // fitted to itself nothing moves but by rounding
    StainNormaliser same(method);
    same.set_target(fit);
    const auto back = same.apply(tile, fit).to(torch::kFloat);
    const double most =
        std::string(method) == "macenko" ? 8 : 1.0;  // Macenko keeps two of three colours
    EXPECT_LT((back - tile.to(torch::kFloat)).abs().mean().item<double>(), most) << method;
    // a second normalisation finds the target's own colours
    const StainFit again = stain.fit(stain.apply(tile, fit).view({-1, 3}));
    ASSERT_TRUE(again.defined());
    const auto glass = torch::full({8, 8, 3}, 239, torch::kUInt8);
    EXPECT_LE((stain.apply(glass, fit).to(torch::kInt) - 239).abs().max().item<int>(), 12)
        << method;
    EXPECT_FALSE(stain.fit(glass.view({-1, 3})).defined());
  }
}

TEST_F(Tiles, ColourFeaturesTellTissueFromGlass) {
  const auto slide = open_slide(sample_slide());
  const auto tissue = slide->read(900, 1500, 0, 256, 256).unsqueeze(0);
  const auto glass = slide->read(20, 200, 0, 256, 256).unsqueeze(0);
  const auto features = colour_features(torch::cat({tissue, glass}));
  EXPECT_EQ(features.size(1), kColourFeatures);
  EXPECT_TRUE(features.isfinite().all().item<bool>());
  EXPECT_GT(features[1][40].item<float>(), 0.9F);  // the share of glass
  EXPECT_LT(features[0][40].item<float>(), 0.6F);
}

}  // namespace
}  // namespace serpentine
