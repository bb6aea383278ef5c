// The published call with a constant B or C: its values, gradients and memory.
#include "core/ops/selective_scan_published.h"

#include <torch/torch.h>

#include "core/ops/counting_allocator.h"
#include "support/close.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

using Tensors = std::vector<torch::Tensor>;

/// u, delta, A, B, C, D, delta_bias. `constant`: "B", "C" or both.
Tensors random_operands(int64_t batch, int64_t channels, int64_t length, int64_t states,
                        const std::string& constant, at::ScalarType type) {
  const auto draw = [&](at::IntArrayRef shape) { return torch::randn(shape, type); };
  const auto rows = [&](const char* name) {
    return constant.find(name) != std::string::npos ? draw({channels, states})
                                                    : draw({batch, states, length});
  };
  const auto B = rows("B"), C = rows("C");
  return {draw({batch, channels, length}),
          draw({batch, channels, length}),
          -torch::rand({channels, states}, type) - 0.1,
          B,
          C,
          draw({channels}),
          draw({channels})};
}

PublishedScanResult run(const Tensors& operands) {
  const PublishedScanArgs args{operands[0], operands[1], operands[2], operands[3], operands[4],
                               operands[5], {},          operands[6], true};
  return selective_scan_fn(args, /*return_last_state=*/true);
}

/// B or C [D, N] as one group a channel: what the constant stands for.
Tensors spread(Tensors operands) {
  const int64_t batch = operands[0].size(0), length = operands[0].size(2);
  for (const size_t i : {3, 4}) {
    torch::Tensor& rows = operands[i];
    if (rows.dim() == 2) {
      rows = rows.view({1, rows.size(0), rows.size(1), 1})
                 .expand({batch, rows.size(0), rows.size(1), length});
    }
  }
  return operands;
}

class ConstantScan : public ::testing::TestWithParam<std::string> {};

TEST_P(ConstantScan, EqualsOneGroupAChannel) {
  torch::manual_seed(11);
  Tensors operands = random_operands(2, 6, 37, 5, GetParam(), torch::kFloat);
  for (auto& tensor : operands) tensor.requires_grad_();
  const auto loss = [](const PublishedScanResult& made) {
    return (made.out * made.out.detach().cos()).sum() + made.last_state.square().sum();
  };
  const auto actual = run(operands), expected = run(spread(operands));
  EXPECT_TRUE(is_close_max(actual.out, expected.out, 1e-5));
  EXPECT_TRUE(is_close_max(actual.last_state, expected.last_state, 1e-5));
  const auto grads = torch::autograd::grad({loss(actual)}, operands);
  const auto expected_grads = torch::autograd::grad({loss(expected)}, operands);
  for (size_t i = 0; i < grads.size(); ++i) {
    EXPECT_TRUE(is_close_max(grads[i], expected_grads[i], 1e-4)) << "operand " << i;
  }
}

TEST_P(ConstantScan, GradientsEqualFiniteDifferences) {
  torch::manual_seed(12);
  expect_gradients(
      [](const Tensors& operands) {
        const auto made = run(operands);
        return Tensors{made.out, made.last_state};
      },
      random_operands(1, 2, 5, 3, GetParam(), torch::kDouble));
}

/// 64 states: a B L D N tensor would be 64 times u.
TEST_P(ConstantScan, MakesNoTensorOfAllStates) {
  torch::manual_seed(13);
  Tensors operands = random_operands(1, 32, 256, 64, GetParam(), torch::kFloat);
  for (auto& tensor : operands) tensor.requires_grad_();
  const auto peak = [&](const Tensors& of) {
    const CountingAllocator counter;
    const auto grads = torch::autograd::grad({run(of).out.sum()}, operands);
    return static_cast<double>(counter.peak()) / static_cast<double>(operands[0].nbytes());
  };
  EXPECT_LE(peak(operands), 24);
  EXPECT_GT(peak(spread(operands)), 64);  // the count does see one
}

INSTANTIATE_TEST_SUITE_P(All, ConstantScan, ::testing::Values("B", "C", "BC"),
                         [](const auto& one) { return one.param; });

}  // namespace
}  // namespace serpentine::testing
