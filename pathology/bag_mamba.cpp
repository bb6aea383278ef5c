#include "pathology/bag_mamba.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/branch_product.h"
#include "core/ops/gate.h"

namespace serpentine {

BagMambaImpl::BagMambaImpl(const MambaOptions& chosen, int64_t branches) : options(chosen) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), states = options.d_state;
  SERPENTINE_CHECK(branches >= 1 && branches <= 25, "BagMamba", "1 to 25 branches, got ", branches);
  in_proj_ = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(false)));
  out_proj_ = register_module("out_proj",
                              torch::nn::Linear(LinearOptions(inner, options.d_model).bias(false)));
  for (int64_t k = 0; k < branches; ++k) {
    const std::string letter = k == 0 ? "" : std::string("_") + static_cast<char>('a' + k);
    branches_.push_back(
        add_mamba_branch(*this, options, letter, k == 0 ? "A_log" : "A" + letter + "_log"));
    const torch::NoGradGuard no_grad;
    branches_.back().A_log.copy_(
        torch::arange(1, states + 1, torch::kFloat).log().expand({inner, states}));
    branches_.back().D.fill_(1);
  }
}

int64_t BagMambaImpl::bytes_of_tile() const {
  // floats of a branch's channel: convolution, delta, scan and their gradients, and a state each
  // few positions; of a channel: what enters, the gate and their products
  const auto branches = static_cast<int64_t>(branches_.size());
  return 4 * options.inner() * (8 * branches + 8);
}

int64_t BagMambaImpl::steps_of_tile() const {
  return static_cast<int64_t>(branches_.size()) * (options.rank() + 2 * options.d_state);
}

torch::Tensor BagMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order, int64_t parts) {
  check_shape("BagMamba", x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(branches_.size()), "BagMamba",
                   "the order has ", order.num_branches, " branches, the layer ", branches_.size());
  std::vector<const MambaBranch*> branches;
  for (const MambaBranch& branch : branches_) branches.push_back(&branch);
  MambaMixerOptions passes;
  passes.sizes = branch_sizes(order);
  if (parts > 1) {  // a budget asks for the least memory
    passes.groups = parts;
    passes.lean = true;
  }
  if (takes_mamba_mixer(x))
    return branch_mixer(branches, options, in_proj_, out_proj_, x, order, passes);
  const auto halves = in_proj_(x).chunk(2, -1);
  const auto args = branch_scan_args(branches, options, halves[0], order, passes.sizes);
  return out_proj_(silu_gate(selective_scan(args, order, Rows::kPosition).y, halves[1]));
}

}  // namespace serpentine
