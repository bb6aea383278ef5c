#include "golden/golden.h"

#include <cstdlib>
#include <fstream>
#include <iostream>

#include <gtest/gtest.h>

#include "core/io/safetensors.h"
#include "support/close.h"

namespace serpentine::golden {
namespace {

double default_tolerance(const Fixture& fixture, const std::string& name, at::ScalarType dtype) {
  if (dtype == torch::kBFloat16) return 1e-2;
  if (dtype == torch::kHalf) return 2e-3;
  const bool gradient = name.find("grad") != std::string::npos;
  return gradient ? fixture.gradient_tolerance : fixture.forward_tolerance;
}

}  // namespace

Fixture::Fixture(const std::filesystem::path& folder)
    : name(folder.parent_path().filename().string() + "_" + folder.filename().string()) {
  std::ifstream file(folder / "config.json");
  config = nlohmann::json::parse(file);
  if (std::filesystem::exists(folder / "weights.safetensors")) {
    weights = read_safetensors((folder / "weights.safetensors").string()).tensors;
  }
  for (auto& [key, value] : read_safetensors((folder / "io.safetensors").string()).tensors)
    io_[key] = value;
}

std::vector<std::string> Fixture::names() const {
  std::vector<std::string> all;
  for (const auto& entry : io_) all.push_back(entry.first);
  return all;
}

torch::Tensor Fixture::input(const std::string& tensor) {
  const auto found = io_.find(tensor);
  if (found == io_.end()) throw std::runtime_error(name + ": io.safetensors has no " + tensor);
  seen_.insert(tensor);
  return found->second.clone();
}

torch::Tensor Fixture::input_or_undefined(const std::string& tensor) {
  return has(tensor) ? input(tensor) : torch::Tensor();
}

bool Fixture::check(const std::string& tensor, const torch::Tensor& actual) {
  if (!has(tensor)) return false;
  return check(tensor, actual, default_tolerance(*this, tensor, io_.at(tensor).scalar_type()));
}

bool Fixture::check(const std::string& tensor, const torch::Tensor& actual, double tolerance) {
  if (!has(tensor)) return false;
  seen_.insert(tensor);
  const auto& expected = io_.at(tensor);
  EXPECT_TRUE(testing::is_close_max(actual, expected, tolerance)) << name << ": " << tensor;

  // for tightening the tolerances: every comparison's measured error
  if (std::getenv("SERPENTINE_GOLDEN_ERRORS") != nullptr) {
    const auto found = testing::difference(actual, expected);
    std::cout << "golden-error " << name << " " << tensor << " " << found.max << " of " << tolerance
              << "\n";
  }
  return true;
}

void Fixture::check_equal(const std::string& tensor, const torch::Tensor& actual) {
  const auto expected = input(tensor);
  EXPECT_TRUE(torch::equal(actual, expected))
      << name << ": " << tensor << " is not equal bit for bit";
}

std::vector<std::string> Fixture::unseen() const {
  std::vector<std::string> all;
  for (const auto& entry : io_) {
    if (seen_.count(entry.first) == 0) all.push_back(entry.first);
  }
  return all;
}

}  // namespace serpentine::golden
