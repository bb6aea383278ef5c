// Opening real and damaged slides, resolution rules, views.
#include "pathology/slide.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pathology/frame_colour.h"
#include "pathology/pixels.h"
#include "pathology/slide_files.h"

namespace serpentine {
namespace {

class Slides : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!slides_readable()) GTEST_SKIP() << "built without OpenSlide, libtiff or OpenCV";
  }
  Scratch scratch_;
};

std::string why(const std::string& path) {
  try {
    open_slide(path);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST_F(Slides, KnowTheirSizeAndResolution) {
  const auto slide = open_slide(sample_slide());
  EXPECT_EQ(slide->width(), 2220);
  EXPECT_EQ(slide->height(), 2967);
  EXPECT_NEAR(slide->mpp().value, 0.499, 1e-9);
  EXPECT_EQ(slide->mpp().source, openslide_version().empty() ? "aperio.MPP" : "openslide.mpp-x");
  EXPECT_EQ(slide->level_for(1), 0);
  const auto names = slide->associated_names();
  EXPECT_NE(std::find(names.begin(), names.end(), "label"), names.end());
  EXPECT_GT(slide->associated("macro").size(1), 100);
  EXPECT_ANY_THROW(slide->associated("nothing"));
}

TEST_F(Slides, ReadTheSamePixelsThroughOpenSlideAndLibtiff) {
  if (openslide_version().empty() || !libtiff_available()) GTEST_SKIP();
  const auto one = open_with_openslide(sample_slide(), {}, /*direct=*/false),
             two = open_with_openslide(sample_slide(), {});
  ASSERT_TRUE(one && two && open_whole_tiles(sample_slide()));
  // across borders of tiles, and beyond the right and the lower edge
  for (const auto& [x, y] : {std::pair{700, 900}, {2100, 2800}, {-50, -20}}) {
    const auto a = one->read(x, y, 0, 300, 260).to(torch::kInt);
    const auto b = two->read(x, y, 0, 300, 260).to(torch::kInt);
    EXPECT_LE((a - b).abs().max().item<int>(), 0) << x << ", " << y;
  }
}

TEST_F(Slides, OutsideIsWhite) {
  const auto slide = open_slide(sample_slide());
  const auto outside = slide->read(5000, 5000, 0, 16, 16);
  EXPECT_TRUE(outside.eq(255).all().item<bool>());
}

TEST_F(Slides, ResolutionRulesInTheirSequence) {
  SlideOptions options;
  options.mpp_of["cmu-1-small-region.svs"] = 0.25;
  EXPECT_EQ(open_slide(sample_slide(), options)->mpp().source, "CSV");
  EXPECT_EQ(open_slide(sample_slide(), options)->mpp().value, 0.25);
  // a picture knows nothing
  const std::string png = scratch_.file("plain.png");
  write_image(png, torch::full({64, 80, 3}, 200, torch::kUInt8));
  EXPECT_EQ(open_slide(png)->mpp().value, 0);
  SlideOptions fallback;
  fallback.default_mpp = 0.5;
  EXPECT_EQ(open_slide(png, fallback)->mpp().source, "default");
}

TEST_F(Slides, ReadsResolutionsFromCsv) {
  const std::string csv = scratch_.file("mpp.csv");
  write_bytes(csv, "slide,mpp\na.svs,0.5\nsub/b.tif,0.25\nc.svs,\n");
  const auto found = read_mpp_csv(csv);
  EXPECT_EQ(found.size(), 2U);
  EXPECT_EQ(found.at("b.tif"), 0.25);
  write_bytes(csv, "slide,mpp\na.svs,many\n");
  EXPECT_ANY_THROW(read_mpp_csv(csv));
  write_bytes(csv, "name,size\n");
  EXPECT_ANY_THROW(read_mpp_csv(csv));
}

TEST_F(Slides, DamagedTilesLeaveTheOthersReadable) {
  const std::string path = scratch_.file("damaged.svs");
  write_damaged_slide(path);
  const auto slide = open_slide(path);
  const auto whole = open_slide(sample_slide());
  int64_t bad = 0, same = 0;
  for (int64_t y = 0; y + 240 <= 2880; y += 240) {
    for (int64_t x = 0; x + 240 <= 2160; x += 240) {
      try {
        same += slide->read(x, y, 0, 240, 240).equal(whole->read(x, y, 0, 240, 240));
      } catch (const std::exception& error) {
        EXPECT_NE(std::string(error.what()).find("damaged.svs"), std::string::npos);
        ++bad;
      }
    }
  }
  EXPECT_GT(bad, 0);
  EXPECT_LT(bad, 20);
  EXPECT_EQ(bad + same, 108);
}

TEST_F(Slides, FramesThatAreYccAreKnownByTheirOwnHeader) {
  // a smooth picture as a JFIF frame within a file, as DICOM has it
  const auto ramp = torch::arange(64, torch::kFloat) * 2;
  auto picture = torch::empty({64, 64, 3}, torch::kUInt8);
  picture.select(2, 0).copy_((ramp + 100).view({1, 64}).expand({64, 64}));
  picture.select(2, 1).copy_((ramp + 20).view({64, 1}).expand({64, 64}));
  picture.select(2, 2).fill_(150);
  const std::string frame = encode_image(picture, "jpg", 95);
  const std::string path = scratch_.file("frames.dcm");
  write_bytes(path, std::string(1000, 'h') + frame + std::string(500, 't'));
  const auto f = picture.to(torch::kFloat);
  const auto r = f.select(2, 0), g = f.select(2, 1), b = f.select(2, 2);
  const auto ycc =
      torch::stack({0.299 * r + 0.587 * g + 0.114 * b, 128 - 0.168736 * r - 0.331264 * g + 0.5 * b,
                    128 + 0.5 * r - 0.418688 * g - 0.081312 * b},
                   2)
          .round()
          .clamp(0, 255)
          .to(torch::kUInt8)
          .contiguous();
  const auto seen = [](const torch::Tensor& as) {
    return [as](int64_t w, int64_t h) {
      EXPECT_EQ(w, 64);
      EXPECT_EQ(h, 64);
      return as;
    };
  };
  EXPECT_TRUE(frames_are_ycc(path, seen(ycc)));
  EXPECT_FALSE(frames_are_ycc(path, seen(picture))) << "a reader that believes the frame";
  write_bytes(path, std::string(1000, 'h') + frame.substr(0, 40));
  EXPECT_FALSE(frames_are_ycc(path, seen(ycc))) << "no whole frame";
  auto back = ycc.clone();
  ycc_to_rgb(back.data_ptr<uint8_t>(), 64 * 64);
  EXPECT_LE((back.to(torch::kInt) - picture.to(torch::kInt)).abs().max().item<int>(), 2);
}

TEST_F(Slides, RefusesWhatIsNone) {
  const std::string bytes = bytes_of(sample_slide());
  write_bytes(scratch_.file("cut.svs"), bytes.substr(0, bytes.size() / 2));
  EXPECT_NE(why(scratch_.file("cut.svs")).find("cut.svs"), std::string::npos);
  write_bytes(scratch_.file("empty.svs"), "");
  EXPECT_NE(why(scratch_.file("empty.svs")).find("empty"), std::string::npos);
  write_bytes(scratch_.file("text.svs"), "not a slide at all, but long enough to be looked at");
  EXPECT_NE(why(scratch_.file("text.svs")), "");
  EXPECT_NE(why(scratch_.file("absent.svs")).find("No such file"), std::string::npos);
}

TEST_F(Slides, PictureUnderTheNameOfASlideIsReadAndRemarkedOn) {
  const std::string jpg = scratch_.file("renamed.jpg"), svs = scratch_.file("renamed.svs");
  write_image(jpg, open_slide(sample_slide())->read(600, 600, 0, 512, 400));
  std::filesystem::rename(jpg, svs);
  const auto slide = open_slide(svs);
  EXPECT_EQ(slide->format(), "picture");
  EXPECT_EQ(slide->width(), 512);
  EXPECT_FALSE(slide->remark().empty());
}

TEST_F(Slides, ViewsScaleAnyPart) {
  const auto slide = open_slide(sample_slide());
  const auto small = thumbnail(*slide, 100);
  EXPECT_EQ(small.size(0), 100);
  EXPECT_EQ(small.size(1), 75);
  // pieces of a view that is read in parts join without a seam: same mean as the whole
  const auto large = read_view(*slide, 0, 0, 2220, 2967, 222, 297).to(torch::kFloat);
  const auto left = read_view(*slide, 0, 0, 1110, 2967, 111, 297).to(torch::kFloat);
  EXPECT_LT((large.slice(1, 0, 111) - left).abs().mean().item<float>(), 1.0F);
}

TEST_F(Slides, OfOneNameGetDifferentNames) {
  std::filesystem::create_directories(scratch_.file("a"));
  std::filesystem::create_directories(scratch_.file("b"));
  for (const char* name : {"a/one.svs", "b/one.svs", "b/two.svs", "b/two.tif", "three.svs"}) {
    write_bytes(scratch_.file(name), "x");
  }
  std::vector<std::string> names;
  for (const auto& slide : find_slides(scratch_.path())) names.push_back(slide.name);
  const std::vector<std::string> expected = {"a__one", "b__one", "b__two.svs", "b__two.tif",
                                             "three"};
  EXPECT_EQ(names, expected);
  EXPECT_ANY_THROW(find_slides(scratch_.file("nowhere")));
}

}  // namespace
}  // namespace serpentine
