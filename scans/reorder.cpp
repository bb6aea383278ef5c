// A bag as it lies, and read with a stride: tokens 0, R, 2R, ..., then 1, R + 1, ...
//
// Yang et al., "MambaMIL", arXiv 2403.06800. The strided walk has R equal parts; those
// that run out of tokens end with a pad, as in its program.
#include <ATen/ATen.h>

#include "scans/walks.h"

namespace serpentine {
namespace {

struct ReorderOptions {
  int64_t rate = 10;
  bool plain = true;
  void fields(Fields& f) {
    f("rate", rate, "R, the stride", {.least = 1});
    f("plain", plain, "a first branch with the tokens as they lie; false: the strided walk alone");
  }
};

class Reorder : public Serialization {
 public:
  explicit Reorder(const ReorderOptions& options) : options_(options) {}
  int64_t num_branches() const override { return options_.plain ? 2 : 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    const auto on_device = at::TensorOptions().dtype(at::kLong).device(layout.device);
    const std::vector<int64_t> bounds = sample_bounds(layout);
    std::vector<at::Tensor> walks = {at::empty({0}, on_device)};
    std::vector<int64_t> offsets = {0};
    for (size_t s = 1; s < bounds.size(); ++s) {
      const int64_t length = bounds[s] - bounds[s - 1];
      const int64_t padded = (length + options_.rate - 1) / options_.rate * options_.rate;
      const at::Tensor token =
          at::arange(padded, on_device).view({-1, options_.rate}).t().flatten();
      walks.push_back(at::where(token < length, token + bounds[s - 1], at::full_like(token, kPad)));
      offsets.push_back(offsets.back() + padded);
    }
    const at::Tensor branch = at::zeros({static_cast<int64_t>(bounds.size()) - 1}, at::kLong);
    const ScanOrder strided = make_order(at::cat(walks), at::tensor(offsets, at::kLong), branch,
                                         layout.num_tokens, /*num_visits=*/1);
    if (!options_.plain) return strided;
    const at::Tensor as_they_lie = at::tensor(bounds, at::kLong);
    return stack({ragged_order(as_they_lie).to(layout.device), strided}, /*num_visits=*/2);
  }

 private:
  ReorderOptions options_;
};

}  // namespace

void add_reorder(Registry<Serialization>& all) {
  add_strategy<Reorder, ReorderOptions>(all, "reorder");
}

}  // namespace serpentine
