// Mamba-2, Mamba-3 and Hydra: decoding equals the whole, packing, orders, both ends, options.
#include "core/nn/mamba2.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include "core/nn/hydra.h"
#include "core/nn/mamba3.h"
#include "core/ops/merge.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

Mamba2 small_mamba2(Mamba2Options options = {}) {
  options.d_model = 12;
  options.d_state = 5;
  options.headdim = 4;
  Mamba2 block(options);
  block->to(torch::kDouble);
  return block;
}

Mamba3 small_mamba3(Mamba3Options options = {}) {
  options.d_model = 12;
  options.d_state = 8;
  options.headdim = 4;
  Mamba3 block(options);
  block->to(torch::kDouble);
  return block;
}

Hydra small_hydra() {
  HydraOptions options;
  options.d_model = 12;
  options.d_state = 5;
  options.headdim = 4;
  Hydra block(options);
  block->to(torch::kDouble);
  return block;
}

std::vector<Mamba2Options> variants() {
  std::vector<Mamba2Options> all(6);
  all[1].ngroups = 3;
  all[1].norm_before_gate = true;
  all[2].d_ssm = 16;
  all[2].D_has_hdim = true;
  all[2].bias = true;
  all[3].rmsnorm = false;
  all[3].conv_bias = false;
  all[4].dt_least = 0.01, all[4].dt_most = 0.05;
  all[5].learnable_init_states = true;
  return all;
}

/// Output, last states and gradients of a sequence cut into prefills.
template <class Block>
std::vector<Tensor> run_in_pieces(Block block, const Tensor& input, const Tensor& cotangent,
                                  const std::vector<int64_t>& sizes) {
  block->zero_grad();
  auto x = input.clone().requires_grad_(true);
  MixerState state;
  std::vector<Tensor> outputs;
  for (const auto& piece : x.split_with_sizes(sizes, 1)) {
    outputs.push_back(block->prefill(piece, state));
  }
  const auto y = torch::cat(outputs, 1);
  torch::autograd::backward({y, state.ssm.sum()}, {cotangent, {}});
  std::vector<Tensor> all{y.detach(), state.ssm.detach(), x.grad()};
  for (const auto& parameter : block->parameters()) all.push_back(parameter.grad().clone());
  return all;
}

template <class Block>
void expect_pieces_equal_the_whole(Block block) {
  const auto input = torch::randn({2, 17, 12}, torch::kDouble),
             cotangent = torch::randn_like(input);
  const auto whole = run_in_pieces(block, input, cotangent, {17});
  for (const auto& sizes :
       {std::vector<int64_t>{1, 2, 9, 5}, std::vector<int64_t>(17, int64_t{1})}) {
    const auto pieces = run_in_pieces(block, input, cotangent, sizes);
    for (size_t i = 0; i < whole.size(); ++i) {
      expect_close(pieces[i], whole[i], 1e-10, std::to_string(i));
    }
  }
  expect_close(whole[0], block->forward(input), 1e-12);
}

TEST(Mamba2, PiecesEqualTheWholeWithTheirGradients) {
  for (const auto& options : variants()) {
    torch::manual_seed(1);
    auto block = small_mamba2(options);
    if (block->init_states.defined()) {
      const torch::NoGradGuard no_grad;
      block->init_states.normal_();
    }
    expect_pieces_equal_the_whole(block);
  }
}

TEST(Mamba3, PiecesEqualTheWholeWithTheirGradients) {
  for (const char* activation : {"heavy_tail", "softplus"}) {
    for (const bool normed : {false, true}) {
      torch::manual_seed(2);
      Mamba3Options options;
      options.activation = activation;
      options.is_outproj_norm = normed;
      options.rope_fraction = normed ? 1 : 0.5;
      expect_pieces_equal_the_whole(small_mamba3(options));
    }
  }
}

/// Sequences side by side give what each gives alone.
template <class Block>
void expect_packed_equals_separate(Block block) {
  const auto x = torch::randn({2, 20, 12}, torch::kDouble);
  const std::vector<int64_t> cuts{0, 6, 7, 20};
  const auto packed = block->forward(x, ragged_order(torch::tensor(cuts, torch::kInt)));
  for (size_t s = 0; s + 1 < cuts.size(); ++s) {
    const auto part = [&](const Tensor& t) { return t.slice(1, cuts[s], cuts[s + 1]); };
    expect_close(part(packed), block->forward(part(x)), 1e-12);
  }
}

/// A permuted sequence walked back through the permutation is the sequence.
template <class Block>
void expect_order_permutes(Block block) {
  const auto x = torch::randn({2, 9, 12}, torch::kDouble);
  const auto walk = torch::randperm(9);
  const auto order =
      make_order(walk, torch::tensor({0, 9}, torch::kInt), torch::zeros({1}, torch::kInt), 9);
  const auto through = block->forward(x, order).index_select(1, walk);
  expect_close(through, block->forward(x.index_select(1, walk)), 1e-12);
}

TEST(Mixers, PackSequences) {
  torch::manual_seed(3);
  expect_packed_equals_separate(small_mamba2());
  expect_packed_equals_separate(small_mamba3());
  expect_packed_equals_separate(small_hydra());
}

TEST(Mixers, FollowAnOrder) {
  torch::manual_seed(4);
  expect_order_permutes(small_mamba2());
  expect_order_permutes(small_mamba3());
  expect_order_permutes(small_hydra());
}

TEST(Mixers, TakeEmptyAndSingleTokens) {
  auto mamba2 = small_mamba2();
  auto mamba3 = small_mamba3();
  auto hydra = small_hydra();
  for (const int64_t tokens : {0, 1}) {
    const auto x = torch::randn({2, tokens, 12}, torch::kDouble);
    EXPECT_EQ(mamba2->forward(x).sizes(), x.sizes());
    EXPECT_EQ(mamba3->forward(x).sizes(), x.sizes());
    EXPECT_EQ(hydra->forward(x).sizes(), x.sizes());
  }
}

TEST(Mamba2, RefusesWhatDoesNotDivide) {
  Mamba2Options options;
  options.d_model = 12;
  options.headdim = 7;
  EXPECT_THROW(Mamba2{options}, c10::Error);
  options.headdim = 4;
  options.ngroups = 5;
  EXPECT_THROW(Mamba2{options}, c10::Error);
  options.ngroups = 1;
  options.d_ssm = 28;
  EXPECT_THROW(Mamba2{options}, c10::Error);
}

TEST(Mamba2, StaysCloseInSixteenBits) {
  torch::manual_seed(5);
  Mamba2Options options;
  options.d_model = 32;
  options.headdim = 16;
  Mamba2 block(options);
  const auto x = torch::randn({2, 40, 32});
  const auto expected = block->forward(x);
  block->to(torch::kBFloat16);
  const auto actual = block->forward(x.to(torch::kBFloat16));
  EXPECT_EQ(actual.scalar_type(), torch::kBFloat16);
  expect_close(actual, expected, 2e-2);  // worst measured: 8e-3
}

/// Under autocast the products are of 16 bits, the scan's parameters and their gradients float32.
template <class Block>
void expect_autocast_is_close(Block block) {
  block->to(torch::kFloat);
  const auto x = torch::randn({2, 40, 12});
  const auto wide = block->forward(x);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const auto narrow = block->forward(x);
  narrow.sum().backward();
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(narrow.scalar_type(), torch::kBFloat16);
  expect_close(narrow, wide, 2e-2);
  for (const auto& parameter : block->parameters()) {
    EXPECT_EQ(parameter.grad().scalar_type(), torch::kFloat);
  }
}

TEST(Mixers, StayCloseUnderAutocast) {
  torch::manual_seed(8);
  expect_autocast_is_close(small_mamba2());
  expect_autocast_is_close(small_mamba3());
  expect_autocast_is_close(small_hydra());
}

/// The first token must feel the last one, and the other way round; a causal mixer fails this.
TEST(Hydra, LooksBothWays) {
  torch::manual_seed(6);
  auto block = small_hydra();
  auto x = torch::randn({1, 30, 12}, torch::kDouble).requires_grad_(true);
  const auto y = block->forward(x);
  for (const auto& [of, to] : std::vector<std::pair<int64_t, int64_t>>{{0, 29}, {29, 0}}) {
    const auto grad = torch::autograd::grad({y.select(1, of).sum()}, {x}, {}, true)[0];
    EXPECT_GT(grad.select(1, to).abs().max().item<double>(), 0);
  }
  MixerState state;
  EXPECT_THROW(block->prefill(x, state), c10::Error);
  EXPECT_THROW(block->empty_state(1), c10::Error);
}

TEST(Hydra, ASequenceBackwardsWithDirectionsSwappedIsTheSame) {
  torch::manual_seed(7);
  auto block = small_hydra();
  const torch::NoGradGuard no_grad;
  // with the same B, C and dt in both directions and a symmetric convolution, flipping commutes
  const int64_t inner = block->options.inner(), shared = 2 * block->options.d_state,
                heads = block->options.heads();
  auto& weight = block->in_proj->weight;
  weight.slice(0, 2 * inner + shared, 2 * inner + 2 * shared)
      .copy_(weight.slice(0, 2 * inner, 2 * inner + shared));
  const int64_t steps = 2 * inner + 2 * shared;
  weight.slice(0, steps + heads, steps + 2 * heads).copy_(weight.slice(0, steps, steps + heads));
  auto& taps = block->conv1d->weight;
  taps.copy_((taps + taps.flip(2)) / 2);
  for (auto* part : {&taps, &block->conv1d->bias}) {
    part->slice(0, inner + shared, inner + 2 * shared).copy_(part->slice(0, inner, inner + shared));
  }
  const auto x = torch::randn({2, 11, 12}, torch::kDouble);
  expect_close(block->forward(x.flip(1)).flip(1), block->forward(x), 1e-12);
}

}  // namespace
}  // namespace serpentine::testing
