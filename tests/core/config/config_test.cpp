#include "core/config.h"

#include <gtest/gtest.h>

#include <string>

namespace serpentine {
namespace {

struct Inner {
  double rate = 0.5;
  std::string mode = "fast";
  void fields(Fields& f) {
    f("rate", rate, "A share.", {.least = 0, .most = 1});
    f("mode", mode, "How.", {.choices = {"fast", "exact"}});
  }
};

struct Outer {
  int64_t dim = 8;
  bool bias = true;
  std::string name = "x";
  std::vector<int64_t> sizes = {1, 2};
  std::vector<double> levels;
  Inner inner;
  void fields(Fields& f) {
    f("dim", dim, "Channels.", {.least = 1});
    f("bias", bias, "Adds a bias.");
    f("name", name, "What it is called.");
    f("sizes", sizes, "Extents.", {.least = 0});
    f("levels", levels, "Quantiles.", {.least = 0, .most = 1});
    f.group("inner", inner, "More.");
  }
};

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string read_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { Config::parse(text, "a.yaml", overrides).read<Outer>(); });
}

TEST(Config, ReadsEveryType) {
  const auto options = Config::parse(
                           "dim: 3\nbias: false\nname: 'no'\nsizes: [4, 5]\nlevels: [0.1, 1, "
                           "1e-3]\ninner: {rate: .25}\n")
                           .read<Outer>();
  EXPECT_EQ(options.dim, 3);
  EXPECT_FALSE(options.bias);
  EXPECT_EQ(options.name, "no");
  EXPECT_EQ(options.sizes, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(options.levels, (std::vector<double>{0.1, 1, 1e-3}));
  EXPECT_EQ(options.inner.rate, 0.25);
  EXPECT_EQ(options.inner.mode, "fast");
}

TEST(Config, ReportsEveryErrorOfAMappingAtItsPlace) {
  EXPECT_EQ(read_error("dim: 0\n"
                       "bias: 'true'\n"
                       "nam: y\n"
                       "sizes: [1, x]\n"
                       "inner:\n"
                       "  rate: 2\n"
                       "  mode: fats\n"
                       "  other: 1\n"),
            "a.yaml:1:6: dim: must be at least 1, got 0\n"
            "a.yaml:2:7: bias: must be true or false, got 'true'\n"
            "a.yaml:3:1: nam: unknown key; did you mean 'name'?\n"
            "a.yaml:4:12: sizes[1]: must be an integer, got x\n"
            "a.yaml:6:9: inner.rate: must be from 0 to 1, got 2\n"
            "a.yaml:7:9: inner.mode: must be one of fast, exact (did you mean 'fast'?), got fats\n"
            "a.yaml:8:3: inner.other: unknown key; known keys: rate, mode");
}

TEST(Config, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(read_error("dim: 1\ninner:\n  rate: 0\n  # again\n  rate: 1\ndim: 2\n"),
            "a.yaml:5:3: inner.rate: duplicate key; it was first given on line 3\n"
            "a.yaml:6:1: dim: duplicate key; it was first given on line 1");
}

}  // namespace
}  // namespace serpentine
