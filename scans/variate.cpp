// Series as tokens: along the variates, or along time when each variate has several patches.
//
// One token a variate: Wang et al., "Is Mamba Effective for Time Series Forecasting?", arXiv
// 2403.11144. With patches, the layout's height counts variates and its width patches.
#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/walks.h"

namespace serpentine {
namespace {

struct VariateOptions {
  std::string along = "variates";
  std::vector<int64_t> sequence;
  void fields(Fields& f) {
    f("along", along, "variates: one run a patch; time: one run a variate",
      {.choices = {"variates", "time"}});
    f("sequence", sequence, "the variates in the order of their visit; empty: as they lie",
      {.least = 0});
  }
};

class Variate : public Serialization {
 public:
  explicit Variate(const VariateOptions& options) : options_(options) {}
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    SERPENTINE_CHECK(!layout.sample_offsets.defined(), "variate",
                     "the series of a batch share one order; they cannot be packed");
    const int64_t variates = layout.height > 0 ? layout.height : layout.num_tokens;
    const int64_t patches = layout.height > 0 ? layout.width : 1;
    SERPENTINE_CHECK(layout.num_tokens == variates * patches, "variate",
                     "T must be variates x patches = ", variates, " x ", patches, ", got ",
                     layout.num_tokens);
    at::Tensor grid = at::arange(layout.num_tokens, at::kLong).view({variates, patches});
    if (!options_.sequence.empty()) {
      const at::Tensor sequence = at::tensor(options_.sequence, at::kLong);
      SERPENTINE_CHECK(std::get<0>(sequence.sort()).equal(at::arange(variates, at::kLong)),
                       "variate", "sequence must name each of the ", variates,
                       " variates once, got ", options_.sequence);
      grid = grid.index_select(0, sequence);
    }
    if (options_.along == "variates") grid = grid.t();
    const ScanOrder runs = order_of({grid.flatten()}, 1, layout);
    return split(runs, std::max<int64_t>(1, grid.size(1))).to(layout.device);
  }

 private:
  VariateOptions options_;
};

}  // namespace

void add_variate(Registry<Serialization>& all) {
  add_strategy<Variate, VariateOptions>(all, "variate");
}

}  // namespace serpentine
