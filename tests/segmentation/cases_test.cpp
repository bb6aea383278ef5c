// Data sets as people keep them: names, channels, labels, CSV and dataset.json.
#include "segmentation/cases.h"

#include "core/io/image.h"
#include "segmentation/files.h"
#include "segmentation/folds.h"
#include "segmentation/plan.h"

namespace serpentine::testing {
namespace {

class FoundCases : public ::testing::Test {
 protected:
  void image(const std::string& file, int64_t channels = 1) {
    std::filesystem::create_directories(std::filesystem::path(folder / file).parent_path());
    if (file.ends_with(".nii.gz")) return save(folder / file, one.image);
    write_image(folder / file, torch::full({8, 8, channels}, 40, torch::kByte));
  }
  void label(const std::string& file) { save(folder / file, one.labels); }
  /// Names of the cases; notes go to `notes`.
  std::string names() { return names_of(find_cases(folder.path())); }
  std::string names_of(const CaseList& list) {
    notes = list.notes;
    return joined(list.cases);
  }
  std::string images_of(int64_t channels) {
    const auto found = find_images(folder / "images", channels);
    notes = found.notes;
    return joined(found.cases);
  }
  static std::string joined(const std::vector<CaseFiles>& cases) {
    std::string text;
    for (const auto& each : cases)
      text += each.name + ":" + std::to_string(each.images.size()) + " ";
    return text;
  }
  void json(const std::string& text) { std::ofstream(folder / "dataset.json") << text; }
  void csv(const std::string& text) { std::ofstream(folder / "set.csv") << text; }
  std::string said() {
    return error_of([&] { find_cases(folder.path()); });
  }
  static void has(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "said: " << text;
  }
  void noted(const std::string& part) {
    std::string all;
    for (const auto& note : notes) all += note + "\n";
    has(all, part);
  }
  TemporaryFolder folder;
  Ball one = ball(6, 6, 6, 2);
  std::vector<std::string> notes;
};

TEST_F(FoundCases, EqualFileNamesAreToldApartByTheirFolders) {
  csv("image,label\npat0/img.png,pat0/seg.png\npat1/img.png,pat1/seg.png\nb.png,c.png\n");
  EXPECT_EQ(names_of(find_cases(folder / "set.csv")), "b:1 pat0_img:1 pat1_img:1 ");
  csv("image,label\nx/a/img.png,1.png\nx/b/img.png,2.png\ny/a/img.png,3.png\n");
  EXPECT_EQ(names_of(find_cases(folder / "set.csv")), "x_a_img:1 x_b_img:1 y_a_img:1 ");
  csv("image,label,name\na.png,1.png,same\nb.png,2.png,same\n");
  has(error_of([&] { find_cases(folder / "set.csv"); }), "b.png are both called 'same'");
  csv("image,label\na.png,1.png\na.png,2.png\n");
  has(error_of([&] { find_cases(folder / "set.csv"); }), "are both called 'a'");
  json(R"({"labels": {"0": "background", "1": "one"}, "training": [
      {"image": "p/img.nii.gz", "label": "p/seg.nii.gz"},
      {"image": "q/img.nii.gz", "label": "q/seg.nii.gz"}]})");
  for (const char* sub : {"p", "q"}) {
    image(std::string(sub) + "/img.nii.gz");
    label(std::string(sub) + "/seg.nii.gz");
  }
  EXPECT_EQ(names(), "p_img:1 q_img:1 ");
}

TEST_F(FoundCases, TwoImagesOfOneNameInAFolder) {
  image("images/x.nii.gz");
  std::ofstream(folder / "images/x.nii") << "another";
  label("labels/x.nii.gz");
  EXPECT_EQ(names(), "x:1 ");
  noted("images/x.nii.gz: left out, its case has the same name as that of ");
  EXPECT_EQ(images_of(1), "x:1 ");
  EXPECT_EQ(notes.size(), 1U);
  // a label of two files is none
  std::ofstream(folder / "labels/x.nii") << "another";
  label("labels/y.nii.gz");
  image("images/y.nii.gz");
  EXPECT_EQ(names(), "y:1 ");
  noted("could both be its label");
}

TEST_F(FoundCases, NamesOfTwoSplits) {
  for (const char* split : {"train", "test"}) {
    image(std::string(split) + "/images/a.nii.gz");
    label(std::string(split) + "/labels/a.nii.gz");
  }
  EXPECT_EQ(names(), "test_a:1 train_a:1 ");
}

TEST_F(FoundCases, WhatLacksAChannelIsNotedInPredictions) {
  for (const char* name : {"a_0000", "a_0001", "b_0000"})
    image(std::string("images/") + name + ".nii.gz");
  EXPECT_EQ(images_of(2), "a:2 ");
  ASSERT_EQ(notes.size(), 1U);
  noted("b: left out, channels are missing or too many: there are 0000 of 2");
  std::filesystem::remove(folder / "images/a_0001.nii.gz");
  std::filesystem::remove(folder / "images/b_0000.nii.gz");
  image("images/b_0001.nii.gz");
  EXPECT_EQ(images_of(1), "a:1 ");
  noted("b: left out, channels are missing or too many: there are 0001 of 1");
}

TEST_F(FoundCases, NumbersThatAreNoChannels) {
  for (const char* name : {"IMG_0001", "IMG_0002", "IMG_0003"}) {
    image(std::string("images/") + name + ".nii.gz");
    if (name[7] != '3') label(std::string("labels/") + name + ".nii.gz");
  }
  EXPECT_EQ(names(), "IMG_0001:1 IMG_0002:1 ");
  noted("IMG_0003: left out, there is no label");
  EXPECT_EQ(images_of(1), "IMG_0001:1 IMG_0002:1 IMG_0003:1 ");
  EXPECT_EQ(images_of(4), "IMG_0001:1 IMG_0002:1 IMG_0003:1 ");
  // nor where dataset.json has one channel
  std::filesystem::rename(folder / "images", folder / "imagesTr");
  std::filesystem::rename(folder / "labels", folder / "labelsTr");
  json(R"({"labels": {"background": 0, "a": 1, "b": 2}, "channel_names": {"0": "CT"}})");
  EXPECT_EQ(names(), "IMG_0001:1 IMG_0002:1 ");
}

TEST_F(FoundCases, NumbersThatAreChannels) {
  for (const char* name : {"a_0000", "a_0001", "b_0000", "b_0001"})
    image(std::string("images/") + name + ".nii.gz");
  label("labels/a.nii.gz");
  label("labels/b_mask.nii.gz");
  EXPECT_EQ(names(), "a:2 b:2 ");
}

TEST_F(FoundCases, LabelsOfDriveAreNotItsFieldOfView) {
  for (const std::string split : {"training", "test"}) {
    image(split + "/images/21_" + split + ".nii.gz");
    label(split + "/mask/21_" + split + "_mask.nii.gz");
    label(split + "/1st_manual/21_manual1.nii.gz");
  }
  const auto list = find_cases(folder.path());
  EXPECT_EQ(names_of(list), "21_test:1 21_training:1 ");
  for (const auto& each : list.cases) has(each.label, "1st_manual/21_manual1");
}

TEST_F(FoundCases, OnePictureHasAllColours) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  for (const char* name : {"a", "b"}) {
    image("imagesTr/" + std::string(name) + "_0000.png", 3);
    image("labelsTr/" + std::string(name) + ".png");
  }
  json(
      R"({"labels": {"background": 0, "a": 40}, "channel_names": {"0": "R", "1": "G", "2": "B"}})");
  CaseList list = find_cases(folder.path());
  EXPECT_EQ(names_of(list), "a:1 b:1 ");
  EXPECT_EQ(take_fingerprint(list).channels, 3);
  EXPECT_EQ(list.cases.size(), 2U);
}

TEST_F(FoundCases, EndingsInAnyCaseAndLabelsOfAnyKind) {
  if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  image("images/p.png", 3);
  image("images/q.jpg", 3);
  image("images/r.png", 3);
  image("masks/p_GT.png");
  image("masks/q.jpg");
  image("masks/r_Mask.png");
  image("masks/spare.png");
  for (const char* file : {"images/p", "masks/p_GT"})
    std::filesystem::rename(folder / (std::string(file) + ".png"),
                            folder / (std::string(file) + ".PNG"));
  EXPECT_EQ(names(), "p:1 q:1 r:1 ");
  noted("spare.png: is not used, it has no image in");
}

TEST_F(FoundCases, NothingFitsSaysWhatWasLookedFor) {
  image("images/p.nii.gz");
  label("labels/p_something.nii.gz");
  has(said(), "may be called NAME, NAME_mask");
  has(said(), "p: left out, there is no label in");
  has(said(), "p_something.nii.gz: is not used");
}

TEST_F(FoundCases, CsvOfSpreadsheets) {
  csv("\xEF\xBB\xBFImage;Label;Split\r\n\"a, b.png\";m.png;Train\r\nc.png;n.png;Test\r\n;;\r\n");
  const auto list = find_cases(folder / "set.csv");
  EXPECT_EQ(names_of(list), "a, b:1 c:1 ");
  EXPECT_EQ(list.cases[0].split, "train");
  EXPECT_EQ(list.cases[1].split, "test");
  csv("image,label,split\na.png,m.png,held\n");
  has(error_of([&] { find_cases(folder / "set.csv"); }),
      "set.csv:2:13: the split must be train, val or test, got 'held'");
}

TEST_F(FoundCases, FoldsOfDataWithTheirOwnValidation) {
  csv("image,label,split\na.png,m.png,train\nb.png,n.png,train\nc.png,o.png,val\n");
  const auto list = find_cases(folder / "set.csv");
  EXPECT_EQ(split_cases(list, 3, 0, 0, 0).validation.size(), 1U);
  has(error_of([&] { split_cases(list, 3, 1, 0, 0); }),
      "the data name their own validation cases, so that every fold would be the same");
}

TEST_F(FoundCases, FoldsWithoutTrainingSayWhatWasLeftOut) {
  CaseList list;
  list.path = "set";
  list.cases = {{"a", {"a.png"}, "m.png", "a", ""}};
  list.notes = {"b: left out, there is no label in masks"};
  has(error_of([&] { split_cases(list, 5, 0, 0, 0); }), "and 5 folds; b: left out, there is no");
}

TEST_F(FoundCases, MalformedDatasetJson) {
  image("imagesTr/a_0000.nii.gz");
  label("labelsTr/a.nii.gz");
  const std::string good = R"("labels": {"background": 0, "a": 1, "b": 2})";
  const auto says = [&](const std::string& text, const std::string& part) {
    json(text);
    has(said(), "dataset.json: " + part);
  };
  says("{\"labels\": ", "is not JSON: parse error at line 1, column");
  says("[]", "is not a JSON object");
  says("{}", "has no object `labels`");
  says(R"({"labels": {"a": 1, "b": 2}})", "`labels` has no background");
  says(R"({"labels": {"background": 0, "a": 1.5}})", "`labels.a` must be a whole number, got 1.5");
  says(R"({"labels": {"background": 0, "a": "x"}})", "`labels.a` must be a whole number");
  says(R"({"labels": {"background": 0, "a": 99999999999}})", "`labels.a` must be from 0 to 32767");
  says(R"({"labels": {"background": 0, "a": 1, "b": 1}})",
       "`labels` gives 'a' and 'b' the same value 1");
  says(R"({"labels": {"background": 0, "a": ["x"]}})", "`labels.a` must be a whole number");
  says(R"({"labels": {"background": 0, "ignore": []}})", "`labels.ignore` must be a list");
  says(R"({"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": 3})",
       "`regions_class_order` must be a list of whole numbers, got 3");
  says("{" + good + R"(, "channel_names": {"first": "CT"}})", "`channel_names` must give names");
  says("{" + good + R"(, "channel_names": {"0": 7}})", "`channel_names` must give names");
  says("{" + good + R"(, "channel_names": "CT"})", "`channel_names` must be an object");
  says("{" + good + R"(, "training": [{"image": "x"}]})", "an entry of `training`");
  json("{" + good + R"(, "channel_names": {"0": "CT"}})");
  EXPECT_EQ(names(), "a:1 ");
}

}  // namespace
}  // namespace serpentine::testing
