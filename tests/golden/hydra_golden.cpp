// Checkers of Hydra and of the matrix mixer with shared inputs.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/hydra.h"
#include "golden/mamba2_options.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

HydraOptions hydra_options(const nlohmann::json& arguments) {
  HydraOptions options;
  options.d_model = arguments.at("d_model");
  options.d_state = arguments.value("d_state", options.d_state);
  options.d_conv = arguments.value("d_conv", options.d_conv);
  options.expand = arguments.value("expand", options.expand);
  options.headdim = arguments.value("headdim", options.headdim);
  options.ngroups = arguments.value("ngroups", options.ngroups);
  options.bias = arguments.value("bias", options.bias);
  options.conv_bias = arguments.value("conv_bias", options.conv_bias);
  options.learnable_init_states =
      arguments.value("learnable_init_states", options.learnable_init_states);
  options.chunk_size = arguments.value("chunk_size", options.chunk_size);
  if (arguments.contains("dt_limit")) {
    options.dt_least = limit_of(arguments.at("dt_limit")[0]);
    options.dt_most = limit_of(arguments.at("dt_limit")[1]);
  }
  return options;
}

// worst measured: forward 2.8e-7, gradients 7.3e-7, float64 4.6e-16
void check_block(Fixture& fixture, const HydraOptions& options) {
  fixture.forward_tolerance = 1e-6;
  fixture.gradient_tolerance = 3e-6;
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    const bool twice = type == torch::kDouble;
    Hydra block(options);
    const auto report = load_state_dict(*block, fixture.weights);
    EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
    block->to(fixture.device, type);
    Trace trace;
    block->trace = &trace;
    auto input = fixture.input("input").to(type).requires_grad_(true);
    const auto output = block->forward(input);
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
    if (twice) continue;
    for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
    if (fixture.has("mixer_matrix")) {
      const auto y = torch::einsum("bhij,bjhe->bihe",
                                   {fixture.input("mixer_matrix"), trace["scan.x"].chunk(2, 0)[0]});
      EXPECT_TRUE(torch::allclose(y.flatten(2), trace["mixer_output"], 1e-5, 1e-5));
      const auto both = fixture.input("mixer_matrix_forward") +
                        fixture.input("mixer_matrix_backward") +
                        torch::diag_embed(trace["mixer_diagonal"].transpose(1, 2));
      fixture.check("mixer_matrix", both);
    }
  }
}

void check_hydra(Fixture& fixture) {
  check_block(fixture, hydra_options(fixture.config.at("arguments")));
}

void check_matrix_mixer(Fixture& fixture) {
  const auto& arguments = fixture.config.at("arguments");
  const auto type = arguments.at("matrix_mixer_type").get<std::string>();
  if (type != "quasiseparable") throw NotBuilt("matrix mixer " + type);
  if (!arguments.value("is_data_dependent", true))
    throw NotBuilt("a mixer without data dependence");
  auto options = hydra_options(arguments);
  options.shared = true;
  options.d_state = options.heads() * arguments.at("qk_dim").get<int64_t>();
  options.ngroups = 1;
  check_block(fixture, options);
}

}  // namespace

void add_hydra_checkers(Checkers& all) {
  all["hydra.modules.hydra.Hydra"] = check_hydra;
  all["hydra.modules.matrix_mixer.MatrixMixer"] = check_matrix_mixer;
}

}  // namespace serpentine::golden
