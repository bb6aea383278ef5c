// The tokens as they lie; packed samples are sequences of their own.
#include "scans/serialization.h"

namespace serpentine {
namespace {

struct IdentityOptions {
  void fields(Fields&) {}
};

class Identity : public Serialization {
 public:
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    if (layout.sample_offsets.defined())
      return ragged_order(layout.sample_offsets).to(layout.device);
    return identity_order(layout.num_tokens, layout.device);
  }
};

}  // namespace

void add_identity(Registry<Serialization>& all) {
  all.add<IdentityOptions>("identity",
                           [](const IdentityOptions&) { return std::make_shared<Identity>(); });
}

}  // namespace serpentine
