// Folders of predictions against truths: what is missing, undefined or does not fit is said.
#include "segmentation/evaluation.h"

#include <sstream>

#include "core/io/image.h"
#include "segmentation/files.h"
#include "segmentation/part_rules.h"
#include "segmentation/predict.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

std::string text_of(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

class Evaluations : public ::testing::Test {
 protected:
  void guess(const std::string& name, const torch::Tensor& labels) {
    save(folder / ("guess/" + name + ".nii.gz"), labels);
  }
  void truth(const std::string& name, const torch::Tensor& labels) {
    save(folder / ("truth/" + name + ".nii.gz"), labels);
  }
  void image(const std::string& name, const torch::Tensor& voxels) {
    save(folder / ("images/" + name + ".nii.gz"), voxels);
  }
  Evaluation found() { return evaluate_folders(folder / "guess", folder / "truth", options); }

  TemporaryFolder folder;
  EvaluationOptions options;
  const torch::Tensor one = ball(10, 12, 12, 4).labels.gt(0).to(torch::kByte);
};

TEST_F(Evaluations, NameTruthsWithoutAPrediction) {
  guess("a", one);
  for (const char* name : {"a", "b", "c_mask"}) truth(name, one);
  options.classes = {{"left, lower", {1}}};
  const auto all = found();
  EXPECT_EQ(all.missing, (std::vector<std::string>{"b", "c"}));
  EXPECT_TRUE(all.notes.empty());
  EXPECT_NE(summary_text(all, options).find("missing 2\n"), std::string::npos);
  write_evaluation(all, options, folder / "report");
  const auto table = text_of(folder / "report/cases.csv");
  EXPECT_NE(table.find("\na,\"left, lower\",1,"), std::string::npos) << table;
  // no figure, and as many cells as the others
  const std::string empty(metric_names(options.metrics).size(), ',');
  EXPECT_NE(table.find("\nb,\"left, lower\"" + empty + "\nc,\"left, lower\"" + empty + "\n"),
            std::string::npos)
      << table;
  EXPECT_NE(text_of(folder / "report/classes.csv").find("\"left, lower\",dice,1,1,"),
            std::string::npos);
}

TEST_F(Evaluations, SayHowManyCasesAMeanHas) {
  guess("a", one);
  guess("b", torch::zeros_like(one));
  truth("a", one);
  truth("b", one);
  const auto text = summary_text(found(), options);
  // class 1, 2 cases: Dice over both without a word, distances over one of them
  EXPECT_NE(text.find("     2"), std::string::npos) << text;
  EXPECT_NE(text.find("0.5000 +- 0.707 "), std::string::npos) << text;
  EXPECT_NE(text.find("0.0000 +- 0.000 of 1 "), std::string::npos) << text;
  EXPECT_EQ(text.find("of 2"), std::string::npos) << text;
  EXPECT_EQ(text.find("missing"), std::string::npos) << text;
}

TEST_F(Evaluations, WarnWhereNoValueIsShared) {
  guess("a", one);
  truth("a", one * 255);
  const auto all = found();
  ASSERT_EQ(all.warnings.size(), 1U);
  EXPECT_EQ(all.warnings[0],
            "predictions and truths share no value but 0: predictions hold 1, truths 255");
  guess("b", one * 2);
  truth("b", one * 2);
  EXPECT_TRUE(found().warnings.empty());
}

TEST_F(Evaluations, SkipPicturesOfBadImages) {
  if (!images_available()) GTEST_SKIP() << "built without pictures";
  for (const char* name : {"cut", "good", "other"}) {
    guess(name, one);
    truth(name, one);
    image(name, one * 50);
  }
  image("other", torch::ones({4, 12, 12}, torch::kByte));
  std::filesystem::resize_file(folder / "images/cut.nii.gz", 60);
  options.images = folder / "images";
  options.worst = 1;
  const auto written = write_evaluation(found(), options, folder / "report");
  ASSERT_EQ(written.notes.size(), 1U);
  EXPECT_NE(written.notes[0].find("cut: has no pictures; "), std::string::npos);
  EXPECT_NE(written.notes[0].find("images/cut.nii.gz"), std::string::npos) << written.notes[0];
  EXPECT_TRUE(std::filesystem::exists(folder / "report/good.html"));  // the next worst instead
  EXPECT_TRUE(std::filesystem::exists(folder / "report/worst.png"));
  options.worst = 3;
  const auto more = write_evaluation(found(), options, folder / "report");
  ASSERT_EQ(more.notes.size(), 2U);
  EXPECT_NE(more.notes[1].find("other.nii.gz: has the size"), std::string::npos) << more.notes[1];
}

TEST_F(Evaluations, MasksOf255ComeBackAsThey) {
  SegmentationPlan plan;
  plan.dims = 2;
  plan.classes = 2;
  plan.class_names = {"background", "class 1"};
  plan.values = {"0", "1"};
  plan.label_scale = 255;
  truth("a", one * 255);
  const std::string file = folder / "truth/a.nii.gz", made = folder / "guess/a.nii.gz";
  const Volume place = read_volume(file);
  std::filesystem::create_directories(folder / "guess");
  write_prediction(made, one, plan, place);
  expect_equal(read_labels(made, place), read_labels(file, place));
  EXPECT_EQ(found().cases.at(0).mean_dice, 1);  // without a word on values
  // with the plan, whichever way the prediction was written
  options.classes = {{"class 1", {1}}};
  options.label_scale = 255;
  EXPECT_EQ(found().cases.at(0).mean_dice, 1);
  EXPECT_EQ(choose_rules({{"a", made, file, ""}}, plan).before, (std::vector<double>{1}));
  guess("a", one);
  EXPECT_EQ(found().cases.at(0).mean_dice, 1);
  EXPECT_TRUE(found().warnings.empty());
}

}  // namespace
}  // namespace serpentine::testing
