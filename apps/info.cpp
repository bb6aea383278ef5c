// serpentine info: how large a model of images or of bags is, and how fast on this machine.
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/bag_info.h"
#include "apps/command.h"
#include "apps/image_run.h"
#include "apps/measure.h"
#include "apps/model_info.h"
#include "apps/model_pass.h"
#include "apps/run.h"
#include "core/ops/flop_count.h"

namespace serpentine {
namespace {

constexpr const char* kInfoFooter =
    R"(FLOPs are those of matrix products, convolutions and scans in one forward pass, a multiply-add
counted as two; published tables often count it as one. Times are of the forward pass without
gradients: warm-up first, then each repetition by itself with the device waited for, so that the
host's time counts; the median and the middle half of the repetitions are given. --train times a
training step: forward under the precision's autocast, the mean of the squared output in fp32,
backward, and AdamW, without reading data; with --tiles forward and backward only. Memory is what
the pass adds at its peak: resident memory on the CPU; on a GPU tensors, beyond the weights, the
inputs and the optimiser's averages. --io takes a model of any domain and what `parity` reads:
a file with the tensor `input`, and input.NAME for named inputs.
Examples:
  serpentine info runs/flowers
  serpentine info runs/flowers --batch 1 8 64 --threads 1 --json
  serpentine info runs/lung/fold_0 --tiles 10000 50000
  serpentine info model.yaml --tiles 100000 --train model.in_dim=1024 model.classes=2
  serpentine info configs/pointcloud/pcm.yaml --io clouds.safetensors --train --precision bf16)";

struct InfoArguments {
  std::string run, weights, io, device = "auto", precision = "fp32";
  std::vector<std::string> overrides;
  std::vector<int64_t> batch = {1, 16}, tiles;
  int64_t warmup = 3, repeats = 15, size = 0;
  double seconds = 10;
  bool json = false, train = false, profile = false, graph = false;
};

int run_info(const InfoArguments& arguments) {
  if (!arguments.tiles.empty()) {
    return bag_info({arguments.run, arguments.overrides, arguments.device, arguments.tiles,
                     arguments.warmup, arguments.repeats, arguments.seconds, arguments.train,
                     arguments.json});
  }
  if (!arguments.io.empty()) {
    return model_info({arguments.run, arguments.overrides, arguments.weights, arguments.io,
                       arguments.device, arguments.precision, arguments.warmup, arguments.repeats,
                       arguments.seconds, arguments.train, arguments.json, arguments.profile,
                       arguments.graph});
  }
  if (!arguments.weights.empty() || !arguments.overrides.empty())
    throw UsageError("info: --weights and overrides are for models with --io or --tiles");
  const ImageRun run = open_image_run(all_packages(), arguments.run, arguments.device);
  const auto& view = run.schema.view;
  const int64_t height = arguments.size > 0 ? arguments.size : view.height;
  const int64_t width = arguments.size > 0 ? arguments.size : view.width;
  int64_t parameters = 0;
  nlohmann::json parts = nlohmann::json::object();
  for (const auto& item : run.model->named_parameters()) {
    const std::string part = item.key().substr(0, item.key().find('.'));
    parameters += item.value().numel();
    parts[part] = parts.value(part, int64_t{0}) + item.value().numel();
  }
  const auto pictures = [&](int64_t batch) {
    Batch images;
    images.input = torch::zeros({batch, view.channels, height, width}, run.device);
    return images;
  };
  double flops = 0;
  nlohmann::json by_operator;
  {
    FlopCount count;
    ModelPass(*run.model, run.device, arguments.precision, false)(pictures(1));
    flops = count.total();
    by_operator = count.by_operator();
  }
  nlohmann::json out = {{"model", run.model_type},
                        {"device", run.device.str()},
                        {"threads", at::get_num_threads()},
                        {"precision", arguments.precision},
                        {"what", arguments.train ? "training step" : "forward"},
                        {"image_size", {height, width}},
                        {"parameters", parameters},
                        {"parameters_of", parts},
                        {"flops", flops},
                        {"flops_of", by_operator},
                        {"throughput", nlohmann::json::array()}};
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
  ModelPass pass(*run.model, run.device, arguments.precision, arguments.train);
  for (const int64_t batch : arguments.batch) {
    const auto once = [&pass, images = pictures(batch)] { pass(images); };
    const double peak = peak_bytes(once, run.device);
    const Timing timing =
        time_calls(once, arguments.warmup, 3, arguments.repeats, arguments.seconds);
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
  auto* command = app.add_subcommand("info", "Parameters, FLOPs, memory and speed of a model");
  command->footer(kInfoFooter);
  auto arguments = std::make_shared<InfoArguments>();
  command
      ->add_option("RUN", arguments->run,
                   "Folder of a finished training; with --io or --tiles also a YAML file")
      ->required();
  command
      ->add_option("OVERRIDES", arguments->overrides, "As model.in_dim=1024, with --io or --tiles")
      ->type_name("KEY=VALUE");
  command
      ->add_option("--tiles", arguments->tiles, "Tiles of a bag, several values: a model of bags")
      ->check(CLI::Range(int64_t{1}, int64_t{100000000}));
  command->add_flag("--train", arguments->train,
                    "A training step; with --tiles forward and backward");
  command->add_option("--io", arguments->io, "What the model reads (.safetensors): any model")
      ->excludes("--tiles");
  command->add_option("--weights", arguments->weights,
                      "With --io: checkpoint (default: the run's best, or new weights)");
  command->add_option("--batch", arguments->batch, "Pictures of a forward pass, several values")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}));
  command->add_option("--size", arguments->size, "Side of the pictures (default: the run's)")
      ->check(CLI::Range(int64_t{1}, int64_t{16384}));
  command->add_option("--warmup", arguments->warmup, "Passes before the first that counts")
      ->check(CLI::Range(int64_t{0}, int64_t{10000}))
      ->capture_default_str();
  command->add_option("--repeats", arguments->repeats, "Passes that count, at most")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  command->add_option("--seconds", arguments->seconds, "Seconds for them, at most")
      ->capture_default_str();
  command->add_option("--precision", arguments->precision, "fp32, tf32, bf16 or fp16")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16", "fp16"}))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "auto, cpu or cuda");
  command->add_flag("--json", arguments->json, "Print JSON");
  command
      ->add_flag("--profile", arguments->profile,
                 "With --io: where one pass' time goes, by kernel on a GPU, by operator on a CPU")
      ->needs("--io");
  command
      ->add_flag("--graph", arguments->graph,
                 "With --io and --train, on a GPU: forward and backward as one CUDA graph, as "
                 "trainer.cuda_graph does")
      ->needs("--io")
      ->needs("--train");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_info(*arguments); }; });
}

}  // namespace serpentine
