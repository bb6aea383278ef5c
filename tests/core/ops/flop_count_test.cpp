#include "core/ops/flop_count.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/nn/mamba.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

TEST(FlopCount, ProductsAndConvolutionsByTheirFormulas) {
  const torch::NoGradGuard no_grad;
  FlopCount count;
  torch::nn::Linear(12, 20)->forward(torch::zeros({3, 7, 12}));
  EXPECT_EQ(count.total(), 2.0 * 3 * 7 * 12 * 20);
  torch::conv2d(torch::zeros({2, 4, 9, 11}), torch::zeros({6, 2, 3, 3}), {}, {2, 2}, {1, 1}, {1, 1},
                2);
  EXPECT_EQ(count.by_operator().at("convolution"), 2.0 * 2 * 6 * 5 * 6 * 2 * 9);
  torch::matmul(torch::zeros({5, 2, 3}), torch::zeros({5, 3, 4}));
  EXPECT_EQ(count.by_operator().at("bmm"), 2.0 * 5 * 2 * 3 * 4);
}

TEST(FlopCount, AMambaBlockIsTheSumOfItsParts) {
  const torch::NoGradGuard no_grad;
  MambaOptions options;
  options.d_model = 16;
  Mamba mamba(options);
  const double inner = static_cast<double>(options.inner()),
               states = static_cast<double>(options.d_state);
  const double rank = 1, rows = 2 * 10;                                // a sixteenth of 16 channels
  double expected = 2 * rows * 16 * 2 * inner;                         // in
  expected += 2 * rows * inner * static_cast<double>(options.d_conv);  // short convolution
  expected += 2 * rows * inner * (rank + 2 * states);                  // to delta's rank, B, C
  expected += 2 * rows * rank * inner;                                 // delta
  expected += rows * inner * (9 * states + 2);                         // scan
  expected += 2 * rows * inner * 16;                                   // out
  FlopCount count;
  mamba->forward(torch::zeros({2, 10, 16}));
  EXPECT_EQ(count.total(), expected);
}

TEST(FlopCount, OnlyWhileItLives) {
  const torch::NoGradGuard no_grad;
  FlopCount outer;
  {
    FlopCount inner;
    torch::mm(torch::zeros({2, 3}), torch::zeros({3, 4}));
    EXPECT_EQ(inner.total(), 48);
  }
  EXPECT_EQ(outer.total(), 0);
}

}  // namespace
}  // namespace serpentine
