#include "core/io/state_dict.h"

#include <torch/torch.h>

#include "core/io/files.h"
#include "core/io/safetensors.h"

namespace serpentine {
namespace {

struct Net : torch::nn::Module {
  Net() {
    first = register_module("first", torch::nn::Linear(2, 3));
    norm = register_module("norm", torch::nn::BatchNorm1d(3));
  }
  torch::nn::Linear first{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
};

TEST(StateDict, HoldsParametersAndBuffers) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state_dict(Net())) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"first.weight", "first.bias", "norm.weight",
                                             "norm.bias", "norm.running_mean", "norm.running_var",
                                             "norm.num_batches_tracked"}));
}

TEST(StateDict, LoadCopiesAllOfAnotherModule) {
  Net from, to;
  const auto weights = state_dict(from);
  const LoadReport report = load_state_dict(to, weights);
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.text(), "all weights fit\n");
  EXPECT_TRUE(torch::equal(from.first->weight, to.first->weight));
  EXPECT_TRUE(to.first->weight.requires_grad());
}

TEST(StateDict, LoadReportsWhatDoesNotFit) {
  Net net;
  const torch::Tensor before = net.first->weight.detach().clone();
  StateDict weights = state_dict(Net());
  weights.erase(weights.begin() + 1);
  weights[0].second = torch::ones({3, 4});
  for (const char* name : {"head.weight", "layers.7.unused.weight", "norm.extra"}) {
    weights.emplace_back(name, torch::ones(1));
  }
  const LoadReport report = load_state_dict(net, weights, {"head.", "layers.*.weight"});
  EXPECT_FALSE(report.ok());
  EXPECT_EQ(report.missing, std::vector<std::string>{"first.bias"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"norm.extra"});
  EXPECT_EQ(report.tolerated, (std::vector<std::string>{"head.weight", "layers.7.unused.weight"}));
  EXPECT_EQ(report.shapes,
            std::vector<std::string>{"first.weight: the module has [3, 2], the file [3, 4]"});
  EXPECT_TRUE(torch::equal(net.first->weight, before));
  EXPECT_EQ(report.text(),
            "missing in the file (1)\n  first.bias\n"
            "unexpected in the file (1)\n  norm.extra\n"
            "of another shape (1)\n  first.weight: the module has [3, 2], the file [3, 4]\n"
            "left over, as the model expects (2)\n  head.weight\n  layers.7.unused.weight\n");
}

class ReadStateDict : public FolderTest {};

TEST_F(ReadStateDict, LooksAtTheContentNotTheName) {
  write_safetensors(at("a.pth"), {{"w", torch::ones(2)}});
  EXPECT_EQ(read_state_dict(at("a.pth")).size(), 1U);
  for (const char* bytes : {"", "short", "some text that is no checkpoint", "PK\x03\x04 broken"}) {
    const auto path = write("b.safetensors", bytes);
    expect_sentence(error_of([&] { read_state_dict(path); }), path);
  }
  expect_sentence(error_of([&] { read_state_dict(at("none")); }), at("none"));
  expect_sentence(error_of([&] { read_state_dict(folder_.string()); }), folder_.string());
}

}  // namespace
}  // namespace serpentine
