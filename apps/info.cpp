// serpentine info: how large a trained model is, and how fast on this machine.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/image_run.h"
#include "apps/run.h"
#include "core/ops/flop_count.h"
#include "core/train/precision.h"

namespace serpentine {
namespace {

constexpr const char* kInfoFooter =
    R"(FLOPs are those of matrix products, convolutions and scans in one forward pass, a multiply-add
counted as two; published tables often count it as one. Times are of the forward pass without
gradients: warm-up first, then each repetition by itself with the device waited for; the median and
the middle half of the repetitions are given. Memory is what the forward pass adds at its peak.
Examples:
  serpentine info runs/flowers
  serpentine info runs/flowers --batch 1 8 64 --threads 1 --json)";

struct InfoArguments {
  std::string run, device = "auto", precision = "fp32";
  std::vector<int64_t> batch = {1, 16};
  int64_t warmup = 3, repeats = 15, size = 0;
  double seconds = 10;
  bool json = false;
};

/// Peak and present resident memory of this process in bytes, from /proc/self/status; 0: unknown.
double memory_line(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) == 0) return 1024 * std::stod(line.substr(std::string(key).size()));
  }
  return 0;
}

/// Bytes that `act` adds at its peak on the host; -1 where the system does not tell.
double peak_bytes(const std::function<void()>& act) {
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts from here
  const double before = memory_line("VmRSS:");
  act();
  const double peak = memory_line("VmHWM:");
  return before > 0 && peak > 0 ? std::max(0.0, peak - before) : -1;
}

struct Timing {
  int64_t batch = 0, repeats = 0;
  double median = 0, low = 0, high = 0;  // seconds a forward pass: median and quartiles
};

Timing time_forward(const InfoArguments& arguments, const std::function<void()>& forward,
                    int64_t batch) {
  using Clock = std::chrono::steady_clock;
  for (int64_t i = 0; i < arguments.warmup; ++i) forward();
  std::vector<double> times;
  const auto begin = Clock::now();
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  while (static_cast<int64_t>(times.size()) < arguments.repeats &&
         (times.size() < 3 || since(begin) < arguments.seconds)) {
    const auto start = Clock::now();
    forward();
    times.push_back(since(start));
  }
  std::sort(times.begin(), times.end());
  const size_t count = times.size();
  return {batch, static_cast<int64_t>(count), times[count / 2], times[count / 4],
          times[count - 1 - count / 4]};
}

std::string amount(double value, const char* unit) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t at = 0;
  for (; value >= 1000 && at < 5; ++at) value /= 1000;
  char text[48];
  std::snprintf(text, sizeof text, "%.3g %s%s", value, prefixes[at], unit);
  return text;
}

int run_info(const InfoArguments& arguments) {
  const ImageRun run = open_image_run(all_packages(), arguments.run, arguments.device);
  const auto& view = run.schema.view;
  const int64_t height = arguments.size > 0 ? arguments.size : view.height;
  const int64_t width = arguments.size > 0 ? arguments.size : view.width;
  const torch::NoGradGuard no_grad;
  int64_t parameters = 0;
  nlohmann::json parts = nlohmann::json::object();
  for (const auto& item : run.model->named_parameters()) {
    const std::string part = item.key().substr(0, item.key().find('.'));
    parameters += item.value().numel();
    parts[part] = parts.value(part, int64_t{0}) + item.value().numel();
  }
  const auto forward = [&](int64_t batch) {
    Batch images;
    images.input = torch::zeros({batch, view.channels, height, width}, run.device);
    return [&run, images, &arguments] {
      const Autocast autocast(run.device.type(), autocast_type(arguments.precision));
      run.model->forward(images);
      if (run.device.is_cuda()) torch::cuda::synchronize();
    };
  };
  double flops = 0;
  nlohmann::json by_operator;
  {
    FlopCount count;
    forward(1)();
    flops = count.total();
    by_operator = count.by_operator();
  }
  nlohmann::json out = {
      {"model", run.model_type},          {"device", run.device.str()},
      {"threads", at::get_num_threads()}, {"precision", arguments.precision},
      {"image_size", {height, width}},    {"parameters", parameters},
      {"parameters_of", parts},           {"flops", flops},
      {"flops_of", by_operator},          {"throughput", nlohmann::json::array()}};
  if (!arguments.json) {
    std::printf("model       %s, %lld x %lld, on %s (%d threads), %s\n", run.model_type.c_str(),
                static_cast<long long>(height), static_cast<long long>(width),
                run.device.str().c_str(), at::get_num_threads(), arguments.precision.c_str());
    std::printf("parameters  %s (", readable_count(parameters).c_str());
    const char* comma = "";
    for (const auto& [name, size] : parts.items()) {
      std::printf("%s%s %s", comma, name.c_str(), readable_count(size).c_str());
      comma = ", ";
    }
    std::printf(")\nFLOPs       %s a picture (", amount(flops, "FLOP").c_str());
    comma = "";
    for (const auto& [name, value] : by_operator.items()) {
      std::printf("%s%s %.3g %%", comma, name.c_str(), 100 * value.get<double>() / flops);
      comma = ", ";
    }
    std::printf(")\n");
  }
  for (const int64_t batch : arguments.batch) {
    const auto once = forward(batch);
    const double peak = run.device.is_cpu() ? peak_bytes(once) : -1;
    const Timing timing = time_forward(arguments, once, batch);
    const auto rate = [&](double seconds) { return static_cast<double>(batch) / seconds; };
    out["throughput"].push_back({{"batch", batch},
                                 {"images_per_second", rate(timing.median)},
                                 {"quartiles", {rate(timing.high), rate(timing.low)}},
                                 {"repetitions", timing.repeats},
                                 {"peak_bytes", peak}});
    if (arguments.json) continue;
    std::printf(
        "batch %-5lld %.4g images/s (middle half %.4g to %.4g, %lld repetitions, %.4g ms each)",
        static_cast<long long>(batch), rate(timing.median), rate(timing.high), rate(timing.low),
        static_cast<long long>(timing.repeats), 1e3 * timing.median);
    if (peak >= 0) std::printf(", peak memory +%s", amount(peak, "B").c_str());
    std::printf("\n");
  }
  if (arguments.json) std::cout << out.dump(1) << "\n";
  return 0;
}

}  // namespace

void add_info_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("info", "Parameters, FLOPs, memory and speed of an image model");
  command->footer(kInfoFooter);
  auto arguments = std::make_shared<InfoArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training on images")->required();
  command->add_option("--batch", arguments->batch, "Pictures of a forward pass, several values")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}));
  command->add_option("--size", arguments->size, "Side of the pictures (default: the run's)")
      ->check(CLI::Range(int64_t{1}, int64_t{16384}));
  command->add_option("--warmup", arguments->warmup, "Passes before the first that counts")
      ->check(CLI::Range(int64_t{0}, int64_t{10000}))
      ->capture_default_str();
  command->add_option("--repeats", arguments->repeats, "Passes that count, at most")
      ->check(CLI::Range(int64_t{3}, int64_t{100000}))
      ->capture_default_str();
  command->add_option("--seconds", arguments->seconds, "Seconds for them, at most")
      ->capture_default_str();
  command->add_option("--precision", arguments->precision, "fp32, bf16 or fp16")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "auto, cpu or cuda");
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_info(*arguments); }; });
}

}  // namespace serpentine
