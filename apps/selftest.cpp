// serpentine selftest: are the operators right on this machine, and how fast is the scan?
#include "apps/selftest.h"

#include <chrono>
#include <cstdio>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "core/ops/scan_device.h"

namespace serpentine {

void CheckResult::compare(const std::string& what, const torch::Tensor& actual,
                          const torch::Tensor& expected, bool is_gradient) {
  if (!problem.empty()) return;
  if (actual.sizes() != expected.sizes()) {
    problem = what + " has another shape";
    return;
  }
  if (expected.numel() == 0) return;
  const auto a = actual.detach().to(torch::kCPU, torch::kDouble);
  const auto e = expected.detach().to(torch::kCPU, torch::kDouble);
  if (!torch::isfinite(a).all().item<bool>() || !torch::isfinite(e).all().item<bool>()) {
    problem = what + " is not finite";
    return;
  }
  const double largest = e.abs().max().item<double>();
  const double error = (a - e).abs().max().item<double>() / (largest > 0 ? largest : 1);
  double& worst = is_gradient ? gradient : output;
  worst = std::max(worst, error);
}

namespace {

constexpr const char* kSelftestFooter =
    R"(Each row compares an operator with a second implementation: the largest error of its outputs
and of its gradients, over the largest value, and what is allowed. "Bound" is the time that
this machine's own memory bandwidth and rate of exponentials, both measured, leave to a scan.
Exit code 1 when a check fails.
Examples:
  serpentine selftest                    the CPU, and the GPU if this build has its kernels
  serpentine selftest --device cpu --no-speed)";

struct SelftestArguments {
  std::string device = "auto";
  bool no_speed = false;
};

std::vector<torch::Device> devices_of(const std::string& name) {
  const bool gpu = torch::cuda::is_available() && cuda::is_built();
  if (name == "cuda" && !gpu) {
    throw UsageError(cuda::is_built() ? "selftest: this machine has no usable CUDA GPU"
                                      : "selftest: this build has no CUDA kernels");
  }
  std::vector<torch::Device> devices;
  if (name != "cuda") devices.emplace_back(torch::kCPU);
  if (name != "cpu" && gpu) devices.emplace_back(torch::kCUDA, static_cast<c10::DeviceIndex>(0));
  return devices;
}

std::string number(double value, double allowed) {
  if (allowed == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

bool print(const CheckResult& result, const char* device) {
  const bool has_gradient = result.gradient_allowed > 0, has_output = result.output_allowed > 0;
  const std::string errors =
      has_output || has_gradient
          ? number(result.output, 1) + " / " + number(result.gradient, result.gradient_allowed)
          : "-";
  const std::string allowed = has_output || has_gradient
                                  ? number(result.output_allowed, result.output_allowed) + " / " +
                                        number(result.gradient_allowed, result.gradient_allowed)
                                  : "-";
  std::printf("%-5s %-26s %-30s %5d  %-17s %-17s %s\n", device, result.name.c_str(),
              result.against.c_str(), result.cases, errors.c_str(), allowed.c_str(),
              result.ok()              ? "ok"
              : result.problem.empty() ? "FAILED"
                                       : ("FAILED: " + result.problem).c_str());
  std::fflush(stdout);
  return result.ok();
}

/// A check that throws has failed, and the others go on.
template <class Check>
auto guarded(const std::string& name, const Check& check) -> decltype(check()) {
  using Result = decltype(check());
  CheckResult failed{name, "", 0, 0, 0, 0, 0, ""};
  try {
    return check();
  } catch (const c10::Error& error) {
    failed.problem = error.what_without_backtrace();
  } catch (const std::exception& error) {
    failed.problem = error.what();
  }
  if constexpr (std::is_same_v<Result, CheckResult>) {
    return failed;
  } else {
    return {failed};
  }
}

int check_device(torch::Device device) {
  const char* name = device.is_cuda() ? "cuda" : "cpu";
  std::vector<CheckResult> results;
  int failures = 0;
  const auto report = [&](const CheckResult& result) { failures += print(result, name) ? 0 : 1; };
  for (const auto& result : guarded("scan", [&] { return check_scan(device); })) report(result);
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    report(guarded("convolution", [&] { return check_convolution(device, type); }));
  }
  report(guarded("gather and merge", [&] { return check_rows(device); }));
  report(guarded("norm with residual", [&] { return check_norms(device); }));
  if (device.is_cpu()) report(guarded("serializations", [] { return check_orders(); }));
  return failures;
}

void print_speed(torch::Device device) {
  const Speed speed = measure_speed(device);
  std::printf("\n%s: %.3g GB/s of memory, %.3g billion exponentials a second\n",
              device.is_cuda() ? "cuda" : "cpu", speed.bandwidth * 1e-9, speed.exponentials * 1e-9);
  std::printf("  %-36s %12s %8s %12s %8s\n", "scan, float32", "forward", "bound", "backward",
              "bound");
  for (const auto& scan : speed.scans) {
    std::printf("  %-36s %9.3f ms %6.0f %% %9.3f ms %6.0f %%\n", scan.shape.c_str(),
                scan.forward * 1e3, 100 * scan.forward_bound / scan.forward, scan.backward * 1e3,
                100 * scan.backward_bound / scan.backward);
  }
}

int run_selftest(const SelftestArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  std::printf("%-5s %-26s %-30s %5s  %-17s %-17s\n", "", "operator", "compared with", "cases",
              "worst error", "allowed");
  const auto devices = devices_of(arguments.device);
  int failures = 0;
  for (const auto& device : devices) failures += check_device(device);
  if (!arguments.no_speed) {
    for (const auto& device : devices) print_speed(device);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("\n%s in %.0f s\n",
              failures == 0 ? "All checks passed" : (std::to_string(failures) + " failed").c_str(),
              seconds.count());
  return failures == 0 ? 0 : 1;
}

}  // namespace

void add_selftest_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("selftest", "Check the operators on this machine, and time the scan");
  command->footer(kSelftestFooter);
  auto arguments = std::make_shared<SelftestArguments>();
  command->add_option("--device", arguments->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_flag("--no-speed", arguments->no_speed, "Only check, time nothing");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_selftest(*arguments); }; });
}

}  // namespace serpentine
