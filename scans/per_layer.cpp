// Layer i uses strategy i of a list, and the list begins again when it ends: six traverses over the
// layers of a point model, directions alternating from layer to layer.
#include "core/check.h"
#include "scans/serialization.h"

namespace serpentine {
namespace {

struct PerLayerOptions {
  std::vector<Config> parts;
  void fields(Fields& f) {
    f.nested("parts", parts, "the strategies, with equally many branches; default one identity",
             "serialization");
  }
};

class PerLayer : public Serialization {
 public:
  explicit PerLayer(std::vector<std::shared_ptr<Serialization>> parts) : parts_(std::move(parts)) {
    for (const auto& part : parts_) {
      SERPENTINE_CHECK(part->num_branches() == num_branches(), "per_layer", "all parts must have ",
                       num_branches(), " branches as the first, got ", part->num_branches());
    }
  }
  int64_t num_branches() const override { return parts_.front()->num_branches(); }
  int64_t num_tokens(int64_t cells) const override { return parts_.front()->num_tokens(cells); }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    return parts_[static_cast<size_t>(context.layer) % parts_.size()]->order(layout, context);
  }

 private:
  std::vector<std::shared_ptr<Serialization>> parts_;
};

}  // namespace

void add_per_layer(Registry<Serialization>& all) {
  all.add<PerLayerOptions>("per_layer", [&all](const PerLayerOptions& options) {
    return std::make_shared<PerLayer>(build_serializations(all, options.parts));
  });
}

}  // namespace serpentine
