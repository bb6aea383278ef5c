// Another strategy's sequences, each walked from its end.
#include "scans/wrapper.h"

namespace serpentine {
namespace {

class Reversed : public Wrapper {
 public:
  using Wrapper::Wrapper;
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    return reversed(inner_->order(layout, context));
  }
};

}  // namespace

void add_reversed(Registry<Serialization>& all) { add_wrapper<Reversed>(all, "reversed"); }

}  // namespace serpentine
