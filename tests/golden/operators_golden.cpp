// Checkers of the convolution and the fused norm.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/ops/causal_conv1d_published.h"
#include "core/ops/norm.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

bool silu(const Fixture& fixture) {
  const auto& activation = fixture.config.at("arguments").at("activation");
  return activation.is_string() && (activation == "silu" || activation == "swish");
}

/// One run of causal_conv1d_fn with its gradients. `suffix`: "" as recorded, "64" in double
/// precision.
void run_conv(Fixture& fixture, const std::string& suffix) {
  const bool twice = suffix == "64";
  const auto load = [&](const std::string& name) {
    auto tensor = fixture.input_or_undefined(name);
    if (tensor.defined() && twice) tensor = tensor.to(torch::kDouble);
    return tensor.defined() ? tensor.requires_grad_(true) : tensor;
  };
  std::map<std::string, Tensor> in;
  for (const char* name : {"x", "weight", "bias", "initial_states"}) in[name] = load(name);
  const bool want = fixture.config.at("arguments").at("return_final_states").get<bool>();
  const auto made = causal_conv1d_fn(in["x"], in["weight"], in["bias"], in["initial_states"], want,
                                     silu(fixture));
  EXPECT_EQ(made.out.scalar_type(), in["x"].scalar_type());
  EXPECT_EQ(made.final_states.defined(), fixture.has("final_states"));

  std::vector<Tensor> outputs{made.out},
      cotangents{fixture.input("cotangent").to(made.out.scalar_type())};
  if (want) {
    outputs.push_back(made.final_states);
    cotangents.push_back(fixture.input("cotangent.final_states").to(made.out.scalar_type()));
  }
  torch::autograd::backward(outputs, cotangents);
  constexpr double kDouble = 1e-13;  // worst measured: 2.8e-14
  const auto check = [&](const std::string& name, const Tensor& actual) {
    if (twice) {
      fixture.check(name, actual, kDouble);
    } else {
      fixture.check(name, actual);
    }
  };
  check("output" + suffix, made.out);
  if (want) check("final_states" + suffix, made.final_states);
  for (const auto& [name, tensor] : in) {
    if (tensor.defined()) check("grad" + suffix + "." + name, tensor.grad());
  }
}

// worst measured: forward 4.1e-7, gradients 1.5e-6
void check_conv(Fixture& fixture) {
  fixture.forward_tolerance = 1e-6;
  fixture.gradient_tolerance = 3e-6;
  run_conv(fixture, "");
  run_conv(fixture, "64");
}

void check_conv_update(Fixture& fixture) {
  fixture.forward_tolerance = 6e-7;  // worst measured: 2.7e-7
  const auto inputs = fixture.input("input"), weight = fixture.input("weight");
  const auto bias = fixture.input_or_undefined("bias"),
             seen = fixture.input_or_undefined("cache_seqlens");
  auto state = fixture.input("conv_state");
  const int64_t samples = inputs.dim() == 4 ? inputs.size(3) : 1;
  EXPECT_EQ(seen.defined(), fixture.config.at("arguments").at("use_cache_seqlens").get<bool>());
  std::vector<Tensor> outputs, states;
  for (int64_t call = 0; call < inputs.size(0); ++call) {
    const auto now = seen.defined() ? seen + call * samples : seen;
    outputs.push_back(causal_conv1d_update(inputs[call], state, weight, bias, silu(fixture), now));
    states.push_back(state.clone());
  }
  fixture.check("output", torch::stack(outputs));
  fixture.check_equal("conv_state_after", torch::stack(states));
}

void check_varlen_states(Fixture& fixture) {
  const int64_t length = fixture.config.at("arguments").at("state_len").get<int64_t>();
  fixture.check_equal("output", causal_conv1d_varlen_states(fixture.input("input"),
                                                            fixture.input("cu_seqlens"), length));
}

/// Names are <dtype>.<rms|ln>.<res32|resin>.<tensor>; two calls, the second on the first one's
/// residual.
void check_add_norm(Fixture& fixture) {
  fixture.forward_tolerance = 2e-7;  // bit for bit on the machine that measured
  const double eps = fixture.config.at("arguments").at("eps").get<double>();
  std::set<std::string> groups;
  for (const auto& name : fixture.names()) groups.insert(name.substr(0, name.rfind('.') + 1));
  EXPECT_FALSE(groups.empty());
  for (const auto& group : groups) {
    AddNormArgs args;
    args.weight = fixture.input(group + "weight");
    args.bias = fixture.input_or_undefined(group + "bias");
    args.kind = group.find(".ln.") == std::string::npos ? NormKind::kRms : NormKind::kLayer;
    args.eps = eps;
    args.residual_in_fp32 = group.find(".res32.") != std::string::npos;
    for (const char* call : {"0", "1"}) {
      args.x = fixture.input(group + "x" + call);
      const auto made = add_norm(args);
      EXPECT_EQ(made.y.scalar_type(), args.x.scalar_type()) << group;
      const auto residual = fixture.input_or_undefined(group + "residual" + call);
      if (residual.defined()) {
        EXPECT_EQ(made.residual.scalar_type(), residual.scalar_type()) << group;
      }
      fixture.check(group + "y" + call, made.y);
      fixture.check(group + "residual" + call, made.residual);
      args.residual = made.residual;
    }
  }
}

}  // namespace

void add_operator_checkers(Checkers& all) {
  all["causal_conv1d"] = check_conv;
  all["causal_conv1d_update"] = check_conv_update;
  all["causal_conv1d_varlen_states"] = check_varlen_states;
  all["fused add + RMSNorm/LayerNorm, prenorm"] = check_add_norm;
}

}  // namespace serpentine::golden
