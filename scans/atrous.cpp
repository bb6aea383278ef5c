// An image's tokens in s x s groups that skip s - 1 rows and columns; each is a branch.
//
// Pei et al., "EfficientVMamba", arXiv 2403.09977. Groups, their directions and the
// zero padding of sizes that s does not divide are those of its program, which has s = 2 only.
#include <ATen/ATen.h>

#include "scans/walks.h"

namespace serpentine {
namespace {

struct AtrousOptions {
  int64_t step = 2;
  void fields(Fields& f) { f("step", step, "distance of a group's tokens", {.least = 1}); }
};

class Atrous : public GridStrategy {
 public:
  explicit Atrous(const AtrousOptions& options) : step_(options.step) {}
  int64_t num_branches() const override { return step_ * step_; }

 protected:
  std::vector<at::Tensor> walks(const at::Tensor& grid) const override {
    const int64_t height = grid.size(0), width = grid.size(1);
    const int64_t below = (step_ - height % step_) % step_, right = (step_ - width % step_) % step_;
    const at::Tensor padded = at::constant_pad_nd(grid, {0, right, 0, below}, kPad);
    std::vector<at::Tensor> groups;
    for (int64_t column = 0; column < step_; ++column) {
      for (int64_t row = 0; row < step_; ++row) {
        const at::Tensor group =
            padded.slice(0, row, height + below, step_).slice(1, column, width + right, step_);
        groups.push_back((row % 2 == 1 ? group.t() : group).flatten());
      }
    }
    return groups;
  }

 private:
  int64_t step_;
};

}  // namespace

void add_atrous(Registry<Serialization>& all) {
  add_strategy<Atrous, AtrousOptions>(all, "atrous");
}

}  // namespace serpentine
