// Another strategy's sequences, each walked from its end.
#include "scans/serialization.h"

namespace serpentine {
namespace {

struct ReversedOptions {
  Config inner;
  void fields(Fields& f) {
    f.nested("inner", inner, "the strategy to reverse; default identity", "serialization");
  }
};

class Reversed : public Serialization {
 public:
  explicit Reversed(std::shared_ptr<Serialization> inner) : inner_(std::move(inner)) {}
  int64_t num_branches() const override { return inner_->num_branches(); }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    return reversed(inner_->order(layout, context));
  }

 private:
  std::shared_ptr<Serialization> inner_;
};

}  // namespace

void add_reversed(Registry<Serialization>& all) {
  all.add<ReversedOptions>("reversed", [&all](const ReversedOptions& options) {
    return std::make_shared<Reversed>(build_serialization(all, options.inner));
  });
}

}  // namespace serpentine
