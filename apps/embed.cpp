// serpentine embed: what a layer of a trained model makes of pictures.
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/image_run.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/hdf5.h"
#include "core/io/npy.h"
#include "core/io/safetensors.h"

namespace serpentine {
namespace {

constexpr const char* kEmbedFooter =
    R"(One row a picture, float32; their names stand in NAME.paths.txt beside the file, line by line (in
the .h5 as the array `paths`, too). `--layer list` names the layers; maps and tokens are averaged
over their places, or kept whole with --whole.
Examples:
  serpentine embed runs/flowers photos/ -o features.npy
  serpentine embed runs/flowers photos/ -o features.h5 --layer output
  serpentine embed runs/flowers --split test -o features.safetensors)";

struct EmbedArguments {
  std::string run, split, out, layer = "features", device = "auto";
  std::vector<std::string> images;
  int64_t batch = 64;
  bool whole = false;
};

bool ends(const std::string& text, const char* with) { return text.ends_with(with); }

/// [B, C, h, w] or [B, T, C] -> [B, C].
torch::Tensor over_places(const torch::Tensor& layer) {
  if (layer.dim() == 4) return layer.mean({2, 3});
  if (layer.dim() == 3) return layer.mean(1);
  return layer;
}

int list_layers(const ImageRun& run, const std::map<std::string, torch::Tensor>& trace) {
  std::cout << "layers of " << run.model_type << ":\n";
  for (const auto& [name, tensor] : trace) {
    std::string shape;
    for (const int64_t extent : tensor.sizes().slice(1)) shape += " " + std::to_string(extent);
    std::cout << "  " << name << " " << shape << "\n";
  }
  return 0;
}

void write(const EmbedArguments& arguments, const torch::Tensor& features,
           const torch::Tensor& targets, const std::vector<std::string>& names) {
  const std::string& out = arguments.out;
  const bool labelled = targets.ge(0).all().item<bool>();
  if (ends(out, ".npy")) {
    write_npy(out, features);
  } else if (ends(out, ".safetensors")) {
    StateDict tensors = {{"features", features}};
    if (labelled) tensors.emplace_back("labels", targets);
    write_safetensors(out, tensors, {{"layer", arguments.layer}, {"run", arguments.run}});
  } else {
    Hdf5Writer file(out);
    file.write("features", features);
    if (labelled) file.write("labels", targets);
    file.write_texts("paths", names);
    file.set_attributes("", {{"layer", arguments.layer}, {"run", arguments.run}});
    file.finish();
  }
  std::string lines;
  for (const auto& name : names) lines += name + "\n";
  write_atomically(out + ".paths.txt", lines);
}

int run_embed(const EmbedArguments& arguments) {
  const std::string& out = arguments.out;
  const bool listing = arguments.layer == "list";
  if (!listing && !ends(out, ".npy") && !ends(out, ".h5") && !ends(out, ".safetensors"))
    throw UsageError("embed: --out must end in .npy, .h5 or .safetensors, got '" + out + "'");
  if (arguments.images.empty() == arguments.split.empty() && !listing)
    throw UsageError("embed: give pictures or --split, one of the two");
  const Packages packages = all_packages();
  const ImageRun run = open_image_run(packages, arguments.run, arguments.device);
  std::map<std::string, torch::Tensor> trace;
  run.model->trace = &trace;
  const auto& view = run.schema.view;
  if (listing) {
    const torch::NoGradGuard no_grad;
    Batch batch;
    batch.input = torch::zeros({1, view.channels, view.height, view.width}, run.device);
    trace["output"] = run.model->forward(batch);
    return list_layers(run, trace);
  }
  const std::shared_ptr<const ImageDataset> images =
      arguments.split.empty() ? picture_files(run, arguments.images)
                              : part_of_run(packages, run, arguments.split);
  std::vector<torch::Tensor> rows, targets;
  std::vector<std::string> names;
  run_over(run, *images, arguments.batch, "pictures",
           [&](const Batch& batch, const torch::Tensor& output) {
             trace["output"] = output;
             const auto found = trace.find(arguments.layer);
             TORCH_CHECK(found != trace.end(), arguments.run, ": the model has no layer '",
                         arguments.layer, "'; `serpentine embed ", arguments.run,
                         " --layer list` names them");
             const auto layer = arguments.whole ? found->second : over_places(found->second);
             rows.push_back(layer.to(torch::kCPU, torch::kFloat32).contiguous());
             targets.push_back(batch.target);
             const auto index = batch.get("index");
             for (int64_t i = 0; i < index.size(0); ++i)
               names.push_back(images->name(index[i].item<int64_t>()));
           });
  TORCH_CHECK(!rows.empty(), arguments.run, ": none of the pictures could be read");
  const auto features = torch::cat(rows);
  write(arguments, features, torch::cat(targets), names);
  std::cout << out << ": " << features.sizes() << "\n";
  return 0;
}

}  // namespace

void add_embed_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("embed", "Features of pictures from a layer of a model");
  command->footer(kEmbedFooter);
  auto arguments = std::make_shared<EmbedArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training on images")->required();
  command->add_option("IMAGES", arguments->images, "Pictures, or folders of them");
  command->add_option("--split", arguments->split, "Instead: a part of the run's own data")
      ->check(CLI::IsMember({"train", "validation", "test"}));
  command->add_option("-o,--out", arguments->out, "File: .npy, .h5 or .safetensors");
  command->add_option("--layer", arguments->layer, "Which layer; `list` names them")
      ->capture_default_str();
  command->add_flag("--whole", arguments->whole, "Keep maps and tokens, do not average them");
  command->add_option("--batch", arguments->batch, "Pictures that the model sees at once")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "auto, cpu or cuda");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_embed(*arguments); }; });
}

}  // namespace serpentine
