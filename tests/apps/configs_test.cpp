// Every file of configs/ names what exists, and nothing else: checked without its data.
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "apps/packages.h"
#include "apps/run.h"

namespace serpentine {
namespace {

std::vector<std::string> run_files() {
  std::vector<std::string> files;
  const std::string folder = std::string(SERPENTINE_SOURCE_DIR) + "/configs";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const auto& path = entry.path();
    const bool part = path.parent_path().filename() == "base" || path.filename() == "base.yaml";
    if (path.extension() == ".yaml" && !part) files.push_back(path.string());
  }
  return files;
}

TEST(Configs, AreAllCorrect) {
  const Packages packages = all_packages();
  const auto files = run_files();
  EXPECT_GT(files.size(), 150U);
  for (const auto& file : files) EXPECT_NO_THROW((void)read_plan(packages, file)) << file;
}

}  // namespace
}  // namespace serpentine
