#include "golden/golden.h"

#include <cstdlib>
#include <fstream>
#include <iostream>

#include <gtest/gtest.h>

#include "core/io/safetensors.h"
#include "support/close.h"

namespace serpentine::golden {
namespace {

// the tensor's name in double precision: output64, grad64.x
std::string double_name(const std::string& tensor) {
  return tensor.rfind("grad.", 0) == 0 ? "grad64" + tensor.substr(4) : tensor + "64";
}

torch::Device chosen_device() {
  const char* chosen = std::getenv("SERPENTINE_GOLDEN_DEVICE");
  return {chosen != nullptr && *chosen != '\0' ? chosen : "cpu"};
}

}  // namespace

double Fixture::tolerance_of(const std::string& tensor) const {
  const auto dtype = io_.at(tensor).scalar_type();
  const bool gradient = tensor.find("grad") != std::string::npos;
  const auto twice = io_.find(double_name(tensor));
  const bool known = twice != io_.end();
  const double own = known ? testing::difference(io_.at(tensor), twice->second).max : 0;

  // 16 bits: ours is one rounding from the exact value, the reference rounds at more places
  const double roundings = known ? 1.01 : 2;
  if (dtype == torch::kBFloat16) return roundings * 0x1p-8 + own;
  if (dtype == torch::kHalf) return roundings * 0x1p-11 + own;

  // a sum that cancels is as inaccurate in ours as in the reference
  return (gradient ? gradient_tolerance : forward_tolerance) + 3 * own;
}

Fixture::Fixture(const std::filesystem::path& folder)
    : device(chosen_device()),
      name(folder.parent_path().filename().string() + "_" + folder.filename().string()) {
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
  return found->second.to(device, found->second.scalar_type(), /*non_blocking=*/false,
                          /*copy=*/true);
}

torch::Tensor Fixture::input_or_undefined(const std::string& tensor) {
  return has(tensor) ? input(tensor) : torch::Tensor();
}

bool Fixture::check(const std::string& tensor, const torch::Tensor& actual) {
  if (!has(tensor)) return false;
  return check(tensor, actual, tolerance_of(tensor));
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
  EXPECT_TRUE(torch::equal(actual.to(device), expected))
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
