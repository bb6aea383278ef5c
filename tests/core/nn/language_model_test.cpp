// The language model: keys, tied embedding, padding of the vocabulary, init, generation.
#include "core/nn/language_model.h"

#include <gtest/gtest.h>

#include "core/io/state_dict.h"
#include "core/nn/parameter_groups.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

LanguageModelOptions small() {
  LanguageModelOptions options;
  options.d_model = 16;
  options.n_layer = 4;
  options.vocab_size = 21;
  options.mamba.d_state = 4;
  return options;
}

TEST(LanguageModel, PadsTheVocabularyAndTiesTheHead) {
  LanguageModel model(small());
  EXPECT_EQ(model->backbone->embedding->weight.size(0), 24);
  std::map<std::string, torch::Tensor> keys;
  for (const auto& [name, tensor] : state_dict(*model)) keys[name] = tensor;
  ASSERT_TRUE(keys.count("lm_head.weight") && keys.count("backbone.layers.3.mixer.A_log"));
  EXPECT_TRUE(keys["lm_head.weight"].is_same(keys["backbone.embedding.weight"]));
  const auto groups = parameter_groups(*model);
  EXPECT_EQ(groups.decayed.size() + groups.not_decayed.size(),
            keys.size() - 1);  // the tied weight once

  // both roles reach the one gradient, also after a change of type
  model->to(torch::kDouble);
  model(torch::zeros({1, 3}, torch::kLong)).sum().backward();
  EXPECT_TRUE(model->lm_head->parameters()[0].is_same(model->backbone->embedding->weight));
  EXPECT_TRUE(model->backbone->embedding->weight.grad().defined());
}

TEST(LanguageModel, UntiedHeadIsItsOwn) {
  auto options = small();
  options.tie_embeddings = false;
  LanguageModel model(options);
  EXPECT_FALSE(model->lm_head->parameters()[0].is_same(model->backbone->embedding->weight));
}

TEST(LanguageModel, ShrinksTheBranchesWithDepth) {
  LanguageModel model(small());
  auto& block = model->backbone->layers->at<BlockImpl>(0);
  const auto bound =
      1 / std::sqrt(32.0) / std::sqrt(4.0);  // kaiming with a = sqrt(5), then 1 / sqrt(layers)
  const auto largest = std::dynamic_pointer_cast<MambaImpl>(block.mixer)
                           ->out_proj->weight.abs()
                           .max()
                           .item<double>();
  EXPECT_LE(largest, bound * 1.0001);
  EXPECT_GT(largest, 0.9 * bound);
  EXPECT_NEAR(model->backbone->embedding->weight.std().item<double>(), 0.02, 0.003);
}

TEST(LanguageModel, GeneratesAsTheWholeSequence) {
  torch::manual_seed(1);
  auto options = small();
  options.d_intermediate = 32;
  options.rms_norm = false;
  LanguageModel model(options);
  const auto ids = torch::randint(0, 21, {2, 8}, torch::kLong);
  const auto whole = model(ids);
  GenerationState state;
  expect_close(model->prefill(ids.narrow(1, 0, 3), state), whole.narrow(1, 0, 3), 5e-6);
  for (int64_t t = 3; t < 8; ++t)
    expect_close(model->step(ids.select(1, t), state), whole.select(1, t), 5e-6);
}

TEST(LanguageModel, RefusesIdsOfAnotherKind) {
  LanguageModel model(small());
  EXPECT_THROW(model(torch::zeros({1, 3})), c10::Error);
  GenerationState state;
  EXPECT_THROW(model->step(torch::zeros({1, 3}, torch::kLong), state), c10::Error);
}

}  // namespace
}  // namespace serpentine::testing
