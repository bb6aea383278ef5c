// Checkers of the Mamba-2 and Mamba-3 blocks: sequences, gradients, packing, prefill, steps.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/mamba3.h"
#include "golden/mamba2_options.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

template <class Block, class Options>
Block load(const Fixture& fixture, const Options& options) {
  Block block(options);
  const auto report = load_state_dict(*block, fixture.weights);
  EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
  block->to(fixture.device);
  return block;
}

/// One run with its gradients, in float32 or float64.
template <class Block>
void check_run(Fixture& fixture, Block block, const ScanOrder& order, at::ScalarType type,
               Trace& trace) {
  const bool twice = type == torch::kDouble;
  block->to(type);
  block->trace = &trace;
  auto input = fixture.input("input").to(type).requires_grad_(true);
  const auto output = block->forward(input, order);
  block->trace = nullptr;
  torch::autograd::backward({output}, {fixture.input("cotangent").to(type)});
  const auto check = [&](const std::string& name, const Tensor& actual) {
    if (twice) {
      fixture.check(name, actual, 2e-14);
    } else {
      fixture.check(name, actual);
    }
  };
  check(twice ? "output64" : "output", output);
  const std::string prefix = twice ? "grad64." : "grad.";
  check(prefix + "input", input.grad());
  for (const auto& item : block->named_parameters())
    check(prefix + item.key(), item.value().grad());
}

ScanOrder packed_order(Fixture& fixture) {
  const auto ids = fixture.input("seq_idx");
  EXPECT_EQ(ids.size(0), 1);
  std::vector<int64_t> starts{0};
  for (int64_t t = 1; t < ids.size(1); ++t) {
    if (ids[0][t].item<int64_t>() != ids[0][t - 1].item<int64_t>()) starts.push_back(t);
  }
  starts.push_back(ids.size(1));
  return ragged_order(torch::tensor(starts, torch::kInt)).to(fixture.device);
}

struct SsdSteps {
  std::vector<Tensor> output, conv, ssm;
};

template <class Block>
SsdSteps run_steps(Block block, const Tensor& input, int64_t first, int64_t count,
                   MixerState& state) {
  SsdSteps steps;
  for (int64_t t = first; t < first + count; ++t) {
    steps.output.push_back(block->step(input.narrow(1, t, 1), state).squeeze(1));
    steps.conv.push_back(state.conv.clone());
    steps.ssm.push_back(state.ssm.clone());
  }
  return steps;
}

void check_decoding(Fixture& fixture, Mamba2 block) {
  const torch::NoGradGuard no_grad;
  const auto input = fixture.input("input");
  if (fixture.has("prefill.output")) {
    const int64_t prefill = fixture.config.at("prefill_len").get<int64_t>();
    MixerState state;
    fixture.check("prefill.output", block->prefill(input.narrow(1, 0, prefill), state));
    fixture.check("prefill.conv_state", state.conv);
    fixture.check("prefill.ssm_state", state.ssm);
    if (fixture.has("step.output")) {
      const auto steps =
          run_steps(block, input, prefill, fixture.input("step.output").size(0), state);
      fixture.check("step.output", torch::stack(steps.output));
      fixture.check("step.conv_state", torch::stack(steps.conv));
      fixture.check("step.ssm_state", torch::stack(steps.ssm));
    }
  }
  if (fixture.has("zero_step.output")) {
    auto state = block->empty_state(input.size(0));
    const auto steps = run_steps(block, input, 0, fixture.input("zero_step.output").size(0), state);
    fixture.check("zero_step.output", torch::stack(steps.output));
    fixture.check("zero_step.conv_state", state.conv);
    fixture.check("zero_step.ssm_state", state.ssm);
  }
}

// worst measured: forward 2.9e-7, gradients 1.3e-6, float64 4.7e-15
void check_block(Fixture& fixture, const Mamba2Options& options, bool simple) {
  fixture.forward_tolerance = 1e-6;
  fixture.gradient_tolerance = 5e-6;
  const bool packed = fixture.has("seq_idx");
  const auto order = packed ? packed_order(fixture)
                            : identity_order(fixture.input("input").size(1), fixture.device);
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    auto block = load<Mamba2>(fixture, options);
    Trace trace;
    check_run(fixture, block, order, type, trace);
    if (type == torch::kDouble || packed) continue;
    if (simple) {  // whose recording is of the step sizes
      trace["dt"] =
          torch::softplus(trace["dt"] + block->dt_bias).clamp(options.dt_least, options.dt_most);
    }
    for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
  }
  if (fixture.has("unpacked_output")) {
    fixture.check("unpacked_output",
                  load<Mamba2>(fixture, options)->forward(fixture.input("input")));
  }
  check_decoding(fixture, load<Mamba2>(fixture, options));
}

void check_mamba2(Fixture& fixture) {
  check_block(fixture, mamba2_options(fixture.config.at("arguments")), false);
}

void check_mamba2_simple(Fixture& fixture) {
  Mamba2Options options;  // Mamba2Simple's own defaults
  options.d_state = 64;
  options.headdim = 128;
  options = mamba2_options(fixture.config.at("arguments"), options);
  if (options.ngroups > 1) throw NotBuilt("Mamba2Simple's norm over several groups");
  check_block(fixture, options, true);
}

// worst measured: forward 4e-7, gradients 1.1e-6
void check_mamba3(Fixture& fixture) {
  fixture.forward_tolerance = 2e-6;
  fixture.gradient_tolerance = 5e-6;
  const auto& arguments = fixture.config.at("arguments");
  if (arguments.value("is_mimo", false)) throw NotBuilt("Mamba-3 with several inputs and outputs");
  Mamba3Options options;
  options.d_model = arguments.at("d_model");
  options.d_state = arguments.value("d_state", options.d_state);
  options.expand = arguments.value("expand", options.expand);
  options.headdim = arguments.value("headdim", options.headdim);
  options.ngroups = arguments.value("ngroups", options.ngroups);
  options.rope_fraction = arguments.value("rope_fraction", options.rope_fraction);
  options.is_outproj_norm = arguments.value("is_outproj_norm", options.is_outproj_norm);
  options.A_floor = arguments.value("A_floor", options.A_floor);
  options.chunk_size = arguments.value("chunk_size", options.chunk_size);
  const auto order = identity_order(fixture.input("input").size(1), fixture.device);
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    auto block = load<Mamba3>(fixture, options);
    Trace trace;
    check_run(fixture, block, order, type, trace);
    if (type == torch::kDouble) continue;
    for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
  }

  const torch::NoGradGuard no_grad;
  auto block = load<Mamba3>(fixture, options);
  MixerState state;
  fixture.check("output", block->prefill(fixture.input("input"), state));
  const int64_t heads = options.heads(), batch = state.ssm.size(0);
  const auto parts = state.last.split_with_sizes(
      {heads * options.d_state, options.inner(), heads * options.angles()}, 1);
  fixture.check("final.ssm_state", state.ssm);
  fixture.check("final.k_state", parts[0].view({batch, heads, -1}));
  fixture.check("final.v_state", parts[1].view({batch, heads, -1}));
  fixture.check("final.angle_state", parts[2].view({batch, heads, -1}));
}

}  // namespace

void add_mamba2_checkers(Checkers& all) {
  all["mamba_ssm.modules.mamba2.Mamba2"] = check_mamba2;
  all["mamba_ssm.modules.mamba2_simple.Mamba2Simple"] = check_mamba2_simple;
  all["mamba_ssm.modules.mamba3.Mamba3"] = check_mamba3;
}

}  // namespace serpentine::golden
