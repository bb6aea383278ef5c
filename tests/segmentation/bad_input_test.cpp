// What people give by mistake: each gets one sentence with the file's name.
#include <zlib.h>

#include "core/io/image.h"
#include "segmentation/evaluation.h"
#include "segmentation/files.h"
#include "segmentation/plan.h"
#include "segmentation/predict.h"
#include "segmentation/prepare.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

class BadSegmentation : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto one = ball(12, 12, 12, 4);
    save(image, one.image);
    save(label, one.labels);
  }
  std::string say(const std::string& image_file, const std::string& label_file) {
    return error_of([&] { read_labels(label_file, read_volume(image_file)); });
  }
  void expect_says(const std::string& said, const std::string& part) {
    EXPECT_NE(said.find(part), std::string::npos) << "said: " << said;
  }
  SegmentationPlan plan(int64_t dims = 3) {
    SegmentationPlan made;
    made.dims = dims;
    made.class_names = {"background", "one"};
    made.values = {"0", "1"};
    made.spacing = {1, 1, 1};
    made.normalize = {"zscore"};
    made.ct = {0, 1, 0, 1};
    made.patch = {16, 16, 16};
    made.features = {4};
    made.kernels = made.strides = {"1x1x1"};
    return made;
  }
  /// The volume of a file twice, as two channels of another, which is not packed.
  static void put_channels(const std::string& from, const std::string& to) {
    NiftiHeader header;
    const auto voxels = read_nifti(from, &header);
    write_nifti(to, voxels[0], header);
    std::ifstream stream(to, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(stream)), {});
    bytes += bytes.substr(352);
    const int16_t four = 4, two = 2;
    std::memcpy(bytes.data() + 40, &four, 2);
    std::memcpy(bytes.data() + 48, &two, 2);
    std::ofstream(to, std::ios::binary) << bytes;
  }
  TemporaryFolder folder;
  std::string image = folder / "images/a.nii.gz", label = folder / "labels/a.nii.gz";
};

TEST_F(BadSegmentation, ShapesDiffer) {
  save(folder / "b.nii.gz", ball(12, 12, 10, 4).labels);
  expect_says(say(image, folder / "b.nii.gz"), "is 12 x 12 x 10 (z, y, x) where");
}

TEST_F(BadSegmentation, SpacingsDiffer) {
  save(folder / "b.nii.gz", ball(12, 12, 12, 4).labels, {1, 1, 2});
  expect_says(say(image, folder / "b.nii.gz"), "has the spacing 2 x 1 x 1 mm (z, y, x) where");
}

TEST_F(BadSegmentation, OrientationsDiffer) {
  const Affine turned = {{{-1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
  save(folder / "b.nii.gz", ball(12, 12, 12, 4).labels, {1, 1, 1}, &turned);
  expect_says(say(image, folder / "b.nii.gz"), "is orientated otherwise than");
}

TEST_F(BadSegmentation, UnknownLabelValue) {
  const auto said = error_of([&] { prepare_case(plan(), {"a", {image}, label, "a", ""}); });
  expect_says(said, "labels/a.nii.gz: holds the value 2, which no class of the plan has");
}

TEST_F(BadSegmentation, LabelsThatAreNotWhole) {
  save(folder / "b.nii.gz", ball(12, 12, 12, 4).labels.to(torch::kFloat) * 0.5);
  expect_says(say(image, folder / "b.nii.gz"), "holds values that are not whole numbers");
}

TEST_F(BadSegmentation, EmptyLabelIsNoted) {
  save(folder / "images/b.nii.gz", ball(12, 12, 12, 4).image);
  save(folder / "labels/b.nii.gz", torch::zeros({12, 12, 12}, torch::kByte));
  CaseList list = find_cases(folder.path());
  const auto found = take_fingerprint(list);
  EXPECT_EQ(list.cases.size(), 2U);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "b: its label is empty");
}

TEST_F(BadSegmentation, VoxelsThatAreNotNumbersAreLeftOut) {
  auto bad = ball(12, 12, 12, 4).image;
  bad[3][4][5] = std::nanf("");
  bad[3][4][6] = INFINITY;
  save(folder / "images/b.nii.gz", bad);
  save(folder / "labels/b.nii.gz", ball(12, 12, 12, 4).labels);
  CaseList list = find_cases(folder.path());
  const auto found = take_fingerprint(list);
  EXPECT_EQ(list.cases.size(), 1U);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "holds 2 voxels that are not numbers");
}

TEST_F(BadSegmentation, OneOddCaseDoesNotDecideForTheOthers) {
  for (const char* name : {"b", "c"}) {
    for (const char* sub : {"images/", "labels/"})
      std::filesystem::copy(std::string(sub) == "images/" ? image : label,
                            folder / (std::string(sub) + name + ".nii.gz"));
  }
  save(folder / "images/0.nii.gz", ball(12, 12, 12, 4).image);  // the first, with two volumes
  put_channels(folder / "images/0.nii.gz", folder / "images/0.nii");
  std::filesystem::remove(folder / "images/0.nii.gz");
  std::filesystem::copy(label, folder / "labels/0.nii.gz");
  CaseList list = find_cases(folder.path());
  ASSERT_EQ(list.cases.size(), 4U);
  auto found = take_fingerprint(list);
  EXPECT_EQ(list.cases.size(), 3U);
  EXPECT_EQ(found.channels, 1);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "images/0.nii: has 2 channels, most cases have 1");
  // dataset.json decides against the most
  list = find_cases(folder.path());
  list.channels = {"T1", "T2"};
  found = take_fingerprint(list);
  EXPECT_EQ(list.cases.size(), 1U);
  EXPECT_EQ(found.channels, 2);
  expect_says(found.notes[0], "has 1 channels, dataset.json names 2");
}

TEST_F(BadSegmentation, OnePictureAmongVolumes) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  std::filesystem::copy(image, folder / "images/b.nii.gz");
  std::filesystem::copy(label, folder / "labels/b.nii.gz");
  for (const char* sub : {"images/0.png", "labels/0.png"})
    write_image(folder / sub, torch::ones({20, 20, 1}, torch::kByte));
  CaseList list = find_cases(folder.path());
  const auto found = take_fingerprint(list);
  EXPECT_FALSE(found.pictures);
  EXPECT_EQ(list.cases.size(), 2U);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "images/0.png: is a picture, most cases are volumes");
}

TEST_F(BadSegmentation, NothingThatCanBeUsedSaysWhy) {
  std::ofstream(folder / "images/a.nii.gz") << "nothing";
  CaseList list = find_cases(folder.path());
  expect_says(error_of([&] { take_fingerprint(list); }), "1 cases can be used; a: left out; ");
}

TEST_F(BadSegmentation, ValuesThatAreNoClasses) {
  const auto labels = ball(12, 12, 12, 4).labels;
  const auto said = [&](const torch::Tensor& voxels) {
    save(folder / "labels/a.nii.gz", voxels);
    CaseList list = find_cases(folder.path());
    return error_of([&] { take_fingerprint(list); });
  };
  expect_says(said(labels.to(torch::kShort) - 2), "labels/a.nii.gz: holds the value -2; values of");
  const auto grey = torch::arange(12 * 12 * 12, torch::kInt).remainder(90).view({12, 12, 12});
  expect_says(said(grey.to(torch::kByte)), "labels/a.nii.gz alone 90; this looks like an anti-");
}

TEST_F(BadSegmentation, MasksThatJpegChanged) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  const auto flat = ball(1, 24, 24, 7).labels.gt(0).to(torch::kByte)[0].unsqueeze(-1);
  for (const char* sub : {"set/images", "set/masks"})
    std::filesystem::create_directories(folder / sub);
  write_image(folder / "set/images/a.png", flat * 100 + 20);
  write_image(folder / "set/masks/a.jpg", flat * 3);
  CaseList list = find_cases(folder / "set");
  const auto found = take_fingerprint(list);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "values; JPEG changes values, so save masks as PNG");
}

TEST_F(BadSegmentation, ValuesThatDatasetJsonDoesNotKnow) {
  std::filesystem::copy(image, folder / "images/b.nii.gz");
  const auto labels = ball(12, 12, 12, 4).labels;
  save(folder / "labels/b.nii.gz", torch::where(labels.eq(2), labels + 5, labels));
  CaseList list = find_cases(folder.path());
  list.classes = {{"background", {0}}, {"one", {1}}, {"two", {2}}};
  const auto found = take_fingerprint(list);
  EXPECT_EQ(list.cases.size(), 1U);
  ASSERT_EQ(found.notes.size(), 1U);
  expect_says(found.notes[0], "labels/b.nii.gz: holds the value 7, which no class of dataset.json");
}

TEST_F(BadSegmentation, OriginsDiffer) {
  Affine moved = {{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
  const auto place = [&](double x, const char* file) {
    moved[0][3] = x;
    save(folder / file, ball(12, 12, 12, 4).labels, {1, 1, 1}, &moved);
    return folder / file;
  };
  const auto first = place(5, "b.nii.gz");
  expect_says(say(first, place(5.5, "c.nii.gz")), "c.nii.gz: lies 0.5 mm beside");
  EXPECT_EQ(say(first, place(5.05, "d.nii.gz")), "");
}

TEST_F(BadSegmentation, FourDimensionsAsALabel) {
  auto header = new_nifti_header({4, 4, 4}, {1, 1, 1});
  std::string raw = header.raw;
  const auto put = [&](size_t at, int16_t value) { std::memcpy(raw.data() + at, &value, 2); };
  put(40, 4);
  for (size_t axis = 1; axis <= 4; ++axis) put(40 + 2 * axis, axis == 4 ? 2 : 4);
  for (size_t axis = 5; axis <= 7; ++axis) put(40 + 2 * axis, 1);
  put(70, 2);
  put(72, 8);
  raw.resize(352 + 128, '\0');
  const float begin = 352;
  std::memcpy(raw.data() + 108, &begin, 4);
  std::ofstream(folder / "b.nii", std::ios::binary) << raw;
  save(folder / "c.nii.gz", torch::zeros({4, 4, 4}, torch::kByte));
  expect_says(say(folder / "c.nii.gz", folder / "b.nii"),
              "has 2 volumes or channels; a label has one value a voxel");
}

TEST_F(BadSegmentation, CutOffGzip) {
  std::ifstream whole(image, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(whole)), {});
  std::ofstream(folder / "b.nii.gz", std::ios::binary) << bytes.substr(0, bytes.size() / 2);
  expect_says(error_of([&] { read_volume(folder / "b.nii.gz"); }), "cut off");
  std::ofstream(folder / "c.nii.gz", std::ios::binary) << bytes.substr(0, 12);
  expect_says(error_of([&] { read_volume(folder / "c.nii.gz"); }), "c.nii.gz: is");
}

TEST_F(BadSegmentation, SomethingElse) {
  std::ofstream(folder / "b.nii") << std::string(1000, 'x');
  expect_says(error_of([&] { read_volume(folder / "b.nii"); }), "is not a NIfTI file");
  std::ofstream(folder / "b.txt") << "x";
  expect_says(error_of([&] { read_volume(folder / "b.txt"); }), "is neither a volume");
  expect_says(error_of([&] { read_volume(folder / "none.nii.gz"); }), "cannot be opened");
}

TEST_F(BadSegmentation, APictureForAVolumePlan) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  write_image(folder / "b.png", torch::ones({20, 20, 1}, torch::kByte));
  const auto said = error_of([&] {
    const Volume picture = read_volume(folder / "b.png");
    prepare_image(plan(), picture, nonzero_box(picture.data));
  });
  expect_says(said, "b.png: is a picture, the plan is for volumes");
}

TEST_F(BadSegmentation, TooFewChannels) {
  auto two = plan();
  two.in_channels = 2;
  two.normalize = {"zscore", "zscore"};
  const auto said = error_of([&] {
    const Volume volume = read_volume(image);
    prepare_image(two, volume, nonzero_box(volume.data));
  });
  expect_says(said, "a.nii.gz: has 1 channels, the plan has 2");
}

class Zero : public Model {
 public:
  torch::Tensor forward(const Batch& batch) override {
    auto sizes = batch.input.sizes().vec();
    sizes[1] = 2;
    return torch::zeros(sizes);
  }
};

TEST_F(BadSegmentation, VolumesBelowThePatchAreFine) {
  save(folder / "b.nii.gz", ball(3, 5, 4, 2).image);
  Volume volume = read_volume(folder / "b.nii.gz");
  const auto labels = predict_volume({std::make_shared<Zero>()}, plan(), volume, torch::kCPU, {});
  EXPECT_EQ(labels.sizes(), (at::IntArrayRef{3, 5, 4}));
}

TEST_F(BadSegmentation, PlanThatContradictsItself) {
  auto bad = plan();
  bad.strides = {"1x1x1", "3x3x3"};
  expect_says(error_of([&] { check_plan(bad, "plan.yaml"); }),
              "plan.yaml: the patch must be a multiple of the strides' product 3x3x3");
}

TEST_F(BadSegmentation, FoldersWithoutPairs) {
  expect_says(error_of([&] { find_cases(folder / "labels"); }), "holds neither dataset.json");
  expect_says(error_of([&] { find_cases(folder / "nowhere"); }), "there is no such file or folder");
}

TEST_F(BadSegmentation, EvaluationLeavesOutWhatDoesNotFit) {
  save(folder / "guesses/a.nii.gz", ball(12, 12, 12, 4).labels);
  save(folder / "guesses/b.nii.gz", ball(12, 12, 12, 4).labels);
  save(folder / "guesses/c.nii.gz", ball(12, 12, 10, 4).labels);
  save(folder / "labels/c.nii.gz", ball(12, 12, 12, 4).labels);
  const auto found = evaluate_folders(folder / "guesses", folder / "labels", {});
  EXPECT_EQ(found.cases.size(), 1U);
  EXPECT_EQ(found.notes.size(), 2U);
  EXPECT_EQ(found.cases[0].classes.size(), 2U);
  EXPECT_EQ(found.cases[0].classes[0].dice, 1);
}

}  // namespace
}  // namespace serpentine::testing
