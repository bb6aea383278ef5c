// Tokens by a score that the model gives them (layout.keys).
//
// Sorting has no gradient: a model that learns its scores lets them weigh the tokens as well.
#include "core/check.h"
#include "scans/walks.h"

namespace serpentine {
namespace {

struct LearnedOptions {
  bool descending = false;
  void fields(Fields& f) { f("descending", descending, "the highest score first"); }
};

class Learned : public Serialization {
 public:
  explicit Learned(const LearnedOptions& options) : descending_(options.descending) {}
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    check_shape("learned", layout.keys, "keys", {-1, layout.num_tokens}, "B, T");
    at::Tensor key = layout.keys.detach().to(layout.device);
    if (layout.sample_offsets.defined()) key = key.squeeze(0);
    return order_of({sorted_walk(descending_ ? -key : key, layout)}, 1, layout);
  }

 private:
  bool descending_;
};

}  // namespace

void add_learned(Registry<Serialization>& all) {
  add_strategy<Learned, LearnedOptions>(all, "learned");
}

}  // namespace serpentine
