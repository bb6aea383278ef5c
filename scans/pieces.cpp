// Another strategy cut into runs of equal length that start from a zero state: one a row of an
// image (length: its width), one a window (length: its tokens).
#include "scans/wrapper.h"

namespace serpentine {
namespace {

struct PiecesOptions : InnerOptions {
  int64_t length = 64;
  void fields(Fields& f) {
    InnerOptions::fields(f);
    f("length", length, "positions of a piece; the last may be shorter", {.least = 1});
  }
};

class Pieces : public Wrapper {
 public:
  Pieces(std::shared_ptr<Serialization> inner, int64_t length)
      : Wrapper(std::move(inner)), length_(length) {}
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    return split(inner_->order(layout, context), length_);
  }

 private:
  int64_t length_;
};

}  // namespace

void add_pieces(Registry<Serialization>& all) {
  all.add<PiecesOptions>("pieces", [&all](const PiecesOptions& options) {
    return std::make_shared<Pieces>(build_serialization(all, options.inner), options.length);
  });
}

}  // namespace serpentine
