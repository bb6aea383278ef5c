#include "pointcloud/mamba_stack.h"

#include <cmath>

#include <torch/torch.h>

#include "core/nn/drop_path.h"

namespace serpentine {

MambaStackImpl::MambaStackImpl(const MambaStackOptions& options) : options_(options) {
  const NormKind kind = options.rms_norm ? NormKind::kRms : NormKind::kLayer;
  torch::nn::ModuleList list;
  for (size_t i = 0; i < options.drop_path.size(); ++i) {
    const auto layer = std::make_shared<torch::nn::Module>("layer");
    layers_.push_back({layer->register_module("mixer", Mamba(options.mamba)),
                       layer->register_module("norm", Norm(options.mamba.d_model, kind))});
    list->push_back(layer);
  }
  register_module("layers", list);
  norm_f_ = register_module("norm_f", Norm(options.mamba.d_model, kind));

  const torch::NoGradGuard no_grad;
  for (auto& layer : layers_) {
    auto& weight = layer.mixer->out_proj->weight;
    torch::nn::init::kaiming_uniform_(weight, std::sqrt(5.0));
    weight.div_(std::sqrt(static_cast<double>(layers_.size())));
  }
}

torch::Tensor MambaStackImpl::forward(torch::Tensor x, const ScanOrder& order) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto mixed = layers_[i].mixer->forward(layers_[i].norm(x), order);
    x = x + drop_path(mixed, options_.drop_path[i], is_training());
    x = torch::dropout(x, options_.dropout, is_training());
    if (!on_record) continue;
    on_record("layer" + std::to_string(i) + ".mixer", mixed);
    on_record("after_layer" + std::to_string(i), x);
  }
  return norm_f_(x);
}

}  // namespace serpentine
