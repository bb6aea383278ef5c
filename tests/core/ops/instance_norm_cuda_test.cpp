// The instance norm with its leaky ReLU on a GPU against the definition in float64.
#include "core/ops/instance_norm.h"

#include <gtest/gtest.h>

#include "support/close.h"
#include "support/cuda.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

struct InstanceCase {
  std::vector<int64_t> sizes;
  double slope = 1;
  bool affine = true;
};

class InstanceNormCuda : public ::testing::TestWithParam<InstanceCase> {
 protected:
  void SetUp() override { SERPENTINE_NEEDS_CUDA(); }
};

/// Output and gradients, computed on `device` in `type`.
std::vector<Tensor> run_instance(const InstanceCase& of, torch::Device device, at::ScalarType type,
                                 at::ScalarType rounded) {
  torch::manual_seed(11);
  const auto drawn = [&](const Tensor& tensor, at::ScalarType as) {
    return tensor.to(rounded).to(device, as).detach().requires_grad_();
  };
  const int64_t channels = of.sizes[1];
  const Tensor x = drawn(3 * torch::randn(of.sizes) + 1, type);
  const Tensor dy = torch::randn(of.sizes).to(rounded).to(device, type);
  const auto wide = type == torch::kDouble ? torch::kDouble : torch::kFloat;
  std::vector<Tensor> leaves = {x};
  Tensor weight, bias;
  if (of.affine) {
    weight = drawn(torch::rand({channels}) + 0.5, wide);
    bias = drawn(torch::randn({channels}), wide);
    leaves.insert(leaves.end(), {weight, bias});
  }
  const Tensor y = instance_norm(x, weight, bias, 1e-5, of.slope);
  std::vector<Tensor> all = {y.detach()};
  for (const auto& grad : torch::autograd::grad({y}, leaves, {dy})) all.push_back(grad);
  return all;
}

TEST_P(InstanceNormCuda, MatchesTheDefinition) {
  for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto expected = run_instance(GetParam(), torch::kCPU, torch::kDouble, type),
               actual = run_instance(GetParam(), torch::kCUDA, type, type),
               again = run_instance(GetParam(), torch::kCUDA, type, type);
    const double bound = type == torch::kFloat ? 3e-6 : type == torch::kHalf ? 0x1p-10 : 0x1p-7;
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_TRUE(is_close_max(actual[i], expected[i], bound)) << i << ", " << c10::toString(type);
      EXPECT_TRUE(torch::equal(actual[i], again[i])) << i;
    }
  }
}

// rows of few pixels, of a part of a chunk, of several chunks and of an odd number of pixels
INSTANTIATE_TEST_SUITE_P(, InstanceNormCuda,
                         ::testing::Values(InstanceCase{{2, 3, 5}, 0.01},
                                           InstanceCase{{2, 5, 7, 9}, 0.01},
                                           InstanceCase{{1, 4, 6, 10, 12}, 0.0},
                                           InstanceCase{{2, 3, 64, 128}, 1.0},
                                           InstanceCase{{1, 2, 157, 131}, 0.01},
                                           InstanceCase{{2, 2, 12, 40, 40}, 0.01, false},
                                           InstanceCase{{2, 2, 16, 64, 96}, 0.01}));

}  // namespace
}  // namespace serpentine::testing
