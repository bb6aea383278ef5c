// What every registered strategy promises, over awkward sizes.
#include "scans/serialization.h"

#include "scans/picture.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

const Registry<Serialization>& registry() {
  static const Registry<Serialization>& all = []() -> const Registry<Serialization>& {
    static Registry<Serialization> made("serialization");
    add_serializations(made);
    return made;
  }();
  return all;
}

std::shared_ptr<Serialization> build(const std::string& yaml) {
  return build_serialization(registry(), Config::parse(yaml));
}

TokenLayout image(int64_t height, int64_t width) {
  TokenLayout layout;
  layout.num_tokens = height * width;
  layout.height = height;
  layout.width = width;

  // for the strategies of points and of learned keys; the others read the grid
  const auto token = torch::arange(height * width);
  layout.coords = torch::stack({token / width, token % width, (token * 7) % 5}, -1)
                      .to(torch::kFloat)
                      .unsqueeze(0);
  layout.keys = ((token * 37) % 101).to(torch::kFloat).unsqueeze(0);
  return layout;
}

/// An order of its own for the only sample, as the one of every sample.
ScanOrder shared(ScanOrder order) {
  if (order.tokens.dim() == 2) {
    order.tokens = order.tokens[0];
    order.visits = order.visits[0];
  }
  return order;
}

ScanOrder draw(const Serialization& strategy, const TokenLayout& layout, uint64_t seed) {
  ScanContext context;
  context.training = true;
  context.generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return shared(strategy.order(layout, context));
}

struct Size {
  int64_t height, width;
};

/// Every registered name with its defaults, and the published variants.
std::vector<std::string> all_kinds() {
  std::vector<std::string> kinds;
  for (const std::string& name : registry().names()) kinds.push_back("{type: " + name + "}");
  for (const char* kind : {
           "{type: raster, columns: true}",
           "{type: cross, routes: unidi}",
           "{type: cross, routes: bidi}",
           "{type: cross, routes: rot90}",
           "{type: one_by_one, inner: {type: cross}}",
           "{type: atrous, step: 1}",
           "{type: atrous, step: 3}",
           "{type: zigzag, along: columns, mirror: x}",
           "{type: zigzag, along: diagonals, mirror: xy}",
           "{type: hilbert, transposed: true}",
           "{type: hilbert, depth: 5}",
           "{type: morton, transposed: true}",
           "{type: window, size: 2, flip: true}",
           "{type: window, size: 2, columns: true}",
           "{type: window, columns: true, flip: true}",
           "{type: lattice, holes: true}",
           "{type: lattice, reverses: false}",
           "{type: reorder, rate: 3, plain: false}",
           "{type: random, fixed: true, seed: 3}",
           "{type: learned, descending: true}",
           "{type: variate, along: time}",
           "{type: shuffle, p: 1, inner: {type: bidirectional}}",
           "{type: class_token, position: first}",
           "{type: class_token, position: last, inner: {type: hilbert}}",
           "{type: pieces, length: 3, inner: {type: zigzag}}",
           "{type: shared, inner: {type: cross}}",
           "{type: stack, parts: [{type: raster}, {type: window, size: 2}, {type: hilbert}]}",
           "{type: per_layer, parts: [{type: morton}, {type: hilbert}]}",
           "{type: bidirectional, inner: {type: zigzag, along: diagonals}}",
       }) {
    kinds.emplace_back(kind);
  }
  for (const char* axes : {"xzy", "yxz", "yzx", "zxy", "zyx"}) {
    kinds.push_back(std::string("{type: traverse, axes: ") + axes + "}");
    kinds.push_back(std::string("{type: traverse, published_key: true, axes: ") + axes + "}");
  }
  return kinds;
}

class Strategy : public ::testing::TestWithParam<std::tuple<std::string, Size>> {
 protected:
  void SetUp() override {
    if (std::get<0>(GetParam()).find("traverse") != std::string::npos)
      layout.height = layout.width = 0;  // a cloud of points
    cells = layout;
    layout.num_tokens = strategy->num_tokens(layout.num_tokens);
  }
  std::shared_ptr<Serialization> strategy = build(std::get<0>(GetParam()));
  TokenLayout layout = image(std::get<1>(GetParam()).height, std::get<1>(GetParam()).width);
  TokenLayout cells;  // the same without class tokens and further maps
};

TEST_P(Strategy, CoversItsPositions) {
  const ScanOrder order = draw(*strategy, layout, 1);
  EXPECT_EQ(order.num_tokens, layout.num_tokens);
  EXPECT_EQ(order.num_branches, strategy->num_branches());
  ASSERT_EQ(order.offsets.size(0), order.num_sequences() + 1);
  EXPECT_EQ(order.offsets[0].item<int64_t>(), 0);
  EXPECT_EQ(order.offsets[-1].item<int64_t>(), order.num_positions());
  EXPECT_TRUE((order.offsets.diff() >= 0).all().item<bool>());
  EXPECT_EQ(order.branch[-1].item<int64_t>() + 1, order.num_branches);
  EXPECT_TRUE((order.branch.diff() >= 0).all().item<bool>());
  EXPECT_TRUE((order.tokens < order.num_tokens).all().item<bool>());
}

TEST_P(Strategy, VisitsInvertTokens) {
  const ScanOrder order = draw(*strategy, layout, 1);
  const auto tokens = order.tokens.to(torch::kLong);
  ASSERT_EQ(tokens.dim(), 1);
  EXPECT_EQ((tokens >= 0).sum().item<int64_t>(), order.num_tokens * order.num_visits());
  const auto back =
      tokens.index_select(0, order.visits.flatten().to(torch::kLong)).view_as(order.visits);
  EXPECT_TRUE(back.equal(torch::arange(order.num_tokens).unsqueeze(1).expand_as(back)));
  if (order.identity) {
    EXPECT_TRUE(tokens.equal(torch::arange(order.num_tokens)));
  }
}

TEST_P(Strategy, RepeatsWithItsSeed) {
  const ScanOrder first = draw(*strategy, layout, 5), second = draw(*strategy, layout, 5);
  EXPECT_TRUE(first.tokens.equal(second.tokens));
  EXPECT_TRUE(first.offsets.equal(second.offsets));
}

TEST_P(Strategy, IsDrawn) {
  const ScanOrder order = draw(*strategy, layout, 1);
  const Drawing drawing = draw_order(order, cells);
  EXPECT_GT(drawing.width, 0);
  size_t places = 0;
  for (const auto& stroke : drawing.strokes) {
    for (const Spot& at : stroke.places) {
      EXPECT_TRUE(at.x >= 0 && at.x <= drawing.width && at.y >= 0 && at.y <= drawing.height);
    }
    places += stroke.places.size();
  }
  EXPECT_GE(places, static_cast<size_t>(order.num_tokens));
  const std::string text = svg(drawing);
  EXPECT_NE(text.find("<path"), std::string::npos);
  EXPECT_EQ(text.substr(text.size() - 7), "</svg>\n");
  EXPECT_EQ(text.find("nan"), std::string::npos);
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<std::string, Size>>& info) {
  const Size size = std::get<1>(info.param);
  std::string name;
  for (const char letter : std::get<0>(info.param).substr(6)) {
    if (std::isalnum(static_cast<unsigned char>(letter))) name += letter;
  }
  return name + "_" + std::to_string(size.height) + "x" + std::to_string(size.width);
}

INSTANTIATE_TEST_SUITE_P(All, Strategy,
                         ::testing::Combine(::testing::ValuesIn(all_kinds()),
                                            ::testing::Values(Size{1, 1}, Size{1, 7}, Size{5, 3},
                                                              Size{13, 11}, Size{8, 8})),
                         case_name);

TEST(Serialization, KnowsItsStrategies) {
  const auto names = registry().names();
  for (const char* name : {"atrous", "bidirectional", "continuous", "cross", "hilbert", "identity",
                           "learned", "morton", "random", "raster", "reorder", "reversed",
                           "shuffle", "traverse", "window", "zigzag"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

TEST(Serialization, DrawsEachWalkInItsPanel) {
  const auto captions = [](const std::string& yaml, int64_t height, int64_t width) {
    const TokenLayout layout = image(height, width);
    return draw_order(build(yaml)->order(layout, {}), layout).captions;
  };
  EXPECT_EQ(captions("{type: cross}", 4, 4).size(), 4u);              // branches
  EXPECT_EQ(captions("{type: continuous}", 4, 4).size(), 4u);         // walks of one branch
  EXPECT_EQ(captions("{type: pieces, length: 4}", 4, 4).size(), 1u);  // no token twice
  EXPECT_EQ(captions("{type: cross}", 4, 4)[2].text, "branch 2");
  EXPECT_EQ(captions("{type: continuous}", 4, 4)[2].text, "walk 2");
}

TEST(Serialization, DrawsPictures) {
  if (!images_available()) GTEST_SKIP() << "this build has no OpenCV";
  const TokenLayout layout = image(3, 5);
  const Drawing drawing = draw_order(build("{type: hilbert}")->order(layout, {}), layout);
  const torch::Tensor painted = picture(drawing, 1);
  EXPECT_EQ(painted.size(0), static_cast<int64_t>(std::ceil(drawing.height * drawing.scale)));
  EXPECT_LT(painted.min().item<int>(), 128);  // there is a line on the white
}

TEST(Serialization, ReversesPackedSamplesOneByOne) {
  TokenLayout layout;
  layout.num_tokens = 5;
  layout.sample_offsets = torch::tensor({0, 2, 5}, torch::kInt);
  const ScanOrder order = build("{type: reversed}")->order(layout, {});
  EXPECT_TRUE(order.tokens.equal(torch::tensor({1, 0, 4, 3, 2}, torch::kInt)));
  EXPECT_TRUE(order.offsets.equal(layout.sample_offsets));
}

TEST(Serialization, NestsStrategies) {
  const auto strategy = build("{type: bidirectional, inner: {type: reversed}}");
  EXPECT_EQ(strategy->num_branches(), 2);
  const ScanOrder order = strategy->order(image(1, 3), {});
  EXPECT_TRUE(order.tokens.equal(torch::tensor({2, 1, 0, 0, 1, 2}, torch::kInt)));
  EXPECT_TRUE(order.branch.equal(torch::tensor({0, 1}, torch::kInt)));
  EXPECT_EQ(order.num_visits(), 2);
}

TEST(Serialization, NamesTheKnownOnes) {
  try {
    build("{type: bidirectionl}");
    FAIL() << "an unknown strategy was built";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("bidirectional"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace serpentine::testing
