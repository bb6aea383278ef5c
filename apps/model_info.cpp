#include "apps/model_info.h"

#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/measure.h"
#include "apps/model_file.h"
#include "apps/model_pass.h"
#include "apps/parity.h"
#include "apps/profile.h"
#include "apps/run.h"
#include "core/check.h"
#include "core/io/safetensors.h"
#include "core/ops/flop_count.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace serpentine {
namespace {

std::shared_ptr<Model> model_with_weights(const ModelInfoRequest& request) {
  torch::manual_seed(0);
  auto model = build_model(all_packages(), request.run, request.overrides);
  const auto weights = request.weights.empty() ? weights_of_run(request.run) : request.weights;
  if (weights.empty()) return model;
  const auto fit = load_state_dict(*model, read_weights(weights), model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", request.run, "\n", fit.text());
  return model;
}

}  // namespace

int model_info(const ModelInfoRequest& request) {
  const auto device = pick_device(request.device);
  const auto model = model_with_weights(request);
  const Batch batch = recorded_batch(read_safetensors(request.io).tensors, request.io).to(device);
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  double flops = 0;
  {
    FlopCount count;
    ModelPass(*model, device, request.precision, false)(batch);
    flops = count.total();
  }
  ModelPass pass(*model, device, request.precision, request.train);
  if (request.graph) pass.use_graph();
  const auto once = [&] { pass(batch); };
  const double peak = peak_bytes(once, device);
  const Timing timing = time_calls(once, request.warmup, 3, request.repeats, request.seconds);
  const auto rows = request.profile ? profile(once, device) : std::vector<ProfileRow>();
  const char* what = request.train ? "training step" : "forward";
  if (request.json) {
    nlohmann::json out = {{"model", request.run},
                          {"device", device.str()},
                          {"threads", at::get_num_threads()},
                          {"precision", request.precision},
                          {"what", what},
                          {"input", batch.input.sizes().vec()},
                          {"parameters", parameters},
                          {"flops", flops},
                          {"seconds", timing.median},
                          {"quartiles", {timing.low, timing.high}},
                          {"repetitions", timing.repeats},
                          {"peak_bytes", peak}};
    for (const auto& row : rows)
      out["profile"].push_back(
          {{"name", row.name}, {"seconds", row.seconds}, {"calls", row.calls}});
    std::cout << out.dump(1) << "\n";
    return 0;
  }
  std::printf("model       %s, on %s (%d threads), %s\nparameters  %s\ninput       %s\n",
              request.run.c_str(), device.str().c_str(), at::get_num_threads(),
              request.precision.c_str(), readable_count(parameters).c_str(),
              c10::str(batch.input.sizes()).c_str());
  std::printf("%-11s %.4g ms (middle half %.4g to %.4g, %lld repetitions), %s a forward pass",
              request.train ? "step" : "forward", 1e3 * timing.median, 1e3 * timing.low,
              1e3 * timing.high, static_cast<long long>(timing.repeats),
              amount(flops, "FLOP").c_str());
  if (peak >= 0) std::printf(", peak memory +%s", amount(peak, "B").c_str());
  std::printf("\n");
  if (request.profile) std::printf("\n%s", profile_text(rows).c_str());
  return 0;
}

}  // namespace serpentine
