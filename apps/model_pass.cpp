#include "apps/model_pass.h"

#include <utility>

#include <torch/torch.h>

#include "core/train/optim.h"

namespace serpentine {

ModelPass::ModelPass(Model& model, torch::Device device, const std::string& precision, bool train)
    : model_(model),
      device_(device),
      type_(apply_precision(precision)),
      scaler_(train && precision == "fp16") {
  model_.to(device_);
  model_.train(train);
  if (train) optimizer_ = make_optimizer(OptimizerOptions(), model_);
}

void ModelPass::operator()(const Batch& batch) {
  if (optimizer_) {
    learn(batch);
  } else {
    const torch::NoGradGuard no_grad;
    const Autocast autocast(device_.type(), type_);
    model_.forward(batch);
  }
  if (device_.is_cuda()) torch::cuda::synchronize();
}

void ModelPass::learn(const Batch& batch) {
  const auto pass = [this](const Batch& there) {
    torch::Tensor loss;
    {
      const Autocast autocast(device_.type(), type_);
      loss = model_.forward(there).to(torch::kFloat).square().mean();
    }
    scaler_.scale(loss).backward();
    return Loss{loss, there.size()};
  };
  if (!with_graph_) {
    pass(batch);
  } else if (graph_ && graph_->fits(batch)) {
    graph_->replay(batch);
  } else {
    pass(batch);  // first chooses algorithms and fills caches
    optimizer_->zero_grad();
    auto recorded = StepGraph::record(pass, model_, batch);
    TORCH_CHECK(recorded.graph, "--graph: ", recorded.refusal);
    graph_ = std::move(recorded.graph);
  }
  bool finite = true;
  if (scaler_.enabled()) {
    std::vector<torch::Tensor> gradients;
    for (const auto& parameter : model_.parameters()) {
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
    finite = scaler_.unscale(gradients);
    scaler_.update(finite);
  }
  if (finite) optimizer_->step();
  optimizer_->zero_grad();  // now, so that a step's memory is all its own
}

}  // namespace serpentine
