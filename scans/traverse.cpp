// Points along three axes, snaking through lines and planes: one of six orders.
//
// Zhang et al., "Point Cloud Mamba", arXiv 2403.00762.
#include "scans/cells.h"

namespace serpentine {
namespace {

struct TraverseOptions : CellOptions {
  std::string axes = "xyz";
  bool published_key = false;
  TraverseOptions() { cell = 0.02; }
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("axes", axes, "the axes, the fastest first",
      {.choices = {"xyz", "xzy", "yxz", "yzx", "zxy", "zyx"}});
    f("published_key", published_key,
      "for the authors' weights: their program's key, which sorts by the first axis only, in a "
      "direction that depends on the whole batch");
  }
};

class Traverse : public CellStrategy {
 public:
  explicit Traverse(const TraverseOptions& options)
      : CellStrategy(options.cell),
        axes_(options.axes),
        rule_(options.published_key ? SnakeRule::kPublished : SnakeRule::kPaper) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    return {snake_key(cells, axes_, rule_)};
  }

 private:
  std::string axes_;
  SnakeRule rule_;
};

}  // namespace

void add_traverse(Registry<Serialization>& all) {
  add_strategy<Traverse, TraverseOptions>(all, "traverse");
}

}  // namespace serpentine
