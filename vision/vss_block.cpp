#include "vision/vss_block.h"

#include <torch/torch.h>

#include "core/nn/drop_path.h"

namespace serpentine {

VssBlockImpl::VssBlockImpl(const VssBlockOptions& options)
    : options_(options), norm_(options.norm_layer, options.ssm.d_model, options.norm_eps) {
  register_module(options.first_names ? "ln_1" : "norm", norm_.module());
  op_ = register_module(options.first_names ? "self_attention" : "op", Ss2d(options.ssm));
  if (options.mlp_ratio <= 0) return;
  const int64_t channels = options.ssm.d_model;
  norm2_ = MapNorm(options.norm_layer, channels, options.norm_eps);
  register_module("norm2", norm2_.module());
  mlp_ = register_module(
      "mlp",
      MapMlp(channels, static_cast<int64_t>(options.mlp_ratio * static_cast<double>(channels)),
             options.mlp_act, options.gmlp, options.mlp_dropout));
}

torch::Tensor VssBlockImpl::forward(const torch::Tensor& map, const ScanContext& context) {
  const auto normed = norm_.forward(map);
  Trace inner;
  op_->trace = trace != nullptr ? &inner : nullptr;
  const auto mixed = op_->forward(normed, context);
  op_->trace = nullptr;
  if (trace != nullptr) {
    (*trace)["op_in"] = normed;
    (*trace)["op_out"] = mixed;
    (*trace)["op.out_norm"] = inner["out_norm_out"];
  }
  auto x = map + drop_path(mixed, options_.drop_path, is_training());
  if (mlp_) x = x + drop_path(mlp_(norm2_.forward(x)), options_.drop_path, is_training());
  return x;
}

std::vector<double> drop_path_rates(double most, int64_t count) {
  std::vector<double> rates;
  for (int64_t i = 0; i < count; ++i)
    rates.push_back(count == 1 ? 0
                               : most * static_cast<double>(i) / static_cast<double>(count - 1));
  return rates;
}

}  // namespace serpentine
