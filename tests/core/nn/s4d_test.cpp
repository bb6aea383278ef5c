// S4D: the recurrence is the convolution, long kernels, channel dropout.
#include "core/nn/s4d.h"

#include <gtest/gtest.h>

#include "core/nn/drop_path.h"
#include "core/ops/long_conv.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

S4d small_layer() {
  S4dOptions options;
  options.d_model = 6;
  options.d_state = 8;
  S4d layer(options);
  layer->to(torch::kDouble);
  return layer;
}

TEST(S4d, StepsFollowTheConvolution) {
  torch::manual_seed(1);
  const torch::NoGradGuard no_grad;
  auto layer = small_layer();
  for (const int64_t tokens : {1, 2, 37}) {
    const auto x = torch::randn({3, tokens, 6}, torch::kDouble);
    const auto whole = layer(x);
    torch::Tensor state;
    for (int64_t t = 0; t < tokens; ++t) {
      expect_close(layer->step(x.select(1, t), state), whole.select(1, t), 1e-12);
    }
  }
}

TEST(S4d, TakesAnEmptySequence) {
  auto layer = small_layer();
  EXPECT_EQ(layer(torch::zeros({2, 0, 6}, torch::kDouble)).sizes(), at::IntArrayRef({2, 0, 6}));
}

TEST(S4d, RefusesAnOddState) {
  S4dOptions options;
  options.d_state = 7;
  EXPECT_THROW(S4d{options}, c10::Error);
}

TEST(ExponentialKernel, IsTheSumOfItsModes) {
  torch::manual_seed(2);
  const auto weights = torch::randn({2, 3, 5}, torch::kComplexDouble);
  const auto exponents =
      torch::complex(-torch::rand({3, 5}, torch::kDouble), torch::randn({3, 5}, torch::kDouble));
  for (const int64_t length : {1, 2, 3, 50, 64}) {
    const auto l = torch::arange(length, torch::kDouble);
    const auto direct =
        2 * torch::real((weights.unsqueeze(-1) * (exponents.unsqueeze(-1) * l).exp()).sum(-2));
    expect_close(exponential_kernel(weights, exponents, length), direct, 1e-13);
  }
  EXPECT_EQ(exponential_kernel(weights, exponents, 0).sizes(), at::IntArrayRef({2, 3, 0}));
}

TEST(LongConv, IsTheSumOverThePast) {
  torch::manual_seed(3);
  for (const auto& [tokens, taps] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 7}, {13, 5}, {9, 20}}) {
    const auto u = torch::randn({2, tokens, 3}, torch::kDouble);
    const auto kernel = torch::randn({2, 3, taps}, torch::kDouble);
    auto causal = torch::zeros({2, 2, tokens, 3}, torch::kDouble), back = causal.clone();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t s = 0; s < tokens; ++s) {
        const int64_t lag = s <= t ? t - s : s - t - 1;
        if (lag >= taps) continue;
        auto& into = s <= t ? causal : back;
        into.select(2, t) += kernel.select(2, lag) * u.select(1, s).unsqueeze(1);
      }
    }
    expect_close(long_conv(u, kernel), causal, 1e-13);
    expect_close(long_conv_from_end(u, kernel), back, 1e-13);
  }
}

TEST(DropChannels, DropsAChannelForAllTokens) {
  torch::manual_seed(4);
  const auto dropped = drop_channels(torch::ones({50, 7, 40}), 0.25, true);
  expect_equal(std::get<0>(dropped.min(1)), std::get<0>(dropped.max(1)));
  EXPECT_NEAR((dropped.select(1, 0) == 0).to(torch::kFloat).mean().item<double>(), 0.25, 0.03);
  EXPECT_NEAR(dropped.mean().item<double>(), 1, 0.04);
}

}  // namespace
}  // namespace serpentine::testing
