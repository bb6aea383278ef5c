// Plans: nnU-Net's rules on known cases, layouts of data sets, folds.
#include "segmentation/plan.h"

#include <set>

#include "core/io/image.h"
#include "segmentation/files.h"
#include "segmentation/folds.h"
#include "segmentation/prepare.h"

namespace serpentine::testing {
namespace {

TEST(Plan, OfTheHippocampus) {
  CaseList list = find_cases(kSamples);
  EXPECT_EQ(list.cases.size(), 10U);
  EXPECT_EQ(list.unlabelled.size(), 2U);
  const auto fingerprint = take_fingerprint(list);
  const auto plan = make_plan(list, fingerprint, {});
  // the published plan of Task04 has the patch 40 x 56 x 40 and strides 1, 2, 2, 2
  EXPECT_EQ(plan.dims, 3);
  EXPECT_EQ(plan.patch, (std::vector<int64_t>{40, 56, 40}));
  EXPECT_EQ(plan.strides, (std::vector<std::string>{"1x1x1", "2x2x2", "2x2x2", "2x2x2"}));
  EXPECT_EQ(plan.kernels, (std::vector<std::string>{"3x3x3", "3x3x3", "3x3x3", "3x3x3"}));
  EXPECT_EQ(plan.features, (std::vector<int64_t>{32, 64, 128, 256}));
  EXPECT_EQ(plan.class_names, (std::vector<std::string>{"background", "Anterior", "Posterior"}));
  EXPECT_GE(plan.batch, 2);
  EXPECT_LE(plan.estimate, plan.memory);
}

TEST(Plan, SaysTheSameAfterWriting) {
  CaseList list = find_cases(kSamples);
  const auto plan = make_plan(list, take_fingerprint(list), {});
  const TemporaryFolder folder;
  std::ofstream(folder / "plan.yaml") << plan_yaml(plan);
  EXPECT_EQ(plan_yaml(read_plan_file(folder / "plan.yaml")), plan_yaml(plan));
}

TEST(Plan, KeepsToItsMemory) {
  Fingerprint fingerprint;
  fingerprint.channels = 1;
  fingerprint.foreground = {{0, 1, -2, 2}};
  fingerprint.voxels = {{0, 100}, {1, 10}};
  for (int i = 0; i < 5; ++i) {
    fingerprint.spacings.push_back({5, 0.8, 0.8});
    fingerprint.sizes.push_back({40, 512, 512});
  }
  CaseList list;
  list.path = "set";
  std::vector<int64_t> before;
  for (const double memory : {2., 8., 32.}) {
    PlanOptions options;
    options.memory = memory;
    const auto plan = make_plan(list, fingerprint, options);
    EXPECT_LE(plan.estimate, memory);
    // thick slices keep flat kernels and strides at first
    EXPECT_EQ(plan.kernels[0], "1x3x3");
    EXPECT_EQ(plan.strides[1], "1x2x2");
    EXPECT_TRUE(before.empty() || plan.patch[1] >= before[1]);
    before = plan.patch;
  }
}

TEST(Plan, TakesTheFinerSpacingOfCoarseShortAxes) {
  Fingerprint fingerprint;
  fingerprint.channels = 1;
  fingerprint.foreground = {{0, 1, -2, 2}};
  fingerprint.voxels = {{0, 100}, {1, 10}};
  for (int i = 0; i < 10; ++i) {
    fingerprint.spacings.push_back({i == 0 ? 3. : 6., 1, 1});
    fingerprint.sizes.push_back({20, 256, 256});
  }
  CaseList list;
  const auto plan = make_plan(list, fingerprint, {});
  EXPECT_EQ(plan.spacing[0], 3);
}

TEST(Plan, OfSingleSlicesHasTwoDimensions) {
  const TemporaryFolder folder;
  for (const char* sub : {"images", "labels"}) std::filesystem::create_directories(folder / sub);
  const auto one = ball(1, 20, 30, 6);
  const auto nrrd = [&](const std::string& file, const torch::Tensor& voxels) {
    const auto bytes = voxels.to(torch::kByte).contiguous();
    std::ofstream(folder / file, std::ios::binary)
        << "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 30 20\nencoding: raw\n\n"
        << std::string(static_cast<const char*>(bytes.const_data_ptr()),
                       static_cast<size_t>(bytes.numel()));
  };
  nrrd("images/a.nrrd", one.image);
  nrrd("labels/a.nrrd", one.labels);
  save(folder / "images/b.nii.gz", one.image);
  save(folder / "labels/b.nii.gz", one.labels);
  const auto plan_of = [&](const PlanOptions& options) {
    CaseList list = find_cases(folder.path());
    const auto fingerprint = take_fingerprint(list);
    EXPECT_TRUE(fingerprint.notes.empty());
    return make_plan(list, fingerprint, options);
  };
  PlanOptions options;
  options.patch = {16, 16};
  const auto plan = plan_of(options);
  EXPECT_EQ(plan.dims, 2);
  EXPECT_EQ(plan.patch, (std::vector<int64_t>{1, 16, 16}));
  EXPECT_EQ(plan_of({}).dims, 2);
  options.dims = 3;
  EXPECT_NE(error_of([&] {
              plan_of(options);
            }).find("a patch of 3 dimensions has 3 numbers, got 2 (16x16); data.dims"),
            std::string::npos);
  // one case with several slices, and the set is one of volumes
  const auto deep = ball(8, 20, 30, 4);
  save(folder / "images/c.nii.gz", deep.image);
  save(folder / "labels/c.nii.gz", deep.labels);
  EXPECT_EQ(plan_of({}).dims, 3);
}

TEST(Cases, OfNnunetWithRegions) {
  const TemporaryFolder folder;
  const auto one = ball(8, 8, 8, 3);
  save(folder / "imagesTr/a_0000.nii.gz", one.image);
  save(folder / "imagesTr/a_0001.nii.gz", one.image);
  save(folder / "labelsTr/a.nii.gz", one.labels);
  save(folder / "imagesTr/b_0000.nii.gz", one.image);
  save(folder / "labelsTr/b.nii.gz", one.labels);
  std::ofstream(folder / "dataset.json")
      << R"({"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz",
          "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]})";
  CaseList list = find_cases(folder.path());
  ASSERT_EQ(list.cases.size(), 1U);  // b lacks a channel
  EXPECT_EQ(list.cases[0].images.size(), 2U);
  ASSERT_EQ(list.notes.size(), 1U);
  EXPECT_NE(list.notes[0].find("b: left out, channels are missing"), std::string::npos);
  PlanOptions options;
  options.patch = {8, 8, 8};
  const auto plan = make_plan(list, take_fingerprint(list), options);
  EXPECT_TRUE(plan.regions);
  EXPECT_EQ(plan.classes, 2);
  EXPECT_EQ(plan.values, (std::vector<std::string>{"1+2", "2"}));
  // and back: label 2 is both regions, later ones are written over earlier ones
  const auto classes = to_classes(plan, one.labels.to(torch::kInt), "a");
  EXPECT_EQ(classes[4][4][4].item<int64_t>(), 3);
  EXPECT_TRUE(to_values(plan, classes).equal(one.labels.to(torch::kInt)));
}

TEST(Cases, OfPicturesInFoldersAndCsv) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  const TemporaryFolder folder;
  for (const char* sub : {"images", "masks"}) std::filesystem::create_directories(folder / sub);
  for (const char* name : {"one", "two"}) {
    write_image(folder / (std::string("images/") + name + ".png"),
                torch::randint(1, 255, {20, 30, 3}, torch::kByte));
    write_image(folder / (std::string("masks/") + name + ".png"),
                torch::randint(0, 2, {20, 30, 1}, torch::kByte) * 255);
  }
  CaseList list = find_cases(folder.path());
  EXPECT_EQ(list.cases.size(), 2U);
  PlanOptions options;
  options.patch = {16, 16};
  const auto plan = make_plan(list, take_fingerprint(list), options);
  EXPECT_EQ(plan.dims, 2);
  EXPECT_EQ(plan.in_channels, 3);
  EXPECT_EQ(plan.label_scale, 255);
  EXPECT_EQ(plan.values, (std::vector<std::string>{"0", "1"}));
  const auto made = prepare_case(plan, list.cases[0]);
  EXPECT_EQ(made.image.sizes(), (at::IntArrayRef{3, 1, 20, 30}));
  EXPECT_EQ(made.target.max().item<int64_t>(), 1);

  std::ofstream(folder / "set.csv")
      << "image,label,patient,split\nimages/one.png,masks/one.png,p,train\n"
         "images/two.png,masks/two.png,q,test\n";
  const CaseList listed = find_cases(folder / "set.csv");
  ASSERT_EQ(listed.cases.size(), 2U);
  EXPECT_EQ(listed.cases[1].split, "test");
  EXPECT_EQ(listed.cases[1].group, "q");
}

TEST(Folds, HoldEveryCaseOutOnce) {
  CaseList list;
  list.path = "set";
  for (int i = 0; i < 11; ++i) {
    const auto name = "c" + std::to_string(i);
    list.cases.push_back({name, {"x"}, "y", i < 2 ? "together" : name, ""});
  }
  std::multiset<std::string> held;
  for (int64_t fold = 0; fold < 5; ++fold) {
    const auto split = split_cases(list, 5, fold, 0, 7);
    EXPECT_EQ(split.train.size() + split.validation.size(), 11U);
    int64_t together = 0;
    for (const auto& one : split.validation) {
      held.insert(one.name);
      together += one.group == "together" ? 1 : 0;
    }
    EXPECT_NE(together, 1);
  }
  EXPECT_EQ(held.size(), 11U);
  EXPECT_EQ(std::set<std::string>(held.begin(), held.end()).size(), 11U);
  EXPECT_TRUE(split_cases(list, 5, -1, 0, 7).validation.empty());
}

}  // namespace
}  // namespace serpentine::testing
