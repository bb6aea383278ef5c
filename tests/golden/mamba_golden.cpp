// Checkers of the Mamba block: whole sequence, gradients, prefill, steps.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/mamba.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

MambaOptions options_of(const nlohmann::json& arguments) {
  MambaOptions options;
  options.d_model = arguments.at("d_model").get<int64_t>();
  options.d_state = arguments.value("d_state", options.d_state);
  options.d_conv = arguments.value("d_conv", options.d_conv);
  options.expand = arguments.value("expand", options.expand);
  if (arguments.contains("dt_rank") && arguments.at("dt_rank").is_number()) {
    options.dt_rank = arguments.at("dt_rank").get<int64_t>();
  }
  options.bias = arguments.value("bias", options.bias);
  options.conv_bias = arguments.value("conv_bias", options.conv_bias);
  return options;
}

Mamba load(const Fixture& fixture) {
  Mamba mamba(options_of(fixture.config.at("arguments")));
  const auto report = load_state_dict(*mamba, fixture.weights);
  EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
  mamba->to(fixture.device);
  return mamba;
}

void check_sequence(Fixture& fixture) {
  auto mamba = load(fixture);
  Trace trace;
  mamba->trace = &trace;
  auto input = fixture.input("input").requires_grad_(true);
  const auto output = mamba->forward(input);
  torch::autograd::backward({output}, {fixture.input("cotangent")});
  fixture.check("output", output);
  for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
  fixture.check("grad.input", input.grad());
  for (const auto& item : mamba->named_parameters())
    fixture.check("grad." + item.key(), item.value().grad());
}

/// The same in double precision, against the reference in double precision.
void check_double(Fixture& fixture) {
  constexpr double kTolerance = 1e-14;  // worst measured: 2.0e-15
  auto mamba = load(fixture);
  mamba->to(torch::kDouble);
  auto input = fixture.input("input").to(torch::kDouble).requires_grad_(true);
  const auto output = mamba->forward(input);
  torch::autograd::backward({output}, {fixture.input("cotangent").to(torch::kDouble)});
  fixture.check("output64", output, kTolerance);
  fixture.check("grad64.input", input.grad(), kTolerance);
  for (const auto& item : mamba->named_parameters()) {
    fixture.check("grad64." + item.key(), item.value().grad(), kTolerance);
  }
}

/// `count` tokens from `first` on; stacks what each step leaves.
struct Steps {
  std::vector<Tensor> output, conv, ssm;
};

Steps run_steps(MambaImpl& mamba, const Tensor& input, int64_t first, int64_t count,
                MixerState& state) {
  Steps steps;
  for (int64_t t = first; t < first + count; ++t) {
    steps.output.push_back(mamba.step(input.narrow(1, t, 1), state).squeeze(1));
    steps.conv.push_back(state.conv.clone());
    steps.ssm.push_back(state.ssm.clone());
  }
  return steps;
}

void check_decoding(Fixture& fixture) {
  const torch::NoGradGuard no_grad;
  auto mamba = load(fixture);
  const auto input = fixture.input("input");
  if (fixture.has("prefill.output")) {
    const int64_t prefill = fixture.config.at("prefill_len").get<int64_t>();
    MixerState state;
    fixture.check("prefill.output", mamba->prefill(input.narrow(1, 0, prefill), state));
    fixture.check("prefill.conv_state", state.conv);
    fixture.check("prefill.ssm_state", state.ssm);
    const int64_t count = fixture.has("step.output") ? fixture.input("step.output").size(0) : 0;
    const auto steps = run_steps(*mamba, input, prefill, count, state);
    if (count > 0) {
      fixture.check("step.output", torch::stack(steps.output));
      fixture.check("step.conv_state", torch::stack(steps.conv));
      fixture.check("step.ssm_state", torch::stack(steps.ssm));
    }
  }
  if (fixture.has("zero_step.output")) {
    auto state = mamba->empty_state(input.size(0));
    const auto steps =
        run_steps(*mamba, input, 0, fixture.input("zero_step.output").size(0), state);
    fixture.check("zero_step.output", torch::stack(steps.output));
    fixture.check("zero_step.conv_state", state.conv);
    fixture.check("zero_step.ssm_state", state.ssm);
  }
}

// worst measured: forward 5.7e-7, gradients 3.6e-6
void check_mamba(Fixture& fixture) {
  fixture.forward_tolerance = 1.2e-6;
  fixture.gradient_tolerance = 8e-6;
  check_sequence(fixture);
  check_double(fixture);
  check_decoding(fixture);
}

}  // namespace

void add_mamba_checkers(Checkers& all) {
  all["mamba_ssm.modules.mamba_simple.Mamba"] = check_mamba;
}

}  // namespace serpentine::golden
