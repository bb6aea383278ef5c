#include <ATen/ATen.h>

#include <iostream>

#include "core/ops/selective_scan.h"

int main() {
  serpentine::SelectiveScanArgs args;
  args.u = at::ones({1, 5, 2});
  args.delta = at::ones({1, 5, 1, 2});
  args.A = -at::ones({1, 2, 4});
  args.B = args.C = at::ones({1, 5, 1, 4});
  const auto y = serpentine::selective_scan(args, serpentine::identity_order(5)).y;
  std::cout << "scanned " << y.size(0) << " x " << y.size(1) << " x " << y.size(2) << "\n";
}
