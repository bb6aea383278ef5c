// Another strategy whose K branches each read a map of their own: T is K times its tokens, and
// branch k has the tokens from k T / K on. VMamba's program calls this one-by-one.
#include <vector>

#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/wrapper.h"

namespace serpentine {
namespace {

class OneByOne : public Wrapper {
 public:
  using Wrapper::Wrapper;
  int64_t num_tokens(int64_t cells) const override {
    return num_branches() * inner_->num_tokens(cells);
  }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    const int64_t maps = num_branches();
    SERPENTINE_CHECK(layout.num_tokens % maps == 0, "one_by_one",
                     "T must be a multiple of K = ", maps, ", got ", layout.num_tokens);
    SERPENTINE_CHECK(!layout.sample_offsets.defined(), "one_by_one",
                     "packed samples have no maps of equal size");
    TokenLayout map = layout;
    map.num_tokens /= maps;
    const ScanOrder order = inner_->order(map, context);

    // the branch of each position, of which pads stay pads
    const at::Tensor lengths = order.offsets.diff().to(at::kLong);
    const at::Tensor own = at::repeat_interleave(order.branch, lengths, 0, order.num_positions());
    const at::Tensor tokens =
        at::where(order.tokens >= 0, order.tokens + own * map.num_tokens, order.tokens);
    const int64_t visits = order.complete ? order.num_visits() / maps : order.num_visits();
    return with_tokens(order, tokens, layout.num_tokens, visits);
  }
};

}  // namespace

void add_one_by_one(Registry<Serialization>& all) { add_wrapper<OneByOne>(all, "one_by_one"); }

}  // namespace serpentine
