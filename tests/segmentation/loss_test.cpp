// Losses and the task: values by hand, ignored voxels, regions, exact metrics.
#include "segmentation/loss.h"
#include "core/train/class_metrics.h"

#include "segmentation/files.h"
#include "segmentation/segmentation.h"
#include "support/close.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

SegmentationLossOptions only(double SegmentationLossOptions::* term) {
  SegmentationLossOptions options;
  options.dice = options.ce = 0;
  options.*term = 1;
  options.smooth = 0;
  return options;
}

TEST(SegmentationLoss, DiceOfAPerfectGuessIsZero) {
  const auto target = torch::tensor({0, 1, 1, 2}, torch::kLong).view({1, 2, 2});
  const auto logits = one_hot_target(target, 3, false) * 200 - 100;
  EXPECT_NEAR(
      segmentation_loss(logits, target, false, only(&SegmentationLossOptions::dice)).item<double>(),
      0, 1e-6);
}

TEST(SegmentationLoss, DiceByHand) {
  // even chances: each of two classes gets 1/2 everywhere; the foreground has 1 of 4 pixels:
  // 2 * 0.5 / (2 + 1) = 1/3
  const auto target = torch::tensor({0, 0, 0, 1}, torch::kLong).view({1, 2, 2});
  const auto logits = torch::zeros({1, 2, 2, 2});
  EXPECT_NEAR(
      segmentation_loss(logits, target, false, only(&SegmentationLossOptions::dice)).item<double>(),
      2. / 3, 1e-6);
  EXPECT_NEAR(
      segmentation_loss(logits, target, false, only(&SegmentationLossOptions::ce)).item<double>(),
      std::log(2.), 1e-6);
  // focal: (1 - 1/2)^2 of it
  EXPECT_NEAR(segmentation_loss(logits, target, false, only(&SegmentationLossOptions::focal))
                  .item<double>(),
              std::log(2.) / 4, 1e-6);
  // Tversky with 0.3 and 0.7: tp 0.5, fp 1.5, fn 0.5
  EXPECT_NEAR(segmentation_loss(logits, target, false, only(&SegmentationLossOptions::tversky))
                  .item<double>(),
              1 - 0.5 / (0.5 + 0.3 * 1.5 + 0.7 * 0.5), 1e-6);
}

TEST(SegmentationLoss, IgnoresWhatIsMarked) {
  torch::manual_seed(1);
  const auto target = torch::randint(0, 3, {2, 4, 4}, torch::kLong);
  auto marked = target.clone();
  marked.slice(1, 0, 2).fill_(-1);
  SegmentationLossOptions options;
  options.focal = options.tversky = 0.5;
  const auto logits = torch::randn({2, 3, 4, 4});
  auto changed = logits.clone();
  changed.slice(2, 0, 2).normal_();
  expect_close(segmentation_loss(logits, marked, false, options),
               segmentation_loss(changed, marked, false, options), 1e-6);
}

TEST(SegmentationLoss, GradientsAreRight) {
  torch::manual_seed(2);
  const auto target = torch::randint(0, 3, {1, 3, 4}, torch::kLong);
  SegmentationLossOptions options;
  options.focal = options.tversky = options.boundary = 0.3;
  for (const bool regions : {false, true}) {
    expect_gradients(
        [&](const std::vector<torch::Tensor>& in) {
          return std::vector<torch::Tensor>{segmentation_loss(in[0], target, regions, options)};
        },
        {torch::randn({1, 3, 3, 4}, torch::kDouble)}, 1e-6, 1e-5);
  }
}

TEST(SegmentationLoss, RegionsAreBits) {
  const auto target = torch::tensor({0, 1, 3, 2}, torch::kLong).view({1, 1, 4});
  const auto truth = one_hot_target(target, 2, true);
  expect_equal(truth.flatten(), torch::tensor({0.F, 1.F, 1.F, 0.F, 0.F, 0.F, 1.F, 1.F}));
}

class Echo : public Model {
 public:
  torch::Tensor forward(const Batch& batch) override { return batch.input; }
};

TEST(SegmentTask, MetricsAreExactWhateverTheBatch) {
  Registry<Task> tasks("task");
  add_segmentation_tasks(tasks);
  const auto task =
      tasks.build(Config::parse("{type: segmentation, classes: 3, names: [a, b, c]}"));
  torch::manual_seed(4);
  Batch all;
  all.target = torch::randint(-1, 3, {4, 5, 5}, torch::kLong);
  all.input = torch::randn({4, 3, 5, 5});
  Echo model;
  task->evaluate(model, all);
  const auto once = task->metrics();
  for (int64_t i = 0; i < 4; ++i) {
    Batch one;
    one.target = all.target.narrow(0, i, 1);
    one.input = all.input.narrow(0, i, 1);
    task->evaluate(model, one);
  }
  const auto apart = task->metrics();
  for (const char* name : {"dice", "iou", "dice_b", "dice_c"}) {
    EXPECT_DOUBLE_EQ(once.at(name), apart.at(name)) << name;
  }
  const auto seen = all.target.ge(0), guess = all.input.argmax(1).eq(1) & seen,
             truth = all.target.eq(1);
  EXPECT_NEAR(once.at("dice_b"),
              2 * (guess & truth).sum().item<double>() / (guess.sum() + truth.sum()).item<double>(),
              1e-12);
}

TEST(SegmentTask, CountsTheAreaUnderTheCurveOfTwoClasses) {
  Registry<Task> tasks("task");
  add_segmentation_tasks(tasks);
  const auto task = tasks.build(Config::parse("{type: segmentation, classes: 2}"));
  torch::manual_seed(6);
  Batch batch;
  batch.target = torch::randint(-1, 2, {3, 40, 40}, torch::kLong);
  batch.input = 4 * torch::randn({3, 2, 40, 40});
  batch.input.select(1, 1) += batch.target;  // some of it right
  Echo model;
  task->evaluate(model, batch);
  const auto seen = batch.target.ge(0);
  const double exact =
      roc_auc((batch.input.select(1, 1) - batch.input.select(1, 0)).masked_select(seen),
              batch.target.masked_select(seen).eq(1));
  EXPECT_NEAR(task->metrics().at("auc"), exact, 1e-4);
  EXPECT_GT(exact, 0.52);

  batch.target.zero_();  // one class alone has no curve
  task->evaluate(model, batch);
  EXPECT_EQ(task->metrics().count("auc"), 0);
}

}  // namespace
}  // namespace serpentine::testing
