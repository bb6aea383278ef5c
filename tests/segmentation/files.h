// Small files of the tests: a folder that goes away, volumes, data sets.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "segmentation/nifti.h"

namespace serpentine::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::temp_directory_path() /
            (std::string("serpentine_") + info->test_suite_name() + "_" + info->name() + "_" +
             std::to_string(::getpid()));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline void save(const std::string& file, const torch::Tensor& voxels,
                 std::array<double, 3> spacing = {1, 1, 1}, const Affine* affine = nullptr) {
  std::filesystem::create_directories(std::filesystem::path(file).parent_path());
  write_nifti(file, voxels,
              new_nifti_header({voxels.size(2), voxels.size(1), voxels.size(0)}, spacing, affine));
}

/// A ball of label 1 with a core of label 2, and an image that shows it.
struct Ball {
  torch::Tensor image, labels;
};
inline Ball ball(int64_t depth, int64_t height, int64_t width, double radius) {
  const auto axis = [](int64_t size) {
    return torch::arange(size, torch::kFloat) - static_cast<double>(size - 1) / 2;
  };
  const auto grid = torch::meshgrid({axis(depth), axis(height), axis(width)}, "ij");
  const auto far = (grid[0].square() + grid[1].square() + grid[2].square()).sqrt();
  const auto labels = far.lt(radius).to(torch::kByte) + far.lt(radius / 2).to(torch::kByte);
  return {labels.to(torch::kFloat) * 100 + 20, labels};
}

template <class Function>
std::string error_of(Function&& function) {
  try {
    function();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

inline const std::string kSamples =
    std::string(SERPENTINE_SOURCE_DIR) + "/data/samples/hippocampus";

}  // namespace serpentine::testing
