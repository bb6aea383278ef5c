#include "core/io/safetensors.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>

namespace serpentine {
namespace {

TEST(SafeTensors, RoundTripsEveryType) {
  const auto path = (std::filesystem::path(testing::TempDir()) / "types.safetensors").string();
  StateDict tensors;
  for (const auto type :
       {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16, torch::kInt64,
        torch::kInt32, torch::kInt16, torch::kInt8, torch::kUInt8, torch::kBool}) {
    tensors.emplace_back(std::string("t.") + c10::toString(type),
                         (torch::rand({3, 5}) * 100).to(type).t());
  }
  tensors.emplace_back("scalar", torch::tensor(2.5));
  tensors.emplace_back("empty", torch::empty({0, 7}));
  write_safetensors(path, tensors, {{"format", "pt"}});
  const SafeTensors read = read_safetensors(path);
  EXPECT_EQ(read.metadata.at("format"), "pt");
  ASSERT_EQ(read.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(read.tensors[i].first, tensors[i].first);
    EXPECT_TRUE(torch::equal(read.tensors[i].second, tensors[i].second)) << tensors[i].first;
    EXPECT_TRUE(read.tensors[i].second.is_contiguous());
  }
}

}  // namespace
}  // namespace serpentine
