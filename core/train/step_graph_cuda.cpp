#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/torch.h>

#include "core/kept_tables.h"
#include "core/train/step_graph.h"

namespace serpentine {
namespace {

std::vector<torch::Tensor> tensors_of(const Batch& batch) {
  std::vector<torch::Tensor> all = {batch.input, batch.target, batch.coords, batch.offsets};
  for (const auto& [name, tensor] : batch.named) all.push_back(tensor);
  return all;
}

std::vector<torch::Tensor> copies(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> out;
  for (const auto& tensor : tensors)
    out.push_back(tensor.defined() ? tensor.detach().clone() : tensor);
  return out;
}

bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  const auto bytes = [](const torch::Tensor& of) {
    return of.detach().contiguous().flatten().view(torch::kUInt8);  // NaN is NaN, -0 is not 0
  };
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         torch::equal(bytes(a), bytes(b));
}

/// What a pass changes beside gradients: the model's buffers and the generators.
class Surroundings {
 public:
  explicit Surroundings(Model& model)
      : buffers_(model.buffers()), gpu_(at::cuda::detail::getDefaultCUDAGenerator()) {
    kept_ = copies(buffers_);
    gpu_state_ = gpu_.get_state().clone();
    cpu_state_ = at::detail::getDefaultCPUGenerator().get_state().clone();
  }
  void restore() {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(kept_[i]);
    gpu_.set_state(gpu_state_);
    auto cpu = at::detail::getDefaultCPUGenerator();
    cpu.set_state(cpu_state_);
  }
  bool same_draws_on_cpu(const Surroundings& other) const {
    return torch::equal(cpu_state_, other.cpu_state_);
  }
  bool same(const Surroundings& other) const {
    bool same = same_draws_on_cpu(other) && torch::equal(gpu_state_, other.gpu_state_);
    for (size_t i = 0; i < kept_.size(); ++i) same = same && same_bits(kept_[i], other.kept_[i]);
    return same;
  }

 private:
  std::vector<torch::Tensor> buffers_, kept_;
  at::Generator gpu_;
  torch::Tensor gpu_state_, cpu_state_;
};

/// A new state of the same draws for the GPU's generator: one that a failed recording has spoilt
/// would refuse every later draw.
void renew_generator() {
  auto generator = at::cuda::detail::getDefaultCUDAGenerator();
  const torch::Tensor state = generator.get_state().clone();
  auto fresh = at::cuda::detail::createCUDAGenerator();
  fresh.set_state(state);
  generator.graphsafe_set_state(fresh.graphsafe_get_state());
}

class CudaStepGraph : public StepGraph {
 public:
  CudaStepGraph(Model& model, const Batch& batch) : parameters_(model.parameters()) {
    batch_ = batch;
    for (torch::Tensor* tensor : {&batch_.input, &batch_.target, &batch_.coords}) own(*tensor);
    for (auto& [name, tensor] : batch_.named) own(tensor);
  }

  /// Warms up and records on a stream of its own. Throws what the pass throws.
  void record(const Pass& pass, Surroundings& before) {
    const auto side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false);
    torch::cuda::synchronize();
    {
      const c10::cuda::CUDAStreamGuard guard(side);
      pass(batch_);  // what is made once and kept, such as workspaces and orders, is made here
      take_gradients();
      before.restore();
      held_ = kept_tables();
      torch::cuda::synchronize();
      c10::cuda::CUDACachingAllocator::emptyCache();
      // threads that read data go on with calls that only the recording one must not make
      graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
      std::exception_ptr failure;
      try {
        loss_ = pass(batch_);
      } catch (...) {
        failure = std::current_exception();
      }
      try {
        graph_.capture_end();
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
      gradients_ = take_gradients();
      if (failure) std::rethrow_exception(failure);
    }
    loss_.value = loss_.value.detach();
    torch::cuda::synchronize();
  }

  bool fits(const Batch& batch) const override {
    const auto mine = tensors_of(batch_), theirs = tensors_of(batch);
    if (mine.size() != theirs.size()) return false;
    for (const auto& [name, tensor] : batch_.named) {
      if (batch.named.count(name) == 0) return false;
    }
    for (size_t i = 0; i < mine.size(); ++i) {
      if (mine[i].defined() != theirs[i].defined()) return false;
      if (mine[i].defined() && (mine[i].sizes() != theirs[i].sizes() ||
                                mine[i].scalar_type() != theirs[i].scalar_type()))
        return false;
    }
    return true;
  }

  Loss replay(const Batch& batch) override {
    const torch::NoGradGuard no_grad;
    const auto mine = tensors_of(batch_), theirs = tensors_of(batch);
    for (size_t i = 0; i < mine.size(); ++i) {
      if (mine[i].defined()) mine[i].copy_(theirs[i], /*non_blocking=*/true);
    }
    graph_.replay();
    for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].mutable_grad() = gradients_[i];
    return loss_;
  }

  std::vector<torch::Tensor> take_gradients() {
    std::vector<torch::Tensor> taken;
    for (auto& parameter : parameters_) {
      taken.push_back(parameter.grad());
      parameter.mutable_grad() = torch::Tensor();
    }
    return taken;
  }
  void give_gradients(const std::vector<torch::Tensor>& gradients) {
    for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].mutable_grad() = gradients[i];
  }
  const std::vector<torch::Tensor>& gradients() const { return gradients_; }

 private:
  static void own(torch::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.detach().clone();
  }

  std::vector<torch::Tensor> parameters_, gradients_;
  std::vector<torch::Tensor> held_;  // of orders, which the graph knows by address alone
  Batch batch_;                      // what the graph reads
  Loss loss_;
  at::cuda::CUDAGraph graph_;
};

}  // namespace

StepGraph::Recorded StepGraph::record(const Pass& pass, Model& model, const Batch& batch) {
  Recorded out;
  if (!batch.input.defined() || !batch.input.is_cuda())
    return {pass(batch), nullptr, "the batch lies on no GPU"};
  if (batch.offsets.defined()) return {pass(batch), nullptr, "the batches are ragged"};
  Surroundings before(model);
  auto graph = std::make_unique<CudaStepGraph>(model, batch);
  out.loss = pass(batch);
  out.loss.value = out.loss.value.detach().clone();
  const auto gradients = graph->take_gradients();
  Surroundings after(model);
  if (!before.same_draws_on_cpu(after)) {
    out.refusal = "the model draws random numbers on the CPU";
  } else {
    try {
      before.restore();
      graph->record(pass, before);
      before.restore();
      const Loss loss = graph->replay(batch);
      torch::cuda::synchronize();
      bool same = loss.count == out.loss.count && same_bits(loss.value, out.loss.value) &&
                  Surroundings(model).same(after);
      for (size_t i = 0; i < gradients.size(); ++i)
        same = same && same_bits(gradients[i], graph->gradients()[i]);
      if (!same) out.refusal = "its replay differs from the pass itself";
    } catch (const std::exception& error) {
      out.refusal = std::string("it cannot be recorded: ") + error.what();
      out.refusal.resize(std::min(out.refusal.size(), out.refusal.find('\n')));
      renew_generator();
    }
  }
  graph->take_gradients();
  graph->give_gradients(gradients);
  after.restore();
  if (out.refusal.empty()) out.graph = std::move(graph);
  return out;
}

}  // namespace serpentine
