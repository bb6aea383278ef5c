// A recorded step does what the step does, or is refused.
#include "core/train/step_graph.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace serpentine {
namespace {

enum class Trouble { kNone, kDrawsOnCpu, kWaits };

/// Two layers with what a graph has to get right: draws on the GPU and running averages.
class Drawing : public Model {
 public:
  explicit Drawing(Trouble trouble) : trouble_(trouble) {
    first = register_module("first", torch::nn::Linear(6, 16));
    norm = register_module("norm", torch::nn::BatchNorm1d(16));
    last = register_module("last", torch::nn::Linear(16, 3));
    unused = register_parameter("unused", torch::zeros({2}));
  }
  torch::Tensor forward(const Batch& batch) override {
    torch::Tensor x = torch::dropout(norm(first(batch.input)).relu(), 0.3, is_training());
    if (trouble_ == Trouble::kDrawsOnCpu) x = x * torch::rand({1}).item<double>();
    if (trouble_ == Trouble::kWaits) x = x * (x.sum().item<double>() > 0 ? 1 : 2);
    return last(x);
  }
  torch::nn::Linear first{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::Tensor unused;

 private:
  Trouble trouble_;
};

Batch examples(int64_t count, torch::Device device) {
  Batch batch;
  batch.input = torch::randn({count, 6}).to(device);
  batch.target = torch::randn({count, 3}).to(device);
  return batch;
}

StepGraph::Pass pass_of(Model& model) {
  return [&model](const Batch& batch) {
    const torch::Tensor value = (model.forward(batch) - batch.target).square().mean();
    value.backward();
    return Loss{value, batch.target.size(0)};
  };
}

void descend(Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model.parameters()) {
    if (parameter.grad().defined()) parameter.sub_(0.1 * parameter.grad());
    parameter.mutable_grad() = torch::Tensor();
  }
}

/// The weights after some steps, with `graphs` recorded at the third.
std::vector<torch::Tensor> weights_after(bool graphs) {
  torch::manual_seed(3);
  Drawing model(Trouble::kNone);
  model.to(torch::kCUDA);
  const auto pass = pass_of(model);
  std::unique_ptr<StepGraph> graph;
  for (int step = 0; step < 8; ++step) {
    const Batch batch = examples(step == 6 ? 5 : 9, torch::kCUDA);  // one of another size
    if (graph && graph->fits(batch)) {
      graph->replay(batch);
    } else if (graphs && step == 2) {
      auto recorded = StepGraph::record(pass, model, batch);
      EXPECT_EQ(recorded.refusal, "");
      graph = std::move(recorded.graph);
    } else {
      pass(batch);
    }
    descend(model);
  }
  EXPECT_EQ(graph != nullptr, graphs);
  std::vector<torch::Tensor> all = model.parameters();
  for (const auto& buffer : model.buffers()) all.push_back(buffer);
  all.push_back(torch::rand({4}, torch::kCUDA));  // the generator stands where it would
  for (auto& tensor : all) tensor = tensor.detach().cpu();
  return all;
}

TEST(StepGraph, DoesWhatTheStepDoes) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  const auto plain = weights_after(false), graphs = weights_after(true);
  ASSERT_EQ(plain.size(), graphs.size());
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(torch::equal(plain[i], graphs[i])) << i;
}

/// The device at hand: a build or machine without a GPU refuses every pass, with the same promise.
TEST(StepGraph, RefusesWhatItCannotRepeatAndLeavesTheStepAsItWas) {
  const torch::Device device = torch::cuda::is_available() ? torch::kCUDA : torch::kCPU;
  for (const Trouble trouble : {Trouble::kDrawsOnCpu, Trouble::kWaits}) {
    torch::manual_seed(5);
    Drawing plain(trouble), tried(trouble);
    for (const auto& item : plain.named_parameters()) {
      const torch::NoGradGuard no_grad;
      tried.named_parameters()[item.key()].copy_(item.value());
    }
    plain.to(device);
    tried.to(device);
    const Batch batch = examples(9, device);
    torch::manual_seed(7);
    const Loss loss = pass_of(plain)(batch);
    const torch::Tensor next = torch::dropout(torch::ones({64}, device), 0.5, true);
    torch::manual_seed(7);
    const auto recorded = StepGraph::record(pass_of(tried), tried, batch);
    EXPECT_EQ(recorded.graph, nullptr);
    const std::string reason = device.is_cpu()                   ? "no "
                               : trouble == Trouble::kDrawsOnCpu ? "draws random numbers"
                                                                 : "cannot be recorded";
    EXPECT_NE(recorded.refusal.find(reason), std::string::npos) << recorded.refusal;
    EXPECT_TRUE(torch::equal(recorded.loss.value, loss.value)) << recorded.refusal;
    EXPECT_TRUE(torch::equal(torch::dropout(torch::ones({64}, device), 0.5, true), next));
    EXPECT_TRUE(torch::equal(plain.first->weight.grad(), tried.first->weight.grad()));
    EXPECT_TRUE(torch::equal(plain.norm->running_mean, tried.norm->running_mean));
    EXPECT_FALSE(tried.unused.grad().defined());
  }
}

}  // namespace
}  // namespace serpentine
