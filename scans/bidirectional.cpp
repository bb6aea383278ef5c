// Another strategy's sequences and their reverses; each direction has its own parameters.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Algorithm 1.
#include "scans/serialization.h"

namespace serpentine {
namespace {

struct BidirectionalOptions {
  Config inner;
  void fields(Fields& f) {
    f.nested("inner", inner, "the strategy walked both ways; default identity", "serialization");
  }
};

class Bidirectional : public Serialization {
 public:
  explicit Bidirectional(std::shared_ptr<Serialization> inner) : inner_(std::move(inner)) {}
  int64_t num_branches() const override { return 2 * inner_->num_branches(); }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    const ScanOrder forward = inner_->order(layout, context);
    return stack({forward, reversed(forward)});
  }

 private:
  std::shared_ptr<Serialization> inner_;
};

}  // namespace

void add_bidirectional(Registry<Serialization>& all) {
  all.add<BidirectionalOptions>("bidirectional", [&all](const BidirectionalOptions& options) {
    return std::make_shared<Bidirectional>(build_serialization(all, options.inner));
  });
}

}  // namespace serpentine
