#include "core/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/config/options.h"

namespace serpentine {
namespace {

using testing_options::error_of;
using testing_options::Outer;

std::string read_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { Config::parse(text, "a.yaml", overrides).read<Outer>(); });
}

TEST(Config, ReadsEveryType) {
  const auto options = Config::parse(
                           "dim: 3\nbias: false\nname: 'no'\nsizes: [4, 5]\n"
                           "levels: [0.1, 1, 1e-3]\ninner: {rate: .25}\n")
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

TEST(Config, RefusesWrongKinds) {
  EXPECT_EQ(read_error("dim: 1.5"), "a.yaml:1:6: dim: must be an integer, got 1.5");
  EXPECT_EQ(read_error("dim: 99999999999999999999"),
            "a.yaml:1:6: dim: must be an integer, got 99999999999999999999");
  EXPECT_EQ(read_error("dim:"), "a.yaml:1:1: dim: must be an integer, got nothing");
  EXPECT_EQ(read_error("dim: [1]"), "a.yaml:1:6: dim: must be an integer, got a list");
  EXPECT_EQ(read_error("bias: yes"), "a.yaml:1:7: bias: must be true or false, got yes");
  EXPECT_EQ(read_error("sizes: {a: 3}"), "a.yaml:1:8: sizes: must be a list, got a mapping");
  EXPECT_EQ(read_error("sizes: x"), "a.yaml:1:8: sizes[0]: must be an integer, got x");
  EXPECT_EQ(read_error("inner: 3"), "a.yaml:1:8: inner: must be a mapping, got 3");
  EXPECT_EQ(read_error("name: 7"),
            "a.yaml:1:7: name: must be a string, got 7; quote it to make it one: \"7\"");
  EXPECT_EQ(read_error("inner: {rate: .nan}"),
            "a.yaml:1:15: inner.rate: must be from 0 to 1, got .nan");
  EXPECT_EQ(read_error("- 1"), "a.yaml:1:1: the document must be a mapping, got a list");
}

/// A shell takes the quotes away that YAML would need.
TEST(Config, OverridesNeedNoQuotes) {
  struct Texts {
    std::string text = "none";
    std::vector<std::string> words;
    void fields(Fields& f) {
      f("text", text, "any text");
      f("words", words, "one or more words");
    }
  };
  for (const char* text :
       {",", "|", "%d.%m.%Y %H:%M", "*.csv", "@x.csv", "a: b", "", ";", "&", "- x", "!", "C:\\x"}) {
    const auto read = Config::parse("{}", "a.yaml", {std::string("text=") + text}).read<Texts>();
    EXPECT_EQ(read.text, text);
  }
  EXPECT_EQ(Config::parse("{}", "a.yaml", {"words=load"}).read<Texts>().words,
            std::vector<std::string>{"load"});
  EXPECT_EQ(Config::parse("words: load", "a.yaml").read<Texts>().words,
            std::vector<std::string>{"load"});
  EXPECT_EQ(Config::parse("{}", "a.yaml", {"words=[a, b]"}).read<Texts>().words.size(), 2u);
  EXPECT_THROW(Config::parse("{}", "a.yaml", {"words=[a, b"}).read<Texts>(), ConfigError);
}

TEST(Config, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(read_error("dim: 1\ninner:\n  rate: 0\n  # again\n  rate: 1\ndim: 2\n"),
            "a.yaml:5:3: inner.rate: duplicate key; it was first given on line 3\n"
            "a.yaml:6:1: dim: duplicate key; it was first given on line 1");
  EXPECT_EQ(read_error("inner: {rate: 0, rate: 1}"),
            "a.yaml:1:18: inner.rate: duplicate key; it was first given on line 1");
}

TEST(Config, ReportsBrokenYamlAtItsPlace) {
  EXPECT_EQ(read_error("dim: [1,\nbias: }").rfind("a.yaml:2:7: not valid YAML: ", 0), 0U);
  EXPECT_EQ(read_error("dim: 1\n---\ndim: 2\n").rfind("a.yaml:", 0), 0U);
  EXPECT_EQ(read_error("a: &x [*x]"), "a.yaml:1:8: an alias stands inside the value that it names");
  EXPECT_EQ(read_error("dim: !new 3"), "a.yaml:1:6: the tag !new is not supported");
  EXPECT_EQ(read_error("? [1]\n: 2"), "a.yaml:1:3: a key must be text, got a list");
}

TEST(Config, RefusesTextThatGrowsWithoutBound) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string name = "a" + std::to_string(i);
    const std::string before = "*a" + std::to_string(i - 1);
    bomb.append(name).append(": &").append(name).append(" [").append(before);
    for (int j = 0; j < 9; ++j) bomb.append(", ").append(before);
    bomb += "]\n";
  }
  EXPECT_NE(read_error(bomb).find("more than 200000 values"), std::string::npos);
  EXPECT_NE(read_error("a: " + std::string(300, '[')).find("nest deeper than 200 levels"),
            std::string::npos);
  std::string chain = "b0: &b0 " + std::string(150, '[') + std::string(150, ']') + "\n";
  chain += "b1: " + std::string(100, '[') + "*b0" + std::string(100, ']') + "\n";
  EXPECT_NE(read_error(chain).find("nest deeper"), std::string::npos);
}

TEST(Config, WritesWhatWasReadWithItsDefaults) {
  const Config config = Config::parse("dim: 3\nname: \"12\"\ninner: {rate: 0.25}\n");
  config.read<Outer>();
  const Config again = Config::parse(config.yaml());
  const auto options = again.read<Outer>();
  EXPECT_EQ(options.dim, 3);
  EXPECT_EQ(options.name, "12");
  EXPECT_EQ(options.inner.rate, 0.25);
  for (const char* key : {"bias", "sizes", "levels"}) {
    EXPECT_TRUE(again.has(key)) << key;
    EXPECT_FALSE(config.has(key)) << key;
  }
  EXPECT_TRUE(again.child("inner").has("mode"));
  EXPECT_EQ(again.yaml(), config.yaml());
}

TEST(Config, NumbersSurviveTheResolvedText) {
  struct Numbers {
    double tiny = 5e-324, third = 1.0 / 3, infinite = INFINITY;
    std::string empty, truth = "true", text = "line\n\"quoted\" # no comment";
    void fields(Fields& f) {
      f("tiny", tiny, "");
      f("third", third, "");
      f("infinite", infinite, "");
      f("empty", empty, "");
      f("truth", truth, "");
      f("text", text, "");
    }
  };
  const Config config;
  const auto before = config.read<Numbers>();
  Numbers zero{0, 0, 0, "x", "x", "x"};
  const auto after = Config::parse(config.yaml()).read<Numbers>(zero);
  EXPECT_EQ(after.tiny, before.tiny);
  EXPECT_EQ(after.third, before.third);
  EXPECT_EQ(after.infinite, before.infinite);
  EXPECT_EQ(after.empty, "");
  EXPECT_EQ(after.truth, "true");
  EXPECT_EQ(after.text, before.text);
}

TEST(Config, ControlCharactersSurviveTheResolvedText) {
  // found by fuzzing: a carriage return at the end of the file
  for (const std::string text : {"name: m\r", "name: \"a\\tb\\n\"", "name: \"\\x01\""}) {
    const Config config = Config::parse(text);
    const auto before = config.read<Outer>().name;
    EXPECT_EQ(Config::parse(config.yaml()).read<Outer>().name, before) << text;
  }
}

TEST(Config, SetDefaultYieldsToWhatIsWritten) {
  Config config = Config::parse("dim: 3\n");
  config.set_default("dim", 5);
  config.set_default("name", "late");
  config.set_default("sizes", {7, 8});
  const auto options = config.read<Outer>();
  EXPECT_EQ(options.dim, 3);
  EXPECT_EQ(options.name, "late");
  EXPECT_EQ(options.sizes, (std::vector<int64_t>{7, 8}));
  EXPECT_TRUE(config.has("name"));
}

struct FileOptions {
  std::string path;
  void fields(Fields& f) { f("path", path, "a file", {.required = true}); }
};

TEST(Config, ARequiredTextIsNotEmpty) {
  const auto wrong = [](const std::string& text, const std::vector<std::string>& overrides) {
    return error_of([&] { Config::parse(text, "b.yaml", overrides).read<FileOptions>(); });
  };
  EXPECT_EQ(wrong("path: ''\n", {}), "b.yaml:1:7: path is empty");
  EXPECT_EQ(wrong("path: a.csv\n", {"path="}), "override 'path=': path is empty");
  EXPECT_EQ(Config::parse("path: a.csv", "b.yaml").read<FileOptions>().path, "a.csv");
}

TEST(Config, FailNamesThePlace) {
  const Config config = Config::parse("inner:\n  rate: 1\n", "b.yaml");
  EXPECT_EQ(error_of([&] { config.child("inner").fail("rate", "is odd"); }),
            "b.yaml:2:9: inner.rate: is odd");
  EXPECT_EQ(config.child("inner").place("mode"), "b.yaml:2:3");
  EXPECT_EQ(config.child("absent").place(), "b.yaml:1:1");
  EXPECT_EQ(error_of([&] { config.child("inner").type(); }),
            "b.yaml:2:3: inner: 'type' is missing");
}

TEST(Config, NearestNameNeedsToBeNear) {
  const std::vector<std::string> known = {"learning_rate", "epochs", "seed"};
  EXPECT_EQ(nearest("learning_rte", known), "learning_rate");
  EXPECT_EQ(nearest("epcohs", known), "epochs");
  EXPECT_EQ(nearest("batch", known), "");
  EXPECT_EQ(nearest("", known), "");
}

}  // namespace
}  // namespace serpentine
