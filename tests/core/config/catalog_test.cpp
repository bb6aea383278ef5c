#include "core/catalog.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/config/options.h"

namespace serpentine {
namespace {

using testing_options::error_of;
using testing_options::Inner;

struct Scan {
  virtual ~Scan() = default;
};
struct Net {
  virtual ~Net() = default;
  int64_t dim = 0;
};
struct PlainOptions {
  bool flip = false;
  void fields(Fields& f) { f("flip", flip, "Backwards."); }
};
struct TwiceOptions {
  Config inner;
  void fields(Fields& f) {
    f.nested("inner", inner, "The order twice.", "scan", {.required = true});
  }
};
struct NetOptions {
  int64_t dim = 4;
  Config scan = Config::parse("{type: plain}");
  std::vector<Config> blocks;
  void fields(Fields& f) {
    f("dim", dim, "Channels.", {.required = true, .least = 1, .most = 1024});
    f.nested("scan", scan, "The order.", "scan");
    f.nested("blocks", blocks, "More orders.", "scan");
  }
};
struct RunOptions {
  Config model;
  Inner trainer;
  void fields(Fields& f) {
    f.nested("model", model, "What is trained.", "model", {.required = true});
    f.group("trainer", trainer, "How.");
  }
};

class CatalogTest : public testing::Test {
 protected:
  CatalogTest() {
    scans_.add<PlainOptions>("plain", [](const PlainOptions&) { return std::make_shared<Scan>(); });
    scans_.add<TwiceOptions>("twice", [](const TwiceOptions&) { return std::make_shared<Scan>(); });
    nets_.add<NetOptions>("net", [](const NetOptions& options) {
      auto net = std::make_shared<Net>();
      net->dim = options.dim;
      return net;
    });
    catalog_.add(scans_);
    catalog_.add(nets_);
  }
  std::string check(const std::string& text) const {
    return error_of([&] { catalog_.check<RunOptions>(Config::parse(text, "r.yaml")); });
  }
  Registry<Scan> scans_{"scan"};
  Registry<Net> nets_{"model"};
  Catalog catalog_;
};

TEST_F(CatalogTest, AcceptsAGoodDocument) {
  EXPECT_EQ(check("model: {type: net, dim: 3, scan: {type: twice, inner: {type: plain}}}\n"),
            "no error");
}

TEST_F(CatalogTest, ReportsTheWholeDocumentAtOnce) {
  EXPECT_EQ(check("model:\n"
                  "  type: net\n"
                  "  dmi: 3\n"
                  "  scan: {type: twice, inner: {type: plian}}\n"
                  "  blocks:\n"
                  "    - {type: plain, flip: 1}\n"
                  "    - 7\n"
                  "    - {flip: true}\n"
                  "trainer:\n"
                  "  rte: 1\n"
                  "modle: {}\n"),
            "r.yaml:2:3: model: 'dim' is missing\n"
            "r.yaml:3:3: model.dmi: unknown key; did you mean 'dim'?\n"
            "r.yaml:4:37: model.scan.inner.type: unknown scan 'plian'; did you mean 'plain'? "
            "Known: plain twice\n"
            "r.yaml:6:27: model.blocks[0].flip: must be true or false, got 1\n"
            "r.yaml:7:7: model.blocks[1]: must be a mapping with a 'type', got 7\n"
            "r.yaml:8:7: model.blocks[2]: 'type' is missing\n"
            "r.yaml:10:3: trainer.rte: unknown key; did you mean 'rate'?\n"
            "r.yaml:11:1: modle: unknown key; did you mean 'model'?");
}

TEST_F(CatalogTest, TypeIsKnownOnlyWhereARegistryBuilds) {
  EXPECT_EQ(check("model: {type: net, dim: 3}\ntrainer: {type: fast}\n"),
            "r.yaml:2:11: trainer.type: unknown key; known keys: rate, mode");
  EXPECT_EQ(check("{}"), "r.yaml:1:1: 'model' is missing");
}

TEST_F(CatalogTest, RegistryBuildsAndRefusesUnknownNames) {
  const auto root = Config::parse("model: {type: net, dim: 3}", "r.yaml").read<RunOptions>();
  EXPECT_EQ(nets_.build(root.model)->dim, 3);
  const auto wrong = Config::parse("model: {type: nte, dim: 3}", "r.yaml").read<RunOptions>();
  EXPECT_EQ(error_of([&] { nets_.build(wrong.model); }),
            "r.yaml:1:15: model.type: unknown model 'nte'; did you mean 'net'? Known: net");
  EXPECT_THROW(scans_.add<PlainOptions>("plain", [](const PlainOptions&) { return nullptr; }),
               std::logic_error);
}

TEST_F(CatalogTest, DefaultsOfNestedMappingsAppearInTheResolvedText) {
  const Config config = Config::parse("model: {type: net, dim: 3}");
  const auto model = config.read<RunOptions>().model.read_typed<NetOptions>();
  EXPECT_EQ(model.scan.type(), "plain");
  model.scan.read_typed<PlainOptions>();
  const Config again = Config::parse(config.yaml());
  EXPECT_EQ(again.child("model").child("scan").type(), "plain");
  EXPECT_TRUE(again.child("model").child("scan").has("flip"));
  EXPECT_NO_THROW(catalog_.check<RunOptions>(again));
}

TEST_F(CatalogTest, SchemaTellsTypesApart) {
  const nlohmann::json schema = catalog_.schema<RunOptions>("A run");
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  const auto& root = schema["$defs"]["document"];
  EXPECT_EQ(root["additionalProperties"], false);
  EXPECT_EQ(root["required"], nlohmann::json({"model"}));
  EXPECT_EQ(root["properties"]["model"]["$ref"], "#/$defs/model");
  EXPECT_EQ(root["properties"]["trainer"]["properties"]["mode"]["enum"],
            nlohmann::json({"fast", "exact"}));
  EXPECT_EQ(root["properties"]["trainer"]["properties"]["rate"]["default"], 0.5);

  const auto& scan = schema["$defs"]["scan"];
  EXPECT_EQ(scan["properties"]["type"]["enum"], nlohmann::json({"plain", "twice"}));
  ASSERT_EQ(scan["allOf"].size(), 2U);
  EXPECT_EQ(scan["allOf"][0]["if"]["properties"]["type"]["const"], "plain");
  EXPECT_EQ(scan["allOf"][0]["then"]["properties"]["flip"]["type"], "boolean");
  EXPECT_EQ(scan["allOf"][0]["then"]["additionalProperties"], false);

  const auto& dim = schema["$defs"]["model"]["allOf"][0]["then"]["properties"]["dim"];
  EXPECT_EQ(dim["minimum"], 1);
  EXPECT_EQ(dim["maximum"], 1024);
  EXPECT_EQ(dim["description"], "Channels.");

  // a file with a base may leave out what the base gives
  const auto& loose = schema["$defs"]["partial"];
  EXPECT_FALSE(loose["document"].contains("required"));
  EXPECT_EQ(loose["document"]["properties"]["model"]["$ref"], "#/$defs/partial/model");
  EXPECT_FALSE(loose["model"]["allOf"][0]["then"].contains("required"));
  EXPECT_EQ(loose["model"]["allOf"][0]["if"], schema["$defs"]["model"]["allOf"][0]["if"]);
}

}  // namespace
}  // namespace serpentine
