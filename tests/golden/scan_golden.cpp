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

  // float64: the reference rounds A's exponent and sums in another order, nothing else
  const auto check = [&](const std::string& name, const Tensor& actual) {
    if (twice) {
      fixture.check(name, actual, 1e-11);
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

    // the reference rounds silu(z) to 16 bits and ours does not: fp32 gradients are near the
    // float64 ones
    fixture.check("grad." + name, tensor.grad(),
                  in["u"].scalar_type() == torch::kHalf ? 2e-3 : 1e-2);
    if (tensor.scalar_type() == torch::kFloat) fixture.check("grad64." + name, tensor.grad(), 1e-5);
  }
}

void check_scan(Fixture& fixture) {
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
  const double tolerance = suffix == "64" ? 1e-12 : 2e-6;
  fixture.check("output" + suffix, torch::stack(outputs), tolerance);
  fixture.check("state_after" + suffix, torch::stack(states), tolerance);
}

void check_update(Fixture& fixture) {
  run_update(fixture, "");
  run_update(fixture, "64");
}

}  // namespace

void add_scan_checkers(Checkers& all) {
  all["selective_scan"] = check_scan;
  all["selective_state_update"] = check_update;
}

}  // namespace serpentine::golden
