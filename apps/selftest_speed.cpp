// Times the scan beside the bound that a device's own rates give.
#include <algorithm>
#include <chrono>
#include <functional>

#include <torch/torch.h>

#include "apps/selftest.h"
#include "core/ops/exp_rate.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

using torch::Tensor;

void wait(c10::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize();
}

/// The median of some runs, in seconds; at most a second or two in all.
double median_seconds(c10::Device device, const std::function<void()>& run) {
  run();
  wait(device);
  std::vector<double> times;
  double all = 0;
  while (times.size() < 3 || (times.size() < 30 && all < 1)) {
    const auto start = std::chrono::steady_clock::now();
    run();
    wait(device);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    times.push_back(seconds.count());
    all += times.back();
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// Bytes read and written a second by a copy that no cache holds.
double copy_bandwidth(c10::Device device) {
  const int64_t count = (device.is_cuda() ? int64_t{1} << 30 : int64_t{128} << 20) / 4;
  const auto from = torch::ones({count}, torch::device(device));
  auto to = torch::zeros_like(from);
  const double seconds = median_seconds(device, [&] { to.copy_(from); });
  return 8.0 * static_cast<double>(count) / seconds;
}

SpeedResult time_scan(c10::Device device, const Speed& rates, int64_t batch, int64_t channels,
                      int64_t length, int64_t states) {
  const auto on = torch::device(device);
  const auto leaf = [](const Tensor& tensor) { return tensor.detach().requires_grad_(true); };
  SelectiveScanArgs args;
  args.u = leaf(torch::randn({batch, length, channels}, on));
  args.delta = leaf(torch::randn({batch, length, 1, channels}, on) * 0.5);
  args.A = leaf(-(torch::rand({1, channels, states}, on) + 0.5));
  args.B = leaf(torch::randn({batch, length, 1, states}, on));
  args.C = leaf(torch::randn({batch, length, 1, states}, on));
  args.D = leaf(torch::ones({1, channels}, on));
  args.delta_bias = leaf(torch::zeros({1, channels}, on) - 3);
  const ScanOrder order = identity_order(length, device);
  SpeedResult result;
  result.shape = "(" + std::to_string(batch) + ", " + std::to_string(channels) + ", " +
                 std::to_string(length) + "), " + std::to_string(states) + " states";
  {
    const torch::NoGradGuard no_gradients;
    result.forward = median_seconds(device, [&] { selective_scan(args, order); });
  }
  // the backward pass alone: the same graph, walked again and again
  const auto y = selective_scan(args, order).y;
  const auto cotangent = torch::randn_like(y);
  const std::vector<Tensor> leaves = {args.u, args.delta, args.A,         args.B,
                                      args.C, args.D,     args.delta_bias};
  result.backward = median_seconds(
      device, [&] { torch::autograd::grad({y}, leaves, {cotangent}, /*retain_graph=*/true); });

  const auto elements = static_cast<double>(batch * channels * length);
  const double rows = 4.0 * static_cast<double>(batch * length);
  const auto bound = [&](double planes, double state_rows, double exponentials) {
    const double bytes =
        rows * (planes * static_cast<double>(channels) + state_rows * static_cast<double>(states));
    return std::max(bytes / rates.bandwidth,
                    elements * (static_cast<double>(states) + exponentials) / rates.exponentials);
  };
  result.forward_bound = bound(3, 2, 2);
  result.backward_bound = bound(5, 4, 3);
  return result;
}

}  // namespace

Speed measure_speed(c10::Device device) {
  Speed speed;
  speed.bandwidth = copy_bandwidth(device);
  speed.exponentials = exp_rate(device);
  // large enough that no cache holds the rows of the second, which memory binds
  speed.scans.push_back(time_scan(device, speed, device.is_cuda() ? 64 : 4, 384, 196, 16));
  speed.scans.push_back(time_scan(device, speed, device.is_cuda() ? 256 : 32, 192, 784, 1));
  return speed;
}

}  // namespace serpentine
