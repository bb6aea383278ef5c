// The example of docs/scans.md: an order of 40 lines.
#include <ATen/ATen.h>

#include "scans/cells.h"
#include "support/close.h"

namespace serpentine {
namespace {

struct SpiralOptions : CellOptions {
  bool inwards = false;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("inwards", inwards, "from the outermost ring to the middle");
  }
};

class Spiral : public CellStrategy {
 public:
  explicit Spiral(const SpiralOptions& options)
      : CellStrategy(options.cell), inwards_(options.inwards) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    const at::Tensor x = cells.axis('x') - cells.size('x').div(2, "floor");
    const at::Tensor y = cells.axis('y') - cells.size('y').div(2, "floor");
    const at::Tensor key = at::maximum(x.abs(), y.abs()) * 8 + at::atan2(y, x);
    return {inwards_ ? -key : key};
  }

 private:
  bool inwards_;
};

}  // namespace

void add_spiral(Registry<Serialization>& all) {
  add_strategy<Spiral, SpiralOptions>(all, "spiral");
}

namespace testing {
namespace {

TEST(Serialization, ANewOrderIsOneFunction) {
  Registry<Serialization> all("serialization");
  add_spiral(all);
  const auto strategy = build_serialization(all, Config::parse("{type: spiral}"));
  TokenLayout layout;
  layout.height = layout.width = 5;
  layout.num_tokens = 25;
  const ScanOrder order = strategy->order(layout, {});
  EXPECT_EQ(order.tokens[0].item<int64_t>(), 12);  // the middle
  EXPECT_TRUE(std::get<0>(order.tokens.sort()).equal(torch::arange(25, torch::kInt)));
  const auto ring = order.tokens.slice(0, 1, 9).to(torch::kLong);
  const auto row = ring.div(5, "floor") - 2, column = ring % 5 - 2;
  EXPECT_EQ(torch::maximum(row.abs(), column.abs()).max().item<int64_t>(), 1);
}

}  // namespace
}  // namespace testing
}  // namespace serpentine
