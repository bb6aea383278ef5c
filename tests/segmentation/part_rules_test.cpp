// Rules on connected parts: what each does, which of them held-out cases choose, and the baseline
// that looks at no image.
#include "segmentation/part_rules.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "segmentation/files.h"
#include "segmentation/label_prior.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

torch::Tensor with_mistakes(bool speck_of_one, bool hole_in_two) {
  auto labels = torch::zeros({3, 20, 20}, torch::kByte);
  labels.slice(1, 1, 6).slice(2, 1, 6).fill_(1);
  labels.slice(1, 9, 18).slice(2, 9, 18).fill_(2);
  if (speck_of_one) labels[1][2][18] = 1;
  if (hole_in_two) labels[1][13][13] = 0;
  return labels;
}

TEST(PartRules, DoWhatTheySay) {
  const auto labels = with_mistakes(true, true);
  PartRules largest, holes, together;
  largest.largest = {1};
  holes.fill_holes = {2};
  together.foreground = true;
  expect_equal(with_rules(labels, largest), with_mistakes(false, true));
  expect_equal(with_rules(labels, holes), with_mistakes(true, false));
  EXPECT_EQ(with_rules(labels, together).eq(1).sum().item<int64_t>(), 0);  // 2 is the largest
  EXPECT_TRUE(PartRules{}.none());
  expect_equal(with_rules(labels, {}), labels);
}

/// Counts what tensors of the CPU hold, and its highest.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    held += size;
    peak = std::max(peak, held);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t held = 0, peak = 0;
};

TEST(PartRules, KeepToTheirMemory) {
  torch::manual_seed(3);
  auto labels = torch::randint(0, 3, {32, 48, 64}, torch::kByte);
  PartRules rules;
  rules.foreground = true;
  rules.largest = {1, 2};
  rules.fill_holes = {1, 2};
  const auto meter = std::make_shared<MemoryMeter>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    apply_rules(labels, rules);
  }
  EXPECT_GT(meter->peak, 5 * labels.numel());                          // the meter runs
  EXPECT_LE(meter->peak, rules_memory(labels.numel(), rules) + 4096);  // numbers as tensors
  EXPECT_EQ(rules_memory(labels.numel(), {}), 0);
}

TEST(PartRules, KeepNearLabelsTogether) {
  auto labels = torch::zeros({1, 8, 8}, torch::kByte);
  labels[0].slice(0, 1, 3).slice(1, 1, 6).fill_(1);
  labels[0].slice(0, 3, 5).slice(1, 1, 6).fill_(2);
  const auto whole = labels.clone();
  labels[0][7][7] = 2;
  PartRules together;
  together.foreground = true;
  expect_equal(with_rules(labels, together), whole);
}

class RuleChoices : public ::testing::Test {
 protected:
  RuleChoices() {
    plan.dims = 3;
    plan.classes = 3;
    plan.class_names = {"background", "one", "two"};
    plan.values = {"0", "1", "2"};
  }
  void add(const std::string& name, const torch::Tensor& guess, const torch::Tensor& truth) {
    const std::string at = folder / (name + "_guess.nii.gz"), real = folder / (name + ".nii.gz");
    save(at, guess);
    save(real, truth);
    pairs.push_back({name, at, real, ""});
  }
  TemporaryFolder folder;
  SegmentationPlan plan;
  std::vector<CasePair> pairs;
};

TEST_F(RuleChoices, TakeWhatHelpsAndNothingElse) {
  const auto truth = with_mistakes(false, false);
  add("a", with_mistakes(true, true), truth);
  add("b", with_mistakes(true, false), truth);
  auto choice = choose_rules(pairs, plan);
  EXPECT_EQ(choice.rules.foreground, false);  // it would remove the whole of one
  EXPECT_EQ(choice.rules.largest, (std::vector<int64_t>{1}));
  EXPECT_EQ(choice.rules.fill_holes, (std::vector<int64_t>{2}));
  EXPECT_LT(choice.before[0], 1);
  EXPECT_EQ(choice.after, (std::vector<double>{1, 1}));
  EXPECT_EQ(rules_text(choice.rules), "the largest part of 1; holes of 2");
}

TEST_F(RuleChoices, TakeNoneWherePartsAreReal) {
  add("a", with_mistakes(true, true), with_mistakes(true, true));
  add("b", with_mistakes(true, true), with_mistakes(false, false));
  // alone, b's mistakes call for both rules; the speck and the hole are real as often as not
  EXPECT_FALSE(choose_rules({pairs[1]}, plan).rules.none());
  for (const auto& judged : {std::vector<CasePair>{pairs[0]}, pairs}) {
    const auto choice = choose_rules(judged, plan);
    EXPECT_TRUE(choice.rules.none()) << rules_text(choice.rules);
    EXPECT_EQ(choice.before, choice.after);
  }
}

TEST_F(RuleChoices, TakeTheForegroundAsAWhole) {
  auto truth = torch::zeros({1, 10, 10}, torch::kByte);
  truth[0].slice(0, 2, 4).slice(1, 2, 8).fill_(1);
  truth[0].slice(0, 4, 6).slice(1, 2, 8).fill_(2);
  auto guess = truth.clone();
  guess[0][9][9] = 1;
  guess[0][0][9] = 2;
  add("a", guess, truth);
  const auto choice = choose_rules(pairs, plan);
  EXPECT_TRUE(choice.rules.foreground);
  EXPECT_TRUE(choice.rules.largest.empty());
}

TEST_F(RuleChoices, AreKeptWithARun) {
  PartRules rules;
  EXPECT_EQ(read_rules(folder.path()), rules);
  rules.foreground = true;
  rules.largest = {1, 7};
  rules.fill_holes = {2};
  write_rules(folder.path(), rules);
  EXPECT_EQ(read_rules(folder.path()), rules);
  std::ofstream(folder / "postprocess.json") << "{\"largest\": 3}";
  const auto said = error_of([&] { read_rules(folder.path()); });
  EXPECT_NE(said.find("postprocess.json: is damaged"), std::string::npos) << said;
}

TEST(PartRules, ValuesOfRegionsAreThoseWritten) {
  SegmentationPlan plan;
  plan.regions = true;
  plan.values = {"1+2+3", "2+3", "3"};
  plan.region_order = {1, 2, 3};
  EXPECT_EQ(written_values(plan), (std::vector<int64_t>{1, 2, 3}));
  plan.regions = false;
  plan.values = {"0", "9", "4"};
  EXPECT_EQ(written_values(plan), (std::vector<int64_t>{4, 9}));
}

TEST(LabelPrior, IsWhatMostSayAtEachPlace) {
  auto a = torch::zeros({2, 2, 2}, torch::kByte), b = a.clone(), c = a.clone();
  a[0].fill_(5);
  b[0].fill_(5);
  b[1].fill_(3);
  c[1].fill_(3);
  const auto prior = label_prior({a, b, c}, {2, 2, 2});
  EXPECT_TRUE(prior[0].eq(5).all().item<bool>());
  EXPECT_TRUE(prior[1].eq(3).all().item<bool>());
  EXPECT_EQ(label_prior({a}, {4, 6, 2}).sizes(), (at::IntArrayRef{4, 6, 2}));
}

}  // namespace
}  // namespace serpentine::testing
