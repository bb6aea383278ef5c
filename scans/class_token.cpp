// Class tokens, the last of the T tokens, put among the tokens of another strategy's sequences.
//
// Middle: Zhu et al., "Vision Mamba", arXiv 2401.09417. Spread (registers): Wang et al.,
// "Mamba-Reg", arXiv 2405.14858.
#include <algorithm>
#include <vector>

#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/wrapper.h"

namespace serpentine {
namespace {

struct ClassTokenOptions : InnerOptions {
  std::string position = "middle";
  int64_t count = 1;
  void fields(Fields& f) {
    InnerOptions::fields(f);
    f("position", position,
      "first, middle (before token L / 2 of L), last, both ends, or spread evenly",
      {.choices = {"first", "middle", "last", "both", "spread"}});
    f("count", count, "class tokens, if they are spread", {.least = 1});
  }
};

class ClassToken : public Wrapper {
 public:
  ClassToken(std::shared_ptr<Serialization> inner, const ClassTokenOptions& options)
      : Wrapper(std::move(inner)), options_(options) {}
  int64_t num_tokens(int64_t cells) const override {
    return inner_->num_tokens(cells) + static_cast<int64_t>(places(0).size());
  }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    SERPENTINE_CHECK(!layout.sample_offsets.defined(), "class_token",
                     "packed samples would share their class tokens");
    const auto count = static_cast<int64_t>(places(0).size());
    TokenLayout others = layout;
    others.num_tokens -= count;
    const ScanOrder inner = inner_->order(others, context);
    const at::Tensor offsets = inner.offsets.to(at::kCPU, at::kLong);
    std::vector<at::Tensor> pieces;
    std::vector<int64_t> shape = inner.tokens.sizes().vec();
    shape.back() = 1;
    for (int64_t s = 0; s < inner.num_sequences(); ++s) {
      const int64_t begin = offsets[s].item<int64_t>(), end = offsets[s + 1].item<int64_t>();
      int64_t done = begin;
      for (int64_t c = 0; c < count; ++c) {
        const int64_t place = begin + places(end - begin)[static_cast<size_t>(c)];
        pieces.push_back(inner.tokens.slice(-1, done, place));
        pieces.push_back(at::full(shape, others.num_tokens + c, inner.tokens.options()));
        done = place;
      }
      pieces.push_back(inner.tokens.slice(-1, done, end));
    }
    const at::Tensor shift = at::arange(inner.num_sequences() + 1, at::kLong) * count;
    return make_order(at::cat(pieces, -1), offsets + shift, inner.branch.cpu(), layout.num_tokens,
                      std::max(inner.num_visits(), inner.num_sequences()));
  }

 private:
  /// Before which of a sequence's `length` positions each class token stands.
  std::vector<int64_t> places(int64_t length) const {
    if (options_.position == "first") return {0};
    if (options_.position == "middle") return {length / 2};
    if (options_.position == "last") return {length};
    if (options_.position == "both") return {0, length};
    std::vector<int64_t> spread;
    for (int64_t c = 1; c <= options_.count; ++c)
      spread.push_back(c * (length / (options_.count + 1)));
    return spread;
  }

  ClassTokenOptions options_;
};

}  // namespace

void add_class_token(Registry<Serialization>& all) {
  all.add<ClassTokenOptions>("class_token", [&all](const ClassTokenOptions& options) {
    return std::make_shared<ClassToken>(build_serialization(all, options.inner), options);
  });
}

}  // namespace serpentine
