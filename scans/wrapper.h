// A strategy made from another one: the option and the member that all such strategies share.
#pragma once

#include "scans/serialization.h"

namespace serpentine {

struct InnerOptions {
  Config inner;
  void fields(Fields& f) {
    f.nested("inner", inner, "the strategy to build upon; default identity", "serialization");
  }
};

class Wrapper : public Serialization {
 public:
  explicit Wrapper(std::shared_ptr<Serialization> inner) : inner_(std::move(inner)) {}
  int64_t num_branches() const override { return inner_->num_branches(); }
  int64_t num_tokens(int64_t cells) const override { return inner_->num_tokens(cells); }

 protected:
  std::shared_ptr<Serialization> inner_;
};

/// Registers a wrapper that has no other option.
template <class Strategy>
void add_wrapper(Registry<Serialization>& all, const std::string& name) {
  all.add<InnerOptions>(name, [&all](const InnerOptions& options) {
    return std::make_shared<Strategy>(build_serialization(all, options.inner));
  });
}

}  // namespace serpentine
