// A volume forwards, backwards, and pixel after pixel through all slices.
//
// Xing et al., "SegMamba", arXiv 2401.13560, section 3.2: tri-orientated Mamba. The third walk goes
// from a pixel of one slice to the same pixel of the next, then to the next pixel.
#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/walks.h"

namespace serpentine {
namespace {

struct SliceOptions {
  int64_t slices = 0;
  void fields(Fields& f) {
    f("slices", slices,
      "equal parts that the tokens are cut into; 0: the volume's slices (published: 64, 32, 16 and "
      "8 in the four stages, whatever the volume)",
      {.least = 0});
  }
};

/// int64 [T]: token j of slice 0, of slice 1, ..., then token j + 1.
at::Tensor through_slices(const TokenLayout& layout, int64_t slices) {
  const int64_t parts = slices > 0 ? slices : layout.depth, tokens = layout.num_tokens;
  SERPENTINE_CHECK(parts > 0 && tokens % parts == 0, "inter_slice", tokens,
                   " tokens cannot be cut into ", parts,
                   " slices; set `slices` to 0 or choose another size of the volume");
  return at::arange(tokens, at::TensorOptions(at::kLong).device(layout.device))
      .view({parts, tokens / parts})
      .t()
      .reshape({-1});
}

class InterSlice : public Serialization {
 public:
  explicit InterSlice(const SliceOptions& options) : options_(options) {}
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    return cache_.get(layout, [&] {
      TokenLayout host = layout;
      host.device = at::kCPU;
      return order_of({through_slices(host, options_.slices)}, 1, host);
    });
  }

 private:
  SliceOptions options_;
  OrderCache cache_;
};

class TriOrientated : public Serialization {
 public:
  explicit TriOrientated(const SliceOptions& options) : options_(options) {}
  int64_t num_branches() const override { return 3; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    return cache_.get(layout, [&] {
      TokenLayout host = layout;
      host.device = at::kCPU;
      const auto ahead = at::arange(layout.num_tokens, at::kLong);
      return order_of({ahead, ahead.flip(0), through_slices(host, options_.slices)}, 3, host);
    });
  }

 private:
  SliceOptions options_;
  OrderCache cache_;
};

}  // namespace

void add_inter_slice(Registry<Serialization>& all) {
  add_strategy<InterSlice, SliceOptions>(all, "inter_slice");
}

void add_tri_orientated(Registry<Serialization>& all) {
  add_strategy<TriOrientated, SliceOptions>(all, "tri_orientated");
}

}  // namespace serpentine
