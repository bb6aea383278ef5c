#include "core/nn/block.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"

namespace serpentine {

BlockImpl::BlockImpl(const BlockOptions& chosen, std::shared_ptr<Mixer> inner) : options(chosen) {
  SERPENTINE_CHECK(inner != nullptr, "Block", "the mixer is missing");
  norm = register_module("norm", Norm(options.d_model, options.norm, options.eps));
  mixer = register_module("mixer", std::move(inner));
  if (options.d_intermediate > 0) {
    norm2 = register_module("norm2", Norm(options.d_model, options.norm, options.eps));
    mlp = register_module("mlp", GatedMlp(options.d_model, options.d_intermediate));
  }
}

Streams BlockImpl::run(const Streams& in,
                       const std::function<torch::Tensor(const torch::Tensor&)>& mix) {
  // nothing came before the first block, so nothing is dropped there
  const auto before =
      in.residual.defined() ? drop_path(in.hidden, options.drop_path, is_training()) : in.hidden;
  const auto first = norm->add(before, in.residual, options.residual_in_fp32);
  Streams out{mix(first.y), first.residual};
  if (mlp.is_empty()) return out;
  const auto dropped = drop_path(out.hidden, options.drop_path, is_training());
  const auto second = norm2->add(dropped, out.residual, options.residual_in_fp32);
  return {mlp(second.y), second.residual};
}

Streams BlockImpl::forward(const Streams& in, const ScanOrder& order) {
  return run(in, [&](const torch::Tensor& x) { return mixer->forward(x, order); });
}

Streams BlockImpl::prefill(const Streams& in, MixerState& state) {
  return run(in, [&](const torch::Tensor& x) { return mixer->prefill(x, state); });
}

Streams BlockImpl::step(const Streams& in, MixerState& state) {
  return run(in, [&](const torch::Tensor& x) { return mixer->step(x, state); });
}

}  // namespace serpentine
