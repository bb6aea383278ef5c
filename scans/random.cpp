// A random order: drawn anew at each training step, fixed by a seed otherwise.
#include <ATen/CPUGeneratorImpl.h>

#include "scans/walks.h"

namespace serpentine {
namespace {

struct RandomOptions {
  int64_t seed = 0;
  bool fixed = false;
  void fields(Fields& f) {
    f("seed", seed, "of the order used outside training", {.least = 0});
    f("fixed", fixed, "use that order in training too");
  }
};

class Random : public Serialization {
 public:
  explicit Random(const RandomOptions& options) : options_(options) {}
  int64_t num_branches() const override { return 1; }
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    if (context.training && !options_.fixed)
      return order_of({random_walk(layout, context)}, 1, layout);
    ScanContext seeded = context;
    seeded.generator =
        at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(options_.seed));
    return order_of({random_walk(layout, seeded)}, 1, layout);
  }

 private:
  RandomOptions options_;
};

}  // namespace

void add_random(Registry<Serialization>& all) {
  add_strategy<Random, RandomOptions>(all, "random");
}

}  // namespace serpentine
