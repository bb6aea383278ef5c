// Base files and overrides.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/config.h"
#include "core/config/options.h"

namespace serpentine {
namespace {

using testing_options::error_of;
using testing_options::Outer;
namespace fs = std::filesystem;

class ConfigSources : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "sub");
  }
  std::string write(const std::string& name, const std::string& text) const {
    const auto path = (folder_ / name).string();
    std::ofstream(path) << text;
    return path;
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

TEST_F(ConfigSources, BasesMergeBelowInAChain) {
  write("first.yaml", "dim: 1\nname: first\nsizes: [1, 1, 1]\ninner: {rate: 0.1, mode: exact}\n");
  write("sub/second.yaml", "base: ../first.yaml\nname: second\ninner: {rate: 0.2}\n");
  const auto path = write("third.yaml", "base: sub/second.yaml\nsizes: [3]\n");
  const Config config = Config::load(path);
  const auto options = config.read<Outer>();
  EXPECT_EQ(options.dim, 1);
  EXPECT_EQ(options.name, "second");
  EXPECT_EQ(options.sizes, (std::vector<int64_t>{3}));
  EXPECT_EQ(options.inner.rate, 0.2);
  EXPECT_EQ(options.inner.mode, "exact");
  EXPECT_FALSE(config.has("base"));
}

TEST_F(ConfigSources, MergedValuesKeepTheirPlace) {
  write("low.yaml", "bias: true\ndim: 0\n");
  const auto path = write("high.yaml", "# a comment\nbase: low.yaml\nnamee: x\n");
  const std::string message = error_of([&] { Config::load(path).read<Outer>(); });
  EXPECT_NE(message.find(at("low.yaml") + ":2:6: dim: must be at least 1, got 0"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find(at("high.yaml") + ":3:1: namee: unknown key; did you mean 'name'?"),
            std::string::npos)
      << message;
}

TEST_F(ConfigSources, RefusesCyclesAndMissingFiles) {
  const auto path = write("a.yaml", "base: b.yaml\n");
  write("b.yaml", "base: a.yaml\n");
  EXPECT_EQ(error_of([&] { Config::load(path); }),
            at("b.yaml") + ":1:7: base: 'a.yaml' leads back to itself");
  const auto lone = write("c.yaml", "dim: 1\nbase: none.yaml\n");
  EXPECT_EQ(
      error_of([&] { Config::load(lone); }),
      lone + ":2:7: base: '" + at("none.yaml") + "' cannot be opened: No such file or directory");
  const auto list = write("d.yaml", "base: [a]\n");
  EXPECT_EQ(error_of([&] { Config::load(list); }),
            list + ":1:7: base: must be the path of a file, got a list");
  EXPECT_EQ(error_of([&] { Config::load(at("e.yaml")); }),
            at("e.yaml") + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error_of([&] { Config::load(at("sub")); }), at("sub") + ": is a folder, not a file");
}

TEST_F(ConfigSources, OverridesWinOverFiles) {
  const auto path = write("a.yaml", "dim: 1\ninner: {mode: exact}\n");
  const Config config =
      Config::load(path, {"dim=7", "inner.rate=0.75", "sizes=[4, 4]", "name=2024", "bias=false"});
  const auto options = config.read<Outer>();
  EXPECT_EQ(options.dim, 7);
  EXPECT_EQ(options.inner.rate, 0.75);
  EXPECT_EQ(options.inner.mode, "exact");
  EXPECT_EQ(options.sizes, (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(options.name, "2024");
  EXPECT_FALSE(options.bias);

  // the resolved text reads back although a shell has no quotes
  EXPECT_EQ(Config::parse(config.yaml()).read<Outer>().name, "2024");
}

TEST_F(ConfigSources, ErrorsNameTheOverride) {
  const auto error = [](const std::vector<std::string>& overrides) {
    return error_of([&] { Config::parse("dim: 1", "a.yaml", overrides).read<Outer>(); });
  };
  EXPECT_EQ(error({"dim=x"}), "override 'dim=x': dim: must be an integer, got x");
  EXPECT_EQ(error({"dmi=3"}), "override 'dmi=3': dmi: unknown key; did you mean 'dim'?");
  EXPECT_EQ(error({"dim.a=3"}), "override 'dim.a=3': dim is 1, not a mapping");
  EXPECT_EQ(error({"dim"}), "override 'dim': an override has the form key.path=value");
  EXPECT_EQ(error({"a..b=1", "=1"}),
            "override 'a..b=1': an override has the form key.path=value\n"
            "override '=1': an override has the form key.path=value");
  EXPECT_EQ(error({"sizes=[1"}), "override 'sizes=[1': the value is not valid YAML");
  EXPECT_EQ(error({"dim="}), "override 'dim=': dim: must be an integer, got ''");
}

}  // namespace
}  // namespace serpentine
