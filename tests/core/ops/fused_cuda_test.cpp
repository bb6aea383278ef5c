// The norm with its residual and the gate on a GPU against their definitions in float64.
#include <gtest/gtest.h>

#include "core/ops/gate.h"
#include "core/ops/norm.h"
#include "support/close.h"
#include "support/cuda.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

// Largest error over largest magnitude; 16 bits: LibTorch's operators, which take what the kernels
// do not, round twice
double fused_tolerance(at::ScalarType type) {
  return type == torch::kFloat ? 3e-6 : type == torch::kHalf ? 0x1p-10 : 0x1p-7;
}

struct NormCase {
  int64_t rows, channels;
  at::ScalarType type;
  NormKind kind;
  bool residual, bias, wide;  // wide: the residual in float32
};

std::string name_of_norm(const NormCase& of) {
  return std::to_string(of.rows) + "x" + std::to_string(of.channels) + "_" +
         std::string(c10::toString(of.type)) + (of.kind == NormKind::kLayer ? "_layer" : "_rms") +
         (of.residual ? "_residual" : "") + (of.bias ? "_bias" : "") + (of.wide ? "_wide" : "");
}

struct NormRun {
  std::vector<Tensor> values;
};

/// Outputs and gradients; both outputs have a cotangent unless `first_only`.
NormRun run_norm(AddNormArgs args, const Tensor& dy, const Tensor& dsum, bool first_only) {
  std::vector<Tensor> leaves;
  for (Tensor* operand : {&args.x, &args.residual, &args.weight, &args.bias}) {
    if (!operand->defined()) continue;
    *operand = operand->detach().requires_grad_();
    leaves.push_back(*operand);
  }
  const auto made = add_norm(args);
  NormRun run;
  run.values = {made.y.detach(), made.residual.detach()};
  const auto grads = first_only
                         ? torch::autograd::grad({made.y}, leaves, {dy.to(made.y.scalar_type())})
                         : torch::autograd::grad(
                               {made.y, made.residual}, leaves,
                               {dy.to(made.y.scalar_type()), dsum.to(made.residual.scalar_type())});
  run.values.insert(run.values.end(), grads.begin(), grads.end());
  return run;
}

class AddNormCuda : public ::testing::TestWithParam<NormCase> {
 protected:
  void SetUp() override { SERPENTINE_NEEDS_CUDA(); }
};

TEST_P(AddNormCuda, MatchesTheDefinitionAndItself) {
  const NormCase& of = GetParam();
  torch::manual_seed(2);
  AddNormArgs args;
  args.x = torch::randn({2, of.rows, of.channels}).to(of.type);
  args.kind = of.kind;
  args.residual_in_fp32 = of.wide;
  if (of.residual) {
    args.residual = torch::randn({2, of.rows, of.channels}).to(of.wide ? torch::kFloat : of.type);
  }
  args.weight = torch::randn({of.channels});
  if (of.bias) args.bias = torch::randn({of.channels});
  const Tensor dy = torch::randn(args.x.sizes()).to(of.type),
               dsum = torch::randn(args.x.sizes()).to(of.wide ? torch::kFloat : of.type);
  AddNormArgs exact = args, there = args;
  for (auto member :
       {&AddNormArgs::x, &AddNormArgs::residual, &AddNormArgs::weight, &AddNormArgs::bias}) {
    if (!(args.*member).defined()) continue;
    exact.*member = (args.*member).to(torch::kDouble);
    there.*member = (args.*member).to(torch::kCUDA);
  }
  for (const bool first_only : {false, true}) {
    const auto expected =
        run_norm(exact, dy.to(torch::kDouble), dsum.to(torch::kDouble), first_only);
    const auto actual = run_norm(there, dy.cuda(), dsum.cuda(), first_only);
    const auto again = run_norm(there, dy.cuda(), dsum.cuda(), first_only);
    ASSERT_EQ(actual.values.size(), expected.values.size());
    EXPECT_EQ(actual.values[0].scalar_type(), of.type);
    EXPECT_EQ(actual.values[1].scalar_type(), of.wide ? torch::kFloat : of.type);
    for (size_t i = 0; i < actual.values.size(); ++i) {
      EXPECT_TRUE(is_close_max(actual.values[i], expected.values[i], fused_tolerance(of.type)))
          << i;
      EXPECT_TRUE(torch::equal(actual.values[i], again.values[i])) << i;
    }
  }
}

std::vector<NormCase> norm_cases() {
  std::vector<NormCase> all;
  for (const int64_t channels : {4, 100, 192, 256, 384, 768, 1024}) {
    for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
      all.push_back({37, channels, type, NormKind::kRms, true, false, true});
      all.push_back({37, channels, type, NormKind::kLayer, true, true, type == torch::kFloat});
    }
  }
  all.push_back({5000, 192, torch::kFloat, NormKind::kLayer, true, true, true});  // rows in turn
  all.push_back({37, 192, torch::kBFloat16, NormKind::kRms, false, false, true});
  all.push_back({37, 192, torch::kFloat, NormKind::kRms, false, true, true});
  all.push_back({37, 1028, torch::kFloat, NormKind::kRms, true, false, true});  // LibTorch's
  all.push_back({37, 30, torch::kFloat, NormKind::kLayer, true, true, true});   // again
  all.push_back({0, 192, torch::kFloat, NormKind::kRms, true, false, true});
  return all;
}

INSTANTIATE_TEST_SUITE_P(, AddNormCuda, ::testing::ValuesIn(norm_cases()),
                         [](const auto& one) { return name_of_norm(one.param); });

/// Tensors as models hand them over: the second half of wider rows, rows of a transposed batch.
TEST(SiluGateCuda, MatchesTheDefinitionThroughViews) {
  SERPENTINE_NEEDS_CUDA();
  torch::manual_seed(3);
  for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t channels : {4, 6, 192, 384}) {
      for (const bool turned : {false, true}) {
        Tensor wide = (3 * torch::randn({3, 50, 2 * channels})).to(type);
        Tensor y = torch::randn({3, 50, channels}).to(type), g = torch::randn(y.sizes()).to(type);
        if (turned) {
          y = torch::randn({50, 3, channels}).to(type).transpose(0, 1);
          g = torch::randn({3, channels, 50}).to(type).transpose(1, 2);
        }
        const auto run = [&](torch::Device device, at::ScalarType as) {
          const Tensor both = wide.to(device, as).requires_grad_(),
                       rows = y.to(device, as).detach().requires_grad_();
          const Tensor out = silu_gate(rows, both.chunk(2, -1)[1]);
          const auto grads = torch::autograd::grad({out}, {both, rows}, {g.to(device, as)});
          return std::vector<Tensor>{out.detach(), grads[0], grads[1]};
        };
        const auto expected = run(torch::kCPU, torch::kDouble), actual = run(torch::kCUDA, type),
                   again = run(torch::kCUDA, type);
        for (size_t i = 0; i < actual.size(); ++i) {
          EXPECT_TRUE(is_close_max(actual[i], expected[i], fused_tolerance(type)))
              << i << " of " << channels << " channels, " << c10::toString(type);
          EXPECT_TRUE(torch::equal(actual[i], again[i]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace serpentine::testing
