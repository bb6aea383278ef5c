// One test a fixture: Golden.Case/<area>_<case>, from the folder that SERPENTINE_GOLDEN names.
#include "golden/golden.h"

#include <algorithm>
#include <cstdlib>

#include <gtest/gtest.h>

#include "core/train/precision.h"

namespace serpentine::golden {
namespace {

namespace fs = std::filesystem;

fs::path root() {
  const char* chosen = std::getenv("SERPENTINE_GOLDEN");
  return chosen != nullptr && *chosen != '\0' ? fs::path(chosen)
                                              : fs::path(SERPENTINE_SOURCE_DIR) / "tests/golden";
}

std::vector<fs::path> folders() {
  std::vector<fs::path> found;
  if (!fs::is_directory(root())) return found;
  for (const auto& area : fs::directory_iterator(root())) {
    if (!area.is_directory()) continue;
    for (const auto& entry : fs::directory_iterator(area)) {
      if (fs::exists(entry.path() / "config.json")) found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string test_name(const fs::path& folder) {
  auto name = folder.parent_path().filename().string() + "_" + folder.filename().string();
  std::replace_if(
      name.begin(), name.end(),
      [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

const Checkers& checkers() {
  static const Checkers all = [] {
    Checkers made;
    add_operator_checkers(made);
    add_scan_checkers(made);
    add_mamba_checkers(made);
    add_language_model_checkers(made);
    add_timeseries_checkers(made);
    add_order_checkers(made);
    add_shuffle_checkers(made);
    add_pointcloud_checkers(made);
    add_vision_checkers(made);
    add_segmentation_checkers(made);
    add_pathology_checkers(made);
    add_ssm_checkers(made);
    add_s4_checkers(made);
    add_mamba2_checkers(made);
    add_hydra_checkers(made);
    return made;
  }();
  return all;
}

std::string kind(const nlohmann::json& config) {
  for (const char* key : {"op", "model", "reference"}) {
    if (!config.contains(key)) continue;
    const auto& value = config.at(key);
    return value.is_string() ? value.get<std::string>() : value.value("NAME", std::string("?"));
  }
  return "(neither op, model nor reference)";
}

class Golden : public ::testing::TestWithParam<fs::path> {};

TEST_P(Golden, Case) {
  torch::set_num_threads(1);
  apply_precision("fp32");
  Fixture fixture(GetParam());
  const auto checker = checkers().find(kind(fixture.config));
  if (checker == checkers().end()) GTEST_SKIP() << "not built yet: " << kind(fixture.config);
  try {
    checker->second(fixture);
  } catch (const NotBuilt& reason) {
    GTEST_SKIP() << "not built yet: " << reason.what();
  }
  for (const auto& name : fixture.unseen())
    ADD_FAILURE() << name << " of the fixture was not checked";
}

TEST(GoldenFolder, HoldsCases) {
  EXPECT_FALSE(folders().empty()) << "no fixtures under " << root();
}

// an empty prefix, so that a case is named Golden.Case/core_add_norm
INSTANTIATE_TEST_SUITE_P(, Golden, ::testing::ValuesIn(folders()),
                         [](const auto& of) { return test_name(of.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Golden);

}  // namespace
}  // namespace serpentine::golden
