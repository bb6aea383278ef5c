// Several strategies side by side, each with its own parameters: a layer's list of directions.
#include "core/check.h"
#include "scans/serialization.h"

namespace serpentine {
namespace {

struct StackOptions {
  std::vector<Config> parts;
  void fields(Fields& f) {
    f.nested("parts", parts, "the strategies; default one identity", "serialization");
  }
};

class Stack : public Serialization {
 public:
  explicit Stack(std::vector<std::shared_ptr<Serialization>> parts) : parts_(std::move(parts)) {}
  int64_t num_branches() const override {
    int64_t sum = 0;
    for (const auto& part : parts_) sum += part->num_branches();
    return sum;
  }
  int64_t num_tokens(int64_t cells) const override { return parts_.front()->num_tokens(cells); }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    std::vector<ScanOrder> orders;
    int64_t visits = 0;
    for (const auto& part : parts_) {
      orders.push_back(part->order(layout, context));
      visits += orders.back().num_visits();
    }
    return stack(orders, visits);
  }

 private:
  std::vector<std::shared_ptr<Serialization>> parts_;
};

}  // namespace

void add_stack(Registry<Serialization>& all) {
  all.add<StackOptions>("stack", [&all](const StackOptions& options) {
    return std::make_shared<Stack>(build_serializations(all, options.parts));
  });
}

}  // namespace serpentine
