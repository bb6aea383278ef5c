// The guard names the layer in which a value first stopped being finite.
#include "core/train/nan_guard.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/train/trainer.h"
#include "toy.h"

namespace serpentine {

namespace {

std::string said(const std::shared_ptr<toy::Net>& net, const std::shared_ptr<Task>& task,
                 const Dataset& data) {
  FitOptions options;
  options.loader.batch_size = 8;
  Trainer trainer(options, net, task, torch::kCPU);
  const torch::Tensor before = net->first->bias.detach().clone();
  try {
    trainer.fit(data, toy::Points(0));
  } catch (const c10::Error& error) {
    EXPECT_TRUE(torch::equal(before.isnan(), net->first->bias.isnan()))
        << "the weights stay as they were";
    return error.what_without_backtrace();
  }
  return "";
}

void expect_words(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) {
    EXPECT_NE(text.find(word), std::string::npos) << text;
  }
}

TEST(NanGuard, IsQuietWhenAllIsWell) {
  EXPECT_EQ(
      said(std::make_shared<toy::Net>(0.2), std::make_shared<toy::Squares>(), toy::Points(20)), "");
}

TEST(NanGuard, NamesTheLayerBeforeTheBadOperator) {
  const auto net = std::make_shared<toy::Net>(0);
  net->root = true;  // the square root after the norm
  expect_words(said(net, std::make_shared<toy::Squares>(), toy::Points(20)),
               {"step 1 (epoch 1, batch 1)", "layer 'norm'", "aten::sqrt"});
}

TEST(NanGuard, NamesABadParameter) {
  const auto net = std::make_shared<toy::Net>(0);
  net->last->weight.data()[2][5] = INFINITY;
  expect_words(said(net, std::make_shared<toy::Squares>(), toy::Points(20)),
               {"layer 'last'", "'last.weight' [2, 5], 1 of 48 values"});
}

TEST(NanGuard, NamesABadInput) {
  class Broken : public toy::Points {
   public:
    Broken() : toy::Points(8) {}
    Batch get(int64_t index) const override {
      Batch batch = toy::Points::get(index);
      batch.target = torch::zeros(3);
      if (index == 2) batch.input[6] = NAN;
      return batch;
    }
  };
  const std::string text =
      said(std::make_shared<toy::Net>(0), std::make_shared<toy::Squares>(), Broken());
  expect_words(text, {"the batch has bad values in input[", ", 6], 1 of 64 values"});
}

TEST(NanGuard, NamesTheLayerWhoseGradientIsBad) {
  class Kink : public toy::Squares {  // finite, but its gradient is 0 * infinity
   public:
    Loss loss(Model& model, const Batch& batch) override {
      const torch::Tensor y = model.forward(batch);
      return {torch::sqrt((y * 0).sum()), y.numel()};
    }
  };
  expect_words(said(std::make_shared<toy::Net>(0), std::make_shared<Kink>(), toy::Points(20)),
               {"the loss is finite but gradients are not", "layer 'last'"});
}

}  // namespace

}  // namespace serpentine
