#include "apps/bag_info.h"

#include <cmath>
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/measure.h"
#include "apps/model_file.h"
#include "apps/packages.h"
#include "apps/run.h"
#include "core/ops/flop_count.h"
#include "core/train/trainer.h"
#include "pathology/bag_model.h"

namespace serpentine {
namespace {

/// One slide: tiles on a square, row by row.
Batch random_bag(int64_t tiles, int64_t width, torch::Device device) {
  constexpr int64_t kCell = 512;
  const auto side = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(tiles))));
  const auto place = torch::arange(tiles);
  Batch bag;
  torch::manual_seed(0);
  bag.input = torch::randn({tiles, width});
  bag.coords =
      kCell * torch::stack({place.remainder(side), place.floor_divide(side)}, 1).to(torch::kFloat);
  bag.target = torch::zeros({1}, torch::kLong);
  bag = bag.to(device);
  bag.offsets = torch::tensor({int64_t{0}, tiles}, torch::kInt);
  return bag;
}

void learn(BagModel& model, const Batch& bag) {
  model.zero_grad();
  const BagOutput out = model.read(bag, true);
  auto loss = out.logits.square().sum();
  if (out.loss.defined()) loss = loss + out.loss;
  loss.backward();
}

}  // namespace

int bag_info(const BagInfoRequest& request) {
  const Config config = Config::load(yaml_of(request.run), request.overrides).child("model");
  const auto given = YAML::Load(config.yaml());
  if (!given["in_dim"] || !given["classes"]) {
    throw UsageError("info: " + request.run +
                     " does not say the sizes of its model: add model.in_dim=1024 model.classes=2");
  }
  const auto model = std::dynamic_pointer_cast<BagModel>(all_packages().models.build(config));
  if (!model)
    throw UsageError("info: the model of " + request.run + " does not read bags of tiles");
  const auto device = pick_device(request.device);
  const auto width = given["in_dim"].as<int64_t>();
  model->to(device);
  model->train(request.train);
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  nlohmann::json out = {{"model", config.type()},
                        {"device", device.str()},
                        {"threads", at::get_num_threads()},
                        {"parameters", parameters},
                        {"what", request.train ? "forward and backward" : "forward"},
                        {"bags", nlohmann::json::array()}};
  if (!request.json) {
    std::printf("model       %s, on %s (%d threads), %s\nparameters  %s\n", config.type().c_str(),
                device.str().c_str(), at::get_num_threads(),
                request.train ? "forward and backward" : "forward",
                readable_count(parameters).c_str());
  }
  for (const int64_t tiles : request.tiles) {
    const Batch bag = random_bag(tiles, width, device);
    const torch::AutoGradMode learning(request.train);
    const auto once = [&] {
      if (request.train) {
        learn(*model, bag);
      } else {
        model->read(bag, false);
      }
      if (device.is_cuda()) torch::cuda::synchronize();
    };
    FlopCount count;
    const double peak = peak_bytes(once, device);
    const double flops = count.total();
    const Timing timing = time_calls(once, request.warmup, 1, request.repeats, request.seconds);
    out["bags"].push_back({{"tiles", tiles},
                           {"seconds", timing.median},
                           {"quartiles", {timing.low, timing.high}},
                           {"repetitions", timing.repeats},
                           {"flops", flops},
                           {"bag_bytes", static_cast<double>(tiles * width * 4)},
                           {"peak_bytes", peak}});
    if (request.json) continue;
    std::printf("%9lld tiles  %.4g s (middle half %.4g to %.4g, %lld repetitions), %s, features %s",
                static_cast<long long>(tiles), timing.median, timing.low, timing.high,
                static_cast<long long>(timing.repeats), amount(flops, "FLOP").c_str(),
                amount(static_cast<double>(tiles * width * 4), "B").c_str());
    if (peak >= 0) std::printf(", peak memory +%s", amount(peak, "B").c_str());
    std::printf("\n");
    std::fflush(stdout);
  }
  if (request.json) std::cout << out.dump(1) << "\n";
  return 0;
}

}  // namespace serpentine
