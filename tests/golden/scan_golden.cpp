// Checkers of the published selective scan calls.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/ops/selective_scan_published.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

/// One run of selective_scan_fn with its gradients. `suffix`: "" as recorded, "64" in double
/// precision.
void run_scan(Fixture& fixture, const std::string& suffix) {
  const bool twice = suffix == "64";
  std::map<std::string, Tensor> in;
  for (const auto& entry : fixture.config.at("present")) {
    const auto name = entry.get<std::string>();
    auto tensor = fixture.input(name);
    if (twice) tensor = tensor.to(torch::kDouble);
    in[name] = tensor.requires_grad_(true);
  }
  const auto& arguments = fixture.config.at("arguments");
  const bool want = arguments.at("return_last_state").get<bool>();
  const PublishedScanArgs args{
      in["u"], in["delta"],      in["A"],
      in["B"], in["C"],          in["D"],
      in["z"], in["delta_bias"], arguments.at("delta_softplus").get<bool>()};
  const auto made = selective_scan_fn(args, want);
  EXPECT_EQ(made.out.scalar_type(), in["u"].scalar_type());
  EXPECT_EQ(made.last_state.defined(), want);
  made.out.backward(fixture.input("cotangent").to(made.out.scalar_type()));

  const bool rounded = in["u"].element_size() == 2;

  // float64: the reference sums in another order, nothing else; worst measured 1.4e-14
  const auto check = [&](const std::string& name, const Tensor& actual) {
    if (twice) {
      fixture.check(name, actual, 1e-13);
    } else {
      fixture.check(name, actual);
    }
  };
  check("output" + suffix, made.out);
  if (want) check("last_state" + suffix, made.last_state);
  for (const auto& [name, tensor] : in) {
    if (!tensor.defined()) continue;
    if (!rounded) {
      check("grad" + suffix + "." + name, tensor.grad());
      continue;
    }

    // the reference rounds silu(z) to 16 bits and ours does not: ours is near the float64 gradient
    const auto type = tensor.scalar_type();
    fixture.check("grad." + name, tensor.grad(), fixture.tolerance_of("grad." + name) + 2e-6);
    fixture.check("grad64." + name, tensor.grad(),
                  type == torch::kFloat  ? 2e-6
                  : type == torch::kHalf ? 0x1.1p-11
                                         : 0x1.1p-8);
  }
}

// worst measured: forward 9.9e-7, gradients 2.4e-6 where the sum does not cancel
void check_scan(Fixture& fixture) {
  fixture.forward_tolerance = 2e-6;
  fixture.gradient_tolerance = 5e-6;
  run_scan(fixture, "");
  run_scan(fixture, "64");
}

void run_update(Fixture& fixture, const std::string& suffix) {
  const auto load = [&](const char* name) {
    const auto tensor = fixture.input_or_undefined(name);
    return tensor.defined() && suffix == "64" ? tensor.to(torch::kDouble) : tensor;
  };
  auto state = load("state");
  const auto x = load("x"), dt = load("dt"), B = load("B"), C = load("C"), z = load("z");
  std::vector<Tensor> outputs, states;
  for (int64_t step = 0; step < x.size(0); ++step) {
    const StateUpdateArgs args{x[step],
                               dt[step],
                               load("A"),
                               B[step],
                               C[step],
                               load("D"),
                               load("dt_bias"),
                               z.defined() ? z[step] : z,
                               fixture.config.at("arguments").at("dt_softplus").get<bool>()};
    outputs.push_back(selective_state_update(state, args));
    states.push_back(state.clone());
  }
  const auto check = [&](const std::string& name, const std::vector<Tensor>& calls) {
    const auto made = torch::stack(calls);
    if (suffix == "64") {
      fixture.check(name, made, 1e-14);
    } else {
      fixture.check(name, made);
    }
  };
  check("output" + suffix, outputs);
  check("state_after" + suffix, states);
}

// worst measured: 3.0e-7, in double precision 9.5e-16
void check_update(Fixture& fixture) {
  fixture.forward_tolerance = 6e-7;
  run_update(fixture, "");
  run_update(fixture, "64");
}

}  // namespace

void add_scan_checkers(Checkers& all) {
  all["selective_scan"] = check_scan;
  all["selective_state_update"] = check_update;
}

}  // namespace serpentine::golden
