// Checker of ShuffleMamba's layer: a shuffle as a relabelled order through one residual block.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/block.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

/// Vim's mixer on the fixture's weights: both directions are branches of the order it is given.
class BothWays : public Mixer {
 public:
  explicit BothWays(const Fixture& fixture) {
    for (const auto& [key, value] : fixture.weights) {
      if (key.rfind("mixer.", 0) == 0)
        weight_[key.substr(6)] = value.clone().to(fixture.device).requires_grad_();
    }
  }

  Tensor forward(const Tensor& x, const ScanOrder& order) override {
    const auto halves = torch::linear(x, weight_["in_proj.weight"]).chunk(2, -1);
    CausalConv1dArgs conv;
    conv.x = halves[0];
    conv.weight = both("conv1d", ".weight").squeeze(2);
    conv.bias = both("conv1d", ".bias");
    conv.silu = true;
    const auto u = causal_conv1d(conv, order).y;

    const auto A = -torch::stack({weight_["A_log"], weight_["A_b_log"]}).exp();
    const int64_t rank = weight_["dt_proj.weight"].size(1), states = A.size(2);
    std::vector<Tensor> delta, B, C;
    const auto runs = u.chunk(2, 1);
    for (size_t k = 0; k < 2; ++k) {
      const std::string suffix = k == 0 ? "" : "_b";
      const auto parts = torch::linear(runs[k], weight_["x_proj" + suffix + ".weight"])
                             .split_with_sizes({rank, states, states}, -1);
      delta.push_back(torch::linear(parts[0], weight_["dt_proj" + suffix + ".weight"]));
      B.push_back(parts[1]);
      C.push_back(parts[2]);
    }
    SelectiveScanArgs scan;
    scan.u = u;
    scan.delta = torch::cat(delta, 1);
    scan.A = A;
    scan.B = torch::cat(B, 1);
    scan.C = torch::cat(C, 1);
    scan.D = torch::stack({weight_["D"], weight_["D_b"]});
    scan.delta_bias = both("dt_proj", ".bias");
    const auto y = selective_scan(scan, order, Rows::kPosition, Merge::kMean).y;
    return torch::linear(y * torch::silu(halves[1]), weight_["out_proj.weight"]);
  }

  Tensor prefill(const Tensor&, MixerState&) override { throw std::logic_error("not causal"); }
  Tensor step(const Tensor&, MixerState&) override { throw std::logic_error("not causal"); }
  MixerState empty_state(int64_t) const override { return {}; }
  Tensor grad(const std::string& name) { return weight_.at(name).grad(); }

 private:
  Tensor both(const std::string& module, const std::string& name) {
    return torch::stack({weight_[module + name], weight_[module + "_b" + name]});
  }

  std::map<std::string, Tensor> weight_;
};

// worst measured: see Fixture's tolerances, 2e-5 and 1e-4
void check_shuffle(Fixture& fixture) {
  const auto& args = fixture.config.at("args");
  BlockOptions options;
  options.d_model = args.at("d_model").get<int64_t>();
  options.norm = args.value("rms_norm", true) ? NormKind::kRms : NormKind::kLayer;
  options.eps = args.value("norm_epsilon", 1e-5);
  options.residual_in_fp32 = args.value("residual_in_fp32", true);

  const auto permutation = fixture.input("permutation");
  const auto forward = identity_order(permutation.size(0), fixture.device);
  const auto plain = stack({forward, reversed(forward)});
  const auto shuffled = relabeled(plain, permutation);
  for (const bool with : {true, false}) {
    const std::string name = with ? "with_residual" : "without_residual";
    const auto mixer = std::make_shared<BothWays>(fixture);
    Block block(options, mixer);
    StateDict norm;
    for (const auto& item : fixture.weights) {
      if (item.first.rfind("norm.", 0) == 0) norm.push_back(item);
    }
    const auto report = load_state_dict(*block, norm);
    EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
    block->to(fixture.device);
    const auto input = fixture.input("input").requires_grad_();
    const auto residual = fixture.input("residual").requires_grad_();
    const Streams streams{input, with ? residual : Tensor()};
    const auto made = block->forward(streams, shuffled);
    fixture.check(name + ".output", made.hidden);
    fixture.check(name + ".output_residual", made.residual);
    const auto without = block->forward(streams, plain);
    fixture.check(name + ".output_not_shuffled", without.hidden);
    fixture.check(name + ".output_residual_not_shuffled", without.residual);

    ((made.hidden * fixture.input("cotangent")).sum() +
     (made.residual * fixture.input("cotangent_residual")).sum())
        .backward();
    fixture.check(name + ".grad.input", input.grad());
    if (with) fixture.check(name + ".grad.residual", residual.grad());
    for (const auto& tensor : fixture.names()) {
      const std::string prefix = name + ".grad.mixer.";
      if (tensor.rfind(prefix, 0) == 0)
        fixture.check(tensor, mixer->grad(tensor.substr(prefix.size())));
    }
    for (const auto& parameter : block->norm->named_parameters())
      fixture.check(name + ".grad.norm." + parameter.key(), parameter.value().grad());
  }
}

}  // namespace

void add_shuffle_checkers(Checkers& all) { all["shuffle_layer"] = check_shuffle; }

}  // namespace serpentine::golden
