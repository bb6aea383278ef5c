// serpentine weights: looks into a checkpoint, converts it, compares it with a model.
#include <algorithm>
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"
#include "core/train/checkpoint.h"

namespace serpentine {
namespace {

constexpr const char* kWeightsFooter =
    R"(Reads .safetensors and PyTorch's .pth, .pt and .bin by content, not by name. Pickled code is never
run: classes other than tensors and plain containers are skipped. A file that is neither is refused
with the place where reading stopped.
Examples:
  serpentine weights model.pth                          list the tensors
  serpentine weights model.pth --to model.safetensors   convert (and back: --to model.pth)
  serpentine weights model.pth --model run.yaml         what fits the model of a YAML, what does not)";

struct WeightsOptions {
  std::string file, to, model;
  std::vector<std::string> overrides;
};

std::string shape_text(const torch::Tensor& tensor) {
  std::string text = "[";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(tensor.size(axis));
  }
  return text + "]";
}

void list(const StateDict& weights) {
  size_t width = 6;
  int64_t elements = 0;
  for (const auto& [name, tensor] : weights) width = std::max(width, name.size());
  for (const auto& [name, tensor] : weights) {
    elements += tensor.numel();
    const auto values = tensor.to(torch::kFloat64);
    const double rms = tensor.numel() ? values.square().mean().sqrt().item<double>() : 0;
    std::printf("%-*s  %-10s %-20s rms %.4g\n", static_cast<int>(width), name.c_str(),
                c10::toString(tensor.scalar_type()), shape_text(tensor).c_str(), rms);
  }
  std::printf("%zu tensors, %s values\n", weights.size(), readable_count(elements).c_str());
}

int compare(const WeightsOptions& options) {
  const Packages packages = all_packages();
  const auto model = build_model(packages, options.model, options.overrides);
  const LoadReport report =
      load_state_dict(*model, read_weights(options.file), model->tolerated_keys());
  std::cout << report.text();
  if (!report.ok()) return 1;
  std::cout << options.file << " fits the model of " << options.model << "\n";
  return 0;
}

int run_weights(const WeightsOptions& options) {
  const StateDict weights = read_state_dict(options.file);
  if (!options.to.empty()) {
    const bool pickle = options.to.ends_with(".pth") || options.to.ends_with(".pt");
    if (pickle) {
      write_torch_state_dict(options.to, weights);
    } else if (options.to.ends_with(".safetensors")) {
      write_safetensors(options.to, weights);
    } else {
      throw UsageError("--to must end in .safetensors, .pth or .pt, got '" + options.to + "'");
    }
    std::cout << options.to << ": " << weights.size() << " tensors written\n";
  }
  if (!options.model.empty()) return compare(options);
  if (options.to.empty()) list(weights);
  return 0;
}

}  // namespace

void add_weights_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("weights", "List, convert or compare a checkpoint's tensors");
  command->footer(kWeightsFooter);
  auto options = std::make_shared<WeightsOptions>();
  command->add_option("FILE", options->file, "Checkpoint")->required();
  command->add_option("OVERRIDES", options->overrides, "Overrides of the YAML of --model")
      ->type_name("KEY=VALUE");
  command->add_option("--to", options->to, "File to write: .safetensors, .pth or .pt");
  command->add_option("--model", options->model, "YAML or run folder whose model is compared");
  command->callback([&action, options] { action = [options] { return run_weights(*options); }; });
}

}  // namespace serpentine
