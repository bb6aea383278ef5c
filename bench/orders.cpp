// What an order costs on the CPU: the selective scan through a cross-scan and through a random
// order, over the same scan without an order.
//
// scan_orders [THREADS [ROUNDS]]: one line a case. The orders take turns; what is printed is the
// least processor time of each (of all threads), which other work on the machine disturbs least.
#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "core/ops/selective_scan.h"

namespace serpentine::bench {
namespace {

struct Case {
  int64_t batch, channels, height, width, states;
};

/// Rows, columns and both from their ends.
ScanOrder cross_order(int64_t height, int64_t width) {
  const auto offsets = at::tensor({int64_t{0}, height * width}), branch = at::zeros({1}, at::kLong);
  const auto columns = at::arange(height * width).view({height, width}).t().flatten();
  const ScanOrder rows = identity_order(height * width);
  const ScanOrder down = make_order(columns, offsets, branch, height * width);
  return stack({rows, down, reversed(rows), reversed(down)});
}

/// Four branches that all read the tokens as they lie.
ScanOrder four_times(int64_t tokens) {
  const ScanOrder one = identity_order(tokens);
  return stack({one, one, one, one});
}

ScanOrder random_order(int64_t tokens) {
  return make_order(at::randperm(tokens), at::tensor({int64_t{0}, tokens}),
                    at::zeros({1}, at::kLong), tokens);
}

SelectiveScanArgs random_args(const Case& shape, int64_t branches) {
  const int64_t tokens = shape.height * shape.width;
  SelectiveScanArgs args;
  args.u = torch::randn({shape.batch, tokens, shape.channels});
  args.delta = torch::randn({shape.batch, tokens, branches, shape.channels}) * 0.5 - 4;
  args.A = -torch::arange(1, shape.states + 1, torch::kFloat)
                .expand({branches, shape.channels, shape.states})
                .contiguous();
  args.B = torch::randn({shape.batch, tokens, branches, shape.states});
  args.C = torch::randn({shape.batch, tokens, branches, shape.states});
  return args;
}

double processor_ms() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

double milliseconds(SelectiveScanArgs args, const ScanOrder& order, const torch::Tensor& dy,
                    bool backward) {
  const double start = processor_ms();
  if (backward) {
    std::vector<torch::Tensor> inputs;
    for (torch::Tensor* input : {&args.u, &args.delta, &args.A, &args.B, &args.C}) {
      *input = input->detach().requires_grad_();
      inputs.push_back(*input);
    }
    torch::autograd::grad({selective_scan(args, order).y}, inputs, {dy});
  } else {
    const torch::NoGradGuard guard;
    selective_scan(args, order);
  }
  return processor_ms() - start;
}

/// The least times of the two orders, in turn.
std::array<double, 2> compare(const Case& shape, const ScanOrder& plain, const ScanOrder& other,
                              bool backward, int rounds) {
  const SelectiveScanArgs args = random_args(shape, plain.num_branches);
  const auto dy = torch::randn_like(args.u);
  std::array<double, 2> least = {1e30, 1e30};
  for (int round = 0; round <= rounds; ++round) {
    const std::array<double, 2> now = {milliseconds(args, plain, dy, backward),
                                       milliseconds(args, other, dy, backward)};
    for (size_t i = 0; round > 0 && i < 2; ++i) least[i] = std::min(least[i], now[i]);
  }
  return least;
}

void run(int rounds) {
  std::printf("| (B, D, H, W, N) | order | pass | identity, ms | through the order, ms | over |\n");
  std::printf("| --- | --- | --- | --- | --- | --- |\n");
  for (const Case& shape :
       {Case{1, 384, 14, 14, 16}, Case{8, 384, 14, 14, 16}, Case{1, 192, 56, 56, 16},
        Case{8, 384, 14, 14, 1}, Case{1, 192, 56, 56, 1}}) {
    const int64_t tokens = shape.height * shape.width;
    const std::pair<const char*, std::array<ScanOrder, 2>> orders[] = {
        {"cross", {four_times(tokens), cross_order(shape.height, shape.width)}},
        {"random", {identity_order(tokens), random_order(tokens)}}};
    for (const auto& [name, pair] : orders) {
      for (const bool backward : {false, true}) {
        const auto least = compare(shape, pair[0], pair[1], backward, rounds);
        std::printf("| (%d, %d, %d, %d, %d) | %s | %s | %.3f | %.3f | %+.1f %% |\n",
                    static_cast<int>(shape.batch), static_cast<int>(shape.channels),
                    static_cast<int>(shape.height), static_cast<int>(shape.width),
                    static_cast<int>(shape.states), name, backward ? "both" : "forward", least[0],
                    least[1], 100 * (least[1] / least[0] - 1));
      }
    }
  }
}

}  // namespace
}  // namespace serpentine::bench

int main(int argc, char** argv) {
  at::set_num_threads(argc > 1 ? std::stoi(argv[1]) : 1);
  torch::manual_seed(1);
  serpentine::bench::run(argc > 2 ? std::stoi(argv[2]) : 50);
  return 0;
}
