// Another strategy whose branches share one set of parameters, run apart or as one sequence.
//
// Joined, over `one_by_one`: the two orders of the points one after the other, Liang et al.,
// "PointMamba", arXiv 2402.10739.
#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/wrapper.h"

namespace serpentine {
namespace {

struct SharedOptions : InnerOptions {
  bool joined = false;
  void fields(Fields& f) {
    InnerOptions::fields(f);
    f("joined", joined, "one sequence: the state passes from each to the next");
  }
};

class Shared : public Wrapper {
 public:
  Shared(std::shared_ptr<Serialization> inner, bool joined)
      : Wrapper(std::move(inner)), joined_(joined) {}
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    ScanOrder order = inner_->order(layout, context);
    order.num_branches = 1;
    order.branch = at::zeros_like(order.branch);
    if (!joined_) return order;
    SERPENTINE_CHECK(!layout.sample_offsets.defined(), "shared",
                     "packed samples cannot be joined: one would see another");
    order.branch = order.branch.slice(0, 0, 1);
    order.offsets = at::cat({order.offsets.slice(0, 0, 1), order.offsets.slice(0, -1)});
    return order;
  }

 private:
  bool joined_;
};

}  // namespace

void add_shared(Registry<Serialization>& all) {
  all.add<SharedOptions>("shared", [&all](const SharedOptions& options) {
    return std::make_shared<Shared>(build_serialization(all, options.inner), options.joined);
  });
}

}  // namespace serpentine
