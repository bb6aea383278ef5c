// S4: the recurrence is the convolution, lengths that grow, states, HiPPO's structure.
#include "core/nn/s4.h"

#include <gtest/gtest.h>

#include "core/nn/hippo.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

S4 layer_of(S4Options options) {
  options.d_model = 4;
  options.d_state = 8;
  S4 layer(options);
  layer->to(torch::kDouble);
  layer->eval();
  return layer;
}

std::vector<S4Options> s4_variants() {
  std::vector<S4Options> all(6);
  all[1].init = "legt", all[1].rank = 2, all[1].n_ssm = 2;
  all[2].mode = "diag", all[2].init = "diag-lin";
  all[3].mode = "diag", all[3].init = "diag-inv", all[3].disc = "bilinear", all[3].channels = 2;
  all[4].mode = "diag", all[4].init = "legs", all[4].dt_tie = false;
  all[5].dt_transform = "softplus", all[5].real_transform = "softplus";
  return all;
}

TEST(S4, StepsFollowTheConvolution) {
  for (const auto& options : s4_variants()) {
    torch::manual_seed(1);
    const torch::NoGradGuard no_grad;
    auto layer = layer_of(options);
    const auto x = torch::randn({2, 21, 4}, torch::kDouble);
    const auto whole = layer->forward(x);
    torch::Tensor state;
    for (int64_t t = 0; t < 21; ++t) {
      expect_close(layer->step(x.select(1, t), state), whole.select(1, t), 1e-6);
    }
  }
}

TEST(S4, ContinuesFromAState) {
  for (const auto& options : s4_variants()) {
    torch::manual_seed(2);
    const torch::NoGradGuard no_grad;
    auto layer = layer_of(options);
    const auto x = torch::randn({2, 21, 4}, torch::kDouble);
    torch::Tensor once, twice;
    const auto whole = layer->forward_from(x, once);
    const auto first = layer->forward_from(x.narrow(1, 0, 8), twice);
    const auto second = layer->forward_from(x.narrow(1, 8, 13), twice);
    expect_close(torch::cat({first, second}, 1), whole, 1e-6);
    EXPECT_TRUE(torch::allclose(once, twice, 1e-6, 1e-6));
  }
}

/// C is rewritten when the length grows, but not what it stands for.
TEST(S4, LongerInputsKeepTheShorterOnesOutput) {
  torch::manual_seed(3);
  const torch::NoGradGuard no_grad;
  auto layer = layer_of({});
  const auto x = torch::randn({1, 50, 4}, torch::kDouble);
  const auto before = layer->forward(x.narrow(1, 0, 12));
  EXPECT_EQ(layer->layer->kernel->l_kernel.item<int64_t>(), 12);
  const auto whole = layer->forward(x);
  EXPECT_EQ(layer->layer->kernel->l_kernel.item<int64_t>(), 96);
  expect_close(whole.narrow(1, 0, 12), before, 1e-8);
  expect_close(layer->forward(x.narrow(1, 0, 12)), before, 1e-8);
}

TEST(S4, BothDirectionsSeeBothEnds) {
  torch::manual_seed(4);
  S4Options options;
  options.mode = "diag";
  options.bidirectional = true;
  auto layer = layer_of(options);
  auto x = torch::randn({1, 9, 4}, torch::kDouble).requires_grad_(true);
  const auto y = layer->forward(x);
  const auto grad = torch::autograd::grad({y.select(1, 0).sum()}, {x})[0];
  EXPECT_GT(grad.select(1, 8).abs().max().item<double>(), 0);
  torch::Tensor state;
  EXPECT_THROW(layer->forward_from(x, state), c10::Error);
}

TEST(S4, ReadsZerosBehindALength) {
  torch::manual_seed(5);
  S4Options options;
  options.mode = "diag";
  auto layer = layer_of(options);
  auto x = torch::randn({2, 9, 4}, torch::kDouble);
  const auto lengths = torch::tensor({9, 4}, torch::kLong);
  const auto y = layer->forward(x, lengths);
  x[1].slice(0, 4).fill_(100);
  expect_equal(layer->forward(x, lengths), y);
}

TEST(S4, SaysWhatIsWrong) {
  S4Options options;
  options.mode = "dplr";
  options.disc = "zoh";
  EXPECT_THROW(layer_of(options), c10::Error);
  options = {};
  options.n_ssm = 3;
  EXPECT_THROW(layer_of(options), c10::Error);
  options = {};
  options.init = "diag-unknown";
  EXPECT_THROW(layer_of(options), c10::Error);
  EXPECT_THROW(hippo_rank_correction("legt", 8, 1), c10::Error);
}

TEST(Hippo, NormalPlusLowRankIsTheSystem) {
  for (const char* measure : {"legs", "legt", "fourier"}) {
    const int64_t states = 8, rank = 2;
    const auto dense = hippo_system(measure, states);
    const auto made = hippo_nplr(measure, states, rank, 0);
    // A = 2 Re(V (w - P P^*) V^*) over the kept half is only whole with the other half's columns:
    // both halves together are unitary
    const auto V = torch::cat({made.V, made.V.conj().resolve_conj()}, 1);
    const auto w = torch::cat({made.w, made.w.conj().resolve_conj()});
    const auto P = torch::cat({made.P, made.P.conj().resolve_conj()}, 1);
    const auto inner = torch::diag(w) - torch::matmul(P.t(), P.conj());
    const auto A = torch::matmul(torch::matmul(V, inner), V.conj().t());
    expect_close(torch::real(A), dense.A, 1e-9, measure);
    EXPECT_LT(torch::imag(A).abs().max().item<double>(), 1e-8) << measure;
  }
}

}  // namespace
}  // namespace serpentine::testing
