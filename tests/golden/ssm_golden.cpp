// Checkers of state space duality and the gated norm.
#include "golden/golden.h"

#include <limits>

#include <gtest/gtest.h>

#include "core/ops/norm.h"
#include "core/ops/ssd_published.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

double limit(const nlohmann::json& value) {
  return value.is_string() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

/// Compares a run in float32 or, under the recordings' names for it, float64.
struct Comparison {
  Fixture& fixture;
  bool twice;
  double double_tolerance;

  void operator()(const std::string& name, const Tensor& actual) const {
    if (!twice) {
      fixture.check(name, actual);
    } else if (name.rfind("grad.", 0) == 0) {
      fixture.check("grad64" + name.substr(4), actual, double_tolerance);
    } else {
      fixture.check(name + "64", actual, double_tolerance);
    }
  }
};

/// The named inputs that the fixture holds, as leaves.
std::map<std::string, Tensor> leaves(Fixture& fixture, const std::vector<std::string>& names,
                                     bool twice) {
  std::map<std::string, Tensor> all;
  for (const auto& name : names) {
    auto tensor = fixture.input_or_undefined(name);
    if (tensor.defined() && twice) tensor = tensor.to(torch::kDouble);
    all[name] = tensor.defined() ? tensor.requires_grad_(true) : tensor;
  }
  return all;
}

void run_chunk_scan(Fixture& fixture, bool twice) {
  const auto& arguments = fixture.config.at("arguments");
  auto in =
      leaves(fixture, {"x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_states"}, twice);
  ChunkScanArgs args;
  args.x = in["x"];
  args.dt = in["dt"];
  args.A = in["A"];
  args.B = in["B"];
  args.C = in["C"];
  args.D = in["D"];
  args.z = in["z"];
  args.dt_bias = in["dt_bias"];
  args.initial_states = in["initial_states"];
  args.seq_idx = fixture.input_or_undefined("seq_idx");
  args.cu_seqlens = fixture.input_or_undefined("cu_seqlens");
  args.dt_softplus = arguments.at("dt_softplus").get<bool>();
  args.dt_min = limit(arguments.at("dt_limit")[0]);
  args.dt_max = limit(arguments.at("dt_limit")[1]);
  args.chunk_size = arguments.at("chunk_size").get<int64_t>();
  const auto made = mamba_chunk_scan_combined(args);

  const auto cotangent = [&](const std::string& name, const Tensor& of) {
    return fixture.input(name).to(of.scalar_type());
  };
  std::vector<Tensor> outputs{made.out}, cotangents{cotangent("cotangent", made.out)};
  for (const auto& [name, tensor] :
       {std::pair<std::string, Tensor>{"final_states", made.final_states},
        {"varlen_states", made.varlen_states}}) {
    if (!fixture.has("cotangent." + name)) continue;
    outputs.push_back(tensor);
    cotangents.push_back(cotangent("cotangent." + name, tensor));
  }
  torch::autograd::backward(outputs, cotangents);
  const Comparison check{fixture, twice, 2e-14};
  check("output", made.out);
  check("final_states", made.final_states);
  check("varlen_states", made.varlen_states);
  for (const auto& [name, tensor] : in) {
    if (tensor.defined()) check("grad." + name, tensor.grad());
  }
}

// worst measured: forward 2.4e-7, gradients 1.7e-6, float64 3.6e-15
void check_chunk_scan(Fixture& fixture) {
  fixture.forward_tolerance = 1e-6;
  fixture.gradient_tolerance = 5e-6;
  run_chunk_scan(fixture, false);
  run_chunk_scan(fixture, true);
}

void run_minimal(Fixture& fixture, bool twice) {
  auto in = leaves(fixture, {"X", "A", "B", "C", "initial_states"}, twice);
  const int64_t block = fixture.config.at("arguments").at("block_len").get<int64_t>();
  const Comparison check{fixture, twice, 2e-14};
  for (const std::string prefix : {"", "with_init."}) {
    const auto [y, last] = ssd_minimal_discrete(in["X"], in["A"], in["B"], in["C"], block,
                                                prefix.empty() ? Tensor() : in["initial_states"]);
    check(prefix + "output", y);
    check(prefix + "final_state", last);
  }

  // the scan of unit vectors is the matrix of decays
  const int64_t size = fixture.input("segsum").size(0);
  const auto ones = torch::ones({1, size, 1, 1}, in["A"].options());
  const auto A = in["A"].slice(0, 0, 1).slice(1, 0, size).slice(2, 0, 1);
  const auto units = torch::eye(size, in["A"].options()).view({1, size, 1, size});
  check("segsum", ssd_minimal_discrete(units, A, ones, ones, block).first.view({size, size}));
}

void check_minimal(Fixture& fixture) {
  fixture.forward_tolerance = 1e-6;
  run_minimal(fixture, false);
  run_minimal(fixture, true);
}

/// Names are <case>.<tensor>; the case says where the gate and the groups are.
void run_gated_norm(Fixture& fixture, bool twice) {
  const auto& arguments = fixture.config.at("arguments");
  std::set<std::string> cases;
  for (const auto& name : fixture.names()) {
    if (name.find('.') != std::string::npos) cases.insert(name.substr(0, name.find('.')));
  }
  EXPECT_FALSE(cases.empty());
  for (const auto& name : cases) {
    auto in = leaves(fixture, {"x", "z", "weight", "bias"}, twice);
    GatedNormArgs args;
    args.x = in["x"];
    args.weight = in["weight"];
    args.eps = arguments.at("eps").get<double>();
    if (name.find("gate") != std::string::npos) args.gate = in["z"];
    if (name.find("bias") != std::string::npos) args.bias = in["bias"];
    args.before_gate = name.find("gate_after") != std::string::npos;
    if (name.rfind("group_", 0) == 0) args.group = arguments.at("group_size").get<int64_t>();
    const auto y = gated_rms_norm(args);
    torch::autograd::backward({y}, {fixture.input("cotangent").to(y.scalar_type())});
    if (twice) {
      fixture.check(name + ".output64", y, 1e-14);
      continue;
    }
    fixture.check(name + ".output", y);
    for (const auto& [key, tensor] : in) {
      if (tensor.grad().defined()) fixture.check(name + ".grad." + key, tensor.grad());
    }
  }
}

// worst measured: forward 1.3e-7, gradients 1.1e-7
void check_gated_norm(Fixture& fixture) {
  fixture.forward_tolerance = 4e-7;
  fixture.gradient_tolerance = 4e-7;
  run_gated_norm(fixture, false);
  run_gated_norm(fixture, true);
}

}  // namespace

void add_ssm_checkers(Checkers& all) {
  all["mamba_chunk_scan_combined"] = check_chunk_scan;
  all["ssd_minimal_discrete"] = check_minimal;
  all["gated RMSNorm"] = check_gated_norm;
}

}  // namespace serpentine::golden
