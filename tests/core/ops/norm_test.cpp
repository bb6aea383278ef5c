// add_norm against the formula in double precision, its dtype rules and its gradients.
#include "core/ops/norm.h"

#include <gtest/gtest.h>

#include "core/ops/gate.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

Tensor formula(const AddNormArgs& args) {
  auto s = args.x.to(torch::kDouble);
  if (args.residual.defined()) s = s + args.residual.to(torch::kDouble);
  if (args.kind == NormKind::kLayer) s = s - s.mean(-1, true);
  const auto y = s / (s.square().mean(-1, true) + args.eps).sqrt() * args.weight.to(torch::kDouble);
  return args.bias.defined() ? y + args.bias.to(torch::kDouble) : y;
}

AddNormArgs random_args(NormKind kind, at::ScalarType type, bool with_residual) {
  AddNormArgs args;
  args.x = torch::randn({3, 5, 24}).to(type);
  if (with_residual) args.residual = torch::randn({3, 5, 24});
  args.weight = torch::randn({24}).to(type);
  if (kind == NormKind::kLayer) args.bias = torch::randn({24}).to(type);
  args.kind = kind;
  return args;
}

TEST(AddNorm, FollowsTheFormula) {
  torch::manual_seed(1);
  for (auto kind : {NormKind::kRms, NormKind::kLayer}) {
    for (bool residual : {false, true}) {
      const auto args = random_args(kind, torch::kFloat, residual);
      expect_close(add_norm(args).y, formula(args), 2e-7);
      const auto narrow = random_args(kind, torch::kBFloat16, residual);
      expect_close(add_norm(narrow).y, formula(narrow).to(torch::kBFloat16), 1e-3);
    }
  }
}

TEST(AddNorm, KeepsTheResidualsType) {
  auto args = random_args(NormKind::kRms, torch::kBFloat16, false);
  EXPECT_EQ(add_norm(args).residual.scalar_type(), torch::kBFloat16);
  args.residual_in_fp32 = true;
  const auto first = add_norm(args);
  EXPECT_EQ(first.residual.scalar_type(), torch::kFloat);
  EXPECT_EQ(first.y.scalar_type(), torch::kBFloat16);
  args.residual = first.residual;
  args.residual_in_fp32 = false;
  EXPECT_EQ(add_norm(args).residual.scalar_type(), torch::kFloat);
}

TEST(AddNorm, NormalisesTheUnroundedSum) {
  AddNormArgs args;
  args.x = torch::tensor({1.0F, 1.0F}).to(torch::kBFloat16);
  args.residual = torch::tensor({256.0F, 0.0F}).to(torch::kBFloat16);  // 257 is no bfloat16
  args.weight = torch::ones({2});
  args.eps = 0;
  const double expected = 1 / std::sqrt((257.0 * 257.0 + 1) / 2);
  expect_equal(add_norm(args).y[1], torch::tensor(expected).to(torch::kBFloat16));
}

TEST(AddNorm, GradientsMatchDifferences) {
  torch::manual_seed(2);
  for (auto kind : {NormKind::kRms, NormKind::kLayer}) {
    const auto random = [](at::IntArrayRef shape) { return torch::randn(shape, torch::kDouble); };
    expect_gradients(
        [&](const std::vector<Tensor>& in) {
          const auto made = add_norm({in[0], in[1], in[2], in[3], kind, 1e-5, true});
          return std::vector<Tensor>{made.y, made.residual};
        },
        {random({2, 6}), random({2, 6}), random({6}), random({6})});
  }
}

TEST(SiluGate, IsTheProductWithSilu) {
  const Tensor y = torch::randn({2, 3, 5}, torch::kDouble),
               z = torch::randn({3, 5}, torch::kDouble);
  EXPECT_TRUE(silu_gate(y, z).allclose(y * z * torch::sigmoid(z)));
}

}  // namespace
}  // namespace serpentine::testing
