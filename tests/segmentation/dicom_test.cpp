// DICOM series: slices in any sequence become one volume in its place; what is no volume is
// refused.
#include "segmentation/dicom.h"

#include <cmath>

#include "segmentation/cases.h"
#include "segmentation/dicom_files.h"
#include "segmentation/files.h"
#include "segmentation/volume.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

class Dicom : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!dicom_available()) GTEST_SKIP() << "built without GDCM";
  }
  void put(const std::string& name, const SliceFile& slice) {
    std::ofstream(folder / name, std::ios::binary) << dicom_bytes(slice);
  }
  /// Slices 4 mm apart along the patient's axis, their files in another sequence.
  void put_series(const std::vector<int>& heights) {
    int number = 0;
    for (const int height : heights) {
      SliceFile slice;
      slice.position = "10\\20\\" + std::to_string(30 + 4 * height);
      slice.first = static_cast<int16_t>(10 * height);
      put("slice_" + std::to_string(number++), slice);
    }
  }
  void expect_says(const std::string& part) {
    const auto said = error_of([&] { read_volume(folder.path()); });
    EXPECT_NE(said.find(part), std::string::npos) << "said: " << said;
    EXPECT_EQ(said.find(folder.path()), 0U) << "said: " << said;
  }
  TemporaryFolder folder;
};

TEST_F(Dicom, SeriesIsAVolumeInItsPlace) {
  put_series({2, 0, 1});
  std::ofstream(folder / "notes.txt") << "no DICOM";
  NiftiHeader place;
  const auto voxels = read_dicom(folder.path(), &place);
  EXPECT_EQ(voxels.sizes(), (at::IntArrayRef{1, 3, 2, 3}));
  for (int64_t z = 0; z < 3; ++z) {
    expect_equal(voxels[0][z].flatten(),
                 (torch::arange(6, torch::kFloat) + 10 * static_cast<double>(z)) * 2 - 1000);
  }
  // columns 0.5 mm, rows 2 mm, slices 4 mm; left and back are right and front turned round
  const Affine wanted = {{{-0.5, 0, 0, -10}, {0, -2, 0, -20}, {0, 0, 4, 30}}};
  for (size_t row = 0; row < 3; ++row) {
    for (size_t column = 0; column < 4; ++column)
      EXPECT_NEAR(place.affine[row][column], wanted[row][column], 1e-9);
  }
  const Volume volume = read_volume(folder.path());
  EXPECT_EQ(volume.spacing, (std::array<double, 3>{4, 2, 0.5}));
  EXPECT_EQ(volume.flipped, (std::array<bool, 3>{false, true, true}));
  expect_equal(volume.data[0], voxels[0].flip({1, 2}));
}

TEST_F(Dicom, SagittalSlices) {
  for (int i = 0; i < 3; ++i) {
    SliceFile slice;
    slice.orientation = "0\\1\\0\\0\\0\\-1";  // rows to the back, columns down
    slice.position = std::to_string(5 - 3 * i) + "\\0\\0";
    slice.first = static_cast<int16_t>(10 * i);
    put("s" + std::to_string(i), slice);
  }
  const Volume volume = read_volume(folder.path());
  EXPECT_EQ(volume.data.sizes(), (at::IntArrayRef{1, 2, 3, 3}));  // z, y, x
  EXPECT_EQ(volume.spacing, (std::array<double, 3>{2, 0.5, 3}));
  // the last column of the last file is front, right and low
  EXPECT_EQ(volume.data[0][1][2][2].item<double>(), 20 * 2 - 1000);
  EXPECT_EQ(volume.data[0][0][0][0].item<double>(), 5 * 2 - 1000);
}

TEST_F(Dicom, LabelsOfASeriesAreNifti) {
  put_series({0, 1, 2});
  EXPECT_EQ(result_ending(folder.path()), ".nii.gz");
  const auto found = find_images(folder.path() + "/", 1).cases;
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].name, case_name(folder.path()));
  const Volume volume = read_volume(folder.path());
  const auto labels = volume.data[0].gt(-990).to(torch::kInt);
  const std::string file = folder / "labels.nii.gz";
  write_labels(file, labels, volume);
  expect_equal(read_labels(file, volume), labels);
}

TEST_F(Dicom, SeriesAreImagesOfADataSet) {
  const std::string series = folder / "images/case.1";
  std::filesystem::create_directories(series);
  put_series({0, 1, 2});
  for (int i = 0; i < 3; ++i)
    std::filesystem::rename(folder / ("slice_" + std::to_string(i)),
                            series + "/" + std::to_string(i) + ".dcm");
  const Volume volume = read_volume(series);
  std::filesystem::create_directories(folder / "labels");
  write_labels(folder / "labels/case.1.nii.gz", volume.data[0].gt(-990).to(torch::kInt), volume);
  const auto list = find_cases(folder.path());
  ASSERT_EQ(list.cases.size(), 1U);
  EXPECT_EQ(list.cases[0].name, "case.1");
  EXPECT_EQ(find_images(folder / "images", 1).cases.size(), 1U);
}

TEST_F(Dicom, OneSliceIsAsThickAsItSays) {
  put_series({0});
  EXPECT_EQ(read_volume(folder / "slice_0").spacing[0], 4);
}

TEST_F(Dicom, MissingSlice) {
  put_series({0, 1, 3, 4, 5});
  expect_says(
      "1 slice is missing between slice_1 and slice_2, which are 8 mm apart; the others "
      "4 mm");
}

TEST_F(Dicom, UnevenSlices) {
  put_series({0, 1, 2, 3});
  SliceFile odd;
  odd.position = "10\\20\\47.5";
  put("odd", odd);
  expect_says("not evenly spaced: slice_3 and odd are 5.5 mm apart");
}

TEST_F(Dicom, MixedSeries) {
  put_series({0, 1, 2});
  SliceFile other;
  other.series = "1.2.3.9";
  put("other", other);
  expect_says("holds 2 series: 1.2.3.4 (CT, 3 images), 1.2.3.9 (CT, 1 image); give each a folder");
}

TEST_F(Dicom, TwoSlicesAtOnePlace) {
  put_series({0, 1, 1, 2});
  expect_says("lie at one place; a series over time is not one volume");
}

TEST_F(Dicom, SlicesThatDoNotBelongTogether) {
  const auto with = [&](const std::string& said, void (*change)(SliceFile&)) {
    put_series({0, 1, 2});
    SliceFile slice;
    slice.position = "10\\20\\42";
    change(slice);
    put("z", slice);
    expect_says(said);
  };
  with("has 5 x 3 pixels where slice_0 has 2 x 3", [](SliceFile& s) { s.rows = 5; });
  with("lies in another direction", [](SliceFile& s) { s.orientation = "1\\0\\0\\0\\0\\1"; });
  with("has another PixelSpacing", [](SliceFile& s) { s.spacing = "3\\0.5"; });
  with("has no PixelSpacing", [](SliceFile& s) { s.spacing = ""; });
  with("does not say where its slice lies", [](SliceFile& s) { s.position = "1\\2"; });
  with("is in colours", [](SliceFile& s) { s.samples = 3; });
  with("holds 2 frames", [](SliceFile& s) { s.frames = 2; });
}

TEST_F(Dicom, TiltedStack) {
  for (int i = 0; i < 4; ++i) {
    SliceFile slice;
    slice.position = "10\\" + std::to_string(20 + i) + "\\" + std::to_string(30 + 4 * i);
    put("s" + std::to_string(i), slice);
  }
  expect_says("stacked askew");
}

TEST_F(Dicom, CutOff) {
  put_series({0, 1, 2});
  SliceFile slice;
  slice.position = "10\\20\\42";
  const auto bytes = dicom_bytes(slice);
  std::ofstream(folder / "z", std::ios::binary) << bytes.substr(0, bytes.size() - 6);
  expect_says("/z: is cut off: 6 of 12 bytes of pixels");
  for (const size_t length : {132U, 140U, 200U}) {
    std::ofstream(folder / "z", std::ios::binary) << bytes.substr(0, length);
    expect_says("/z: is cut off");
  }
}

TEST(DicomPaths, AreToldByTheirFirstBytes) {
  const TemporaryFolder folder;
  EXPECT_FALSE(is_dicom_path(folder.path()));
  EXPECT_FALSE(is_dicom_path(folder / "nowhere"));
  std::ofstream(folder / "a") << "short";
  EXPECT_FALSE(is_dicom_path(folder.path()));
  std::ofstream(folder / "b", std::ios::binary) << std::string(128, '\0') + "DICM";
  EXPECT_TRUE(is_dicom_path(folder / "b"));
  EXPECT_TRUE(is_dicom_path(folder.path()));
  EXPECT_FALSE(error_of([&] { read_volume(folder.path()); }).empty());
}

}  // namespace
}  // namespace serpentine::testing
