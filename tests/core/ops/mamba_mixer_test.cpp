// Mamba's mixer as one function beside the same written in single operators, and what it keeps.
#include "core/ops/mamba_mixer.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/ops/branch_product.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"
#include "tests/core/ops/counting_allocator.h"
#include "tests/core/ops/scan_cases.h"
#include "tests/support/close.h"
#include "tests/support/cuda.h"

namespace serpentine {
namespace {

using Tensors = std::vector<torch::Tensor>;

Tensors list(const MambaMixerArgs& args) {
  return {args.h,       args.in_proj, args.in_bias, args.conv, args.conv_bias, args.x_proj,
          args.dt_proj, args.dt_bias, args.A_log,   args.D,    args.out_proj,  args.out_bias};
}

MambaMixerArgs from_list(const Tensors& all) {
  return {all[0], all[1], all[2], all[3], all[4],  all[5],
          all[6], all[7], all[8], all[9], all[10], all[11]};
}

struct Sizes {
  int64_t batch = 3, tokens = 33, model = 20, inner = 24, states = 5, rank = 3, width = 4, out = 14;
};

MambaMixerArgs random_mixer(const Sizes& of, int64_t branches, bool biases, at::ScalarType type) {
  torch::manual_seed(2);
  const auto draw = [&](at::IntArrayRef shape, double scale) {
    return (torch::randn(shape, torch::kDouble) * scale).to(type);
  };
  MambaMixerArgs args;
  args.h = draw({of.batch, of.tokens, of.model}, 1);
  args.in_proj = draw({2 * of.inner, of.model}, 0.2);
  args.conv = draw({branches, of.inner, of.width}, 0.5);
  args.x_proj = draw({branches, of.rank + 2 * of.states, of.inner}, 0.2);
  args.dt_proj = draw({branches, of.inner, of.rank}, 0.5);
  args.dt_bias = draw({branches, of.inner}, 0.5);
  args.A_log = draw({branches, of.inner, of.states}, 0.5);
  args.D = draw({branches, of.inner}, 1);
  args.out_proj = draw({of.out, of.inner}, 0.2);
  if (!biases) return args;
  args.in_bias = draw({2 * of.inner}, 0.2);
  args.conv_bias = draw({branches, of.inner}, 0.2);
  args.out_bias = draw({of.out}, 0.2);
  return args;
}

/// The definition in single operators, of which autograd keeps what it wants.
torch::Tensor single_operators(const MambaMixerArgs& args, const ScanOrder& order, Merge merge) {
  const auto wide = args.h.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto halves = torch::linear(args.h, args.in_proj, args.in_bias).chunk(2, -1);
  CausalConv1dArgs conv;
  conv.x = halves[0];
  conv.weight = args.conv;
  conv.bias = args.conv_bias;
  conv.silu = true;
  SelectiveScanArgs scan;
  scan.u = causal_conv1d(conv, order).y;
  Tensors delta, B, C;
  const int64_t rank = args.dt_proj.size(2), states = args.A_log.size(2);
  const auto runs = scan.u.split_with_sizes(branch_sizes(order), 1);
  for (size_t k = 0; k < runs.size(); ++k) {
    const auto row = static_cast<int64_t>(k);
    const auto parts =
        torch::linear(runs[k], args.x_proj[row]).split_with_sizes({rank, states, states}, -1);
    delta.push_back(torch::linear(parts[0], args.dt_proj[row]));
    B.push_back(parts[1]);
    C.push_back(parts[2]);
  }
  scan.delta = torch::cat(delta, 1);
  scan.A = -args.A_log.to(wide).exp();
  scan.B = torch::cat(B, 1);
  scan.C = torch::cat(C, 1);
  scan.D = args.D.to(wide);
  scan.delta_bias = args.dt_bias.to(wide);
  const auto y = selective_scan(scan, order, Rows::kPosition, merge).y;
  return torch::linear(y * torch::silu(halves[1]), args.out_proj, args.out_bias);
}

/// The output and the gradient of every operand, for a fixed cotangent.
template <class Function>
Tensors run(const Function& function, const MambaMixerArgs& args) {
  Tensors leaves, wanted;
  for (const auto& one : list(args)) {
    leaves.push_back(one.defined() ? one.detach().clone().requires_grad_() : one);
    if (one.defined()) wanted.push_back(leaves.back());
  }
  const torch::Tensor y = function(from_list(leaves));
  torch::manual_seed(7);
  const auto cotangent = torch::randn(y.sizes(), torch::kDouble).to(y.options());
  Tensors made = torch::autograd::grad({y}, wanted, {cotangent});
  made.push_back(y.detach());
  return made;
}

void expect_all_close(const Tensors& actual, const Tensors& expected, double bound) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].scalar_type(), expected[i].scalar_type()) << i;
    EXPECT_TRUE(testing::is_close_max(actual[i], expected[i], bound)) << "value " << i;
  }
}

struct MixerCase {
  const char* order;
  Merge merge;
  bool biases;
  at::ScalarType type;
  double bound;
};

class MixerOfOrder : public ::testing::TestWithParam<MixerCase> {};

TEST_P(MixerOfOrder, HasTheGradientsOfSingleOperators) {
  const auto [name, merge, biases, type, bound] = GetParam();
  const Sizes sizes;
  const ScanOrder order = testing::make_test_order(name, sizes.batch, sizes.tokens);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, biases, type);
  const Tensors expected = run(
      [&, along = merge](const MambaMixerArgs& of) { return single_operators(of, order, along); },
      args);
  MambaMixerOptions options;
  options.merge = merge;
  options.sizes = branch_sizes(order);
  for (const int64_t groups : {1, 2, -2, 5}) {
    options.groups = std::abs(groups);
    options.lean = groups < 0;
    for (const MixerKeep keep : {MixerKeep::kNothing, MixerKeep::kScan, MixerKeep::kAll}) {
      options.keep = keep;
      const Tensors found =
          run([&](const MambaMixerArgs& of) { return mamba_mixer(of, order, options); }, args);
      expect_all_close(found, expected, bound);
      const torch::NoGradGuard no_grad;
      EXPECT_TRUE(testing::is_close_max(mamba_mixer(args, order, options), found.back(), bound));
    }
  }
}

TEST_P(MixerOfOrder, CudaMatchesTheCpuAndRepeats) {
  SERPENTINE_NEEDS_CUDA();
  const auto [name, merge, biases, type, bound] = GetParam();
  const Sizes sizes;
  const ScanOrder order = testing::make_test_order(name, sizes.batch, sizes.tokens);
  const ScanOrder there = order.to(at::kCUDA);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, biases, type);
  Tensors moved = list(args);
  for (auto& one : moved) {
    if (one.defined()) one = one.to(at::kCUDA);
  }
  MambaMixerOptions options;
  options.merge = merge;
  options.sizes = branch_sizes(order);
  const Tensors expected =
      run([&](const MambaMixerArgs& of) { return mamba_mixer(of, order, options); }, args);
  for (const int64_t groups : {1, 3, -3}) {
    options.groups = std::abs(groups);
    options.lean = groups < 0;
    const auto mixer = [&](const MambaMixerArgs& of) { return mamba_mixer(of, there, options); };
    const Tensors actual = run(mixer, from_list(moved)), again = run(mixer, from_list(moved));
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_TRUE(
          testing::is_close_max(actual[i].cpu(), expected[i], type == torch::kFloat ? 2e-5 : bound))
          << "value " << i;
      EXPECT_TRUE(again[i].equal(actual[i])) << "value " << i;
    }
  }
}

// A bag, whose sequences a GPU cuts into pieces.
TEST(MambaMixer, CudaMatchesTheCpuOnALongSequence) {
  SERPENTINE_NEEDS_CUDA();
  Sizes sizes;
  sizes.batch = 1;
  sizes.tokens = 5000;
  sizes.inner = 128;
  sizes.states = 16;
  const ScanOrder order = testing::make_test_order("cross", sizes.batch, sizes.tokens);
  const ScanOrder there = order.to(at::kCUDA);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, true, torch::kFloat);
  Tensors moved = list(args);
  for (auto& one : moved) one = one.to(at::kCUDA);
  MambaMixerOptions options;
  const Tensors expected =
      run([&](const MambaMixerArgs& of) { return mamba_mixer(of, order, options); }, args);
  for (const int64_t groups : {1, 2}) {
    options.groups = groups;
    Tensors first;
    for (const MixerKeep keep : {MixerKeep::kScan, MixerKeep::kNothing}) {
      options.keep = keep;
      const Tensors actual =
          run([&](const MambaMixerArgs& of) { return mamba_mixer(of, there, options); },
              from_list(moved));
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_TRUE(testing::is_close_max(actual[i].cpu(), expected[i], 1e-4)) << "value " << i;
        if (first.empty()) continue;
        EXPECT_TRUE(actual[i].equal(first[i])) << "value " << i;
      }
      first = actual;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    , MixerOfOrder,
    ::testing::Values(MixerCase{"identity", Merge::kSum, true, torch::kFloat, 2e-6},
                      MixerCase{"identity", Merge::kSum, false, torch::kDouble, 1e-13},
                      MixerCase{"random", Merge::kSum, false, torch::kFloat, 2e-6},
                      MixerCase{"cross", Merge::kMean, true, torch::kFloat, 2e-6},
                      MixerCase{"cross", Merge::kSum, false, torch::kDouble, 1e-13},
                      MixerCase{"padded", Merge::kSum, true, torch::kFloat, 2e-6},
                      MixerCase{"groups", Merge::kSum, true, torch::kFloat, 2e-6},
                      MixerCase{"groups", Merge::kSum, false, torch::kBFloat16, 2e-2},
                      MixerCase{"ragged", Merge::kSum, false, torch::kFloat, 2e-6}),
    [](const auto& of) {
      return std::string(of.param.order) + (of.param.biases ? "Biases" : "") +
             c10::toString(of.param.type);
    });

TEST(MambaMixer, IsTheSameBitForBitWithTheScanKeptOrMadeAgain) {
  const Sizes sizes;
  const ScanOrder order = testing::make_test_order("cross", sizes.batch, sizes.tokens);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, true, torch::kFloat);
  std::vector<Tensors> found;
  for (const MixerKeep keep : {MixerKeep::kScan, MixerKeep::kNothing}) {
    MambaMixerOptions options;
    options.keep = keep;
    found.push_back(
        run([&](const MambaMixerArgs& of) { return mamba_mixer(of, order, options); }, args));
  }
  for (size_t i = 0; i < found[0].size(); ++i) EXPECT_TRUE(found[1][i].equal(found[0][i])) << i;
}

TEST(MambaMixer, UnderAutocastProjectsInItsTypeAndKeepsNoFloatRows) {
  const Sizes sizes;
  const ScanOrder order = testing::make_test_order("cross", sizes.batch, sizes.tokens);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, true, torch::kFloat);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, torch::kBFloat16);
  const Tensors found =
      run([&](const MambaMixerArgs& of) { return mamba_mixer(of, order, {}); }, args);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  const Tensors expected =
      run([&](const MambaMixerArgs& of) { return single_operators(of, order, Merge::kSum); }, args);
  EXPECT_EQ(found.back().scalar_type(), torch::kBFloat16);
  for (size_t i = 0; i + 1 < found.size(); ++i) {
    EXPECT_EQ(found[i].scalar_type(), torch::kFloat) << i;
    EXPECT_TRUE(testing::is_close_max(found[i], expected[i], 3e-2)) << i;
  }
}

// What waits for the backward pass: the rows of h (the caller's), of the steps and of the output.
TEST(MambaMixer, KeepsOnlyWhatItSays) {
  Sizes sizes;
  sizes.batch = 2;
  sizes.tokens = 500;
  const ScanOrder order = testing::make_test_order("cross", sizes.batch, sizes.tokens);
  MambaMixerArgs args = random_mixer(sizes, order.num_branches, false, torch::kFloat);
  args.h.requires_grad_();
  args.in_proj.requires_grad_();
  const auto kept = [&](MixerKeep keep, int64_t groups) {
    MambaMixerOptions options;
    options.keep = keep;
    options.groups = groups;
    const testing::CountingAllocator counter;
    const torch::Tensor y = mamba_mixer(args, order, options);
    return counter.now() / (sizes.batch * sizes.tokens * 4);  // floats a token
  };
  const int64_t branches = order.num_branches, steps = branches * (sizes.rank + 2 * sizes.states);
  const int64_t least = sizes.out + steps;
  EXPECT_EQ(kept(MixerKeep::kNothing, 1), least);
  EXPECT_EQ(kept(MixerKeep::kNothing, 3), least);
  EXPECT_GE(kept(MixerKeep::kScan, 1), least + sizes.inner);
  // x and z, u and delta of each branch, y
  EXPECT_GE(kept(MixerKeep::kAll, 1), least + (3 + 2 * branches) * sizes.inner);
}

// The backward pass of several groups makes less at once.
TEST(MambaMixer, GroupsBoundWhatIsMadeAtOnce) {
  Sizes sizes;
  sizes.batch = 1;
  sizes.tokens = 4000;
  sizes.inner = 256;
  sizes.states = 16;
  const ScanOrder order = stack({identity_order(sizes.tokens), identity_order(sizes.tokens)});
  MambaMixerArgs args = random_mixer(sizes, order.num_branches, false, torch::kFloat);
  args.h.requires_grad_();
  const auto peak = [&](int64_t groups, bool lean) {
    MambaMixerOptions options;
    options.groups = groups;
    options.lean = lean;
    const testing::CountingAllocator counter;
    mamba_mixer(args, order, options).sum().backward();
    return static_cast<double>(counter.peak()) /
           static_cast<double>(4 * sizes.tokens * sizes.inner);
  };
  // rows of D floats a token. Whole: x, and for two branches u, delta, states, their gradients
  const double whole = peak(1, false), groups = peak(8, false), lean = peak(8, true);
  EXPECT_LT(whole, 17);
  EXPECT_LT(groups, 6);  // x and the gradient of u, three, are held
  EXPECT_LT(lean, 3.5);
  EXPECT_EQ(mixer_groups(25216, 50432, 384, 2), 1) << "Vim-tiny, 128 images";
  EXPECT_EQ(mixer_groups(10000, 20000, 1024, 4), 2);
  EXPECT_EQ(mixer_groups(100000, 200000, 1024, 4), 4);
  EXPECT_EQ(mixer_groups(1000000, 1000000, 64, 4), 1);
}

TEST(MambaMixer, RefusesWhatDoesNotFit) {
  const Sizes sizes;
  const ScanOrder order = testing::make_test_order("cross", sizes.batch, sizes.tokens);
  const MambaMixerArgs args = random_mixer(sizes, order.num_branches, false, torch::kFloat);
  MambaMixerOptions options;
  options.merge = Merge::kConcat;
  EXPECT_THROW(mamba_mixer(args, order, options), c10::Error);
  options = {};
  options.sizes = {1, 2};
  EXPECT_THROW(mamba_mixer(args, order, options), c10::Error);
  MambaMixerArgs wrong = args;
  wrong.x_proj = wrong.x_proj.narrow(1, 0, 3);
  EXPECT_THROW(mamba_mixer(wrong, order, {}), c10::Error);
}

}  // namespace
}  // namespace serpentine
