// Another strategy's sequences and their reverses; each direction has its own parameters.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Algorithm 1.
#include "scans/wrapper.h"

namespace serpentine {
namespace {

class Bidirectional : public Wrapper {
 public:
  using Wrapper::Wrapper;
  int64_t num_branches() const override { return 2 * inner_->num_branches(); }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    const ScanOrder forward = inner_->order(layout, context);
    return stack({forward, reversed(forward)}, 2 * forward.num_visits());
  }
};

}  // namespace

void add_bidirectional(Registry<Serialization>& all) {
  add_wrapper<Bidirectional>(all, "bidirectional");
}

}  // namespace serpentine
