// serpentine convert: a published checkpoint of an image model becomes a model folder.
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/packages.h"
#include "core/io/atomic_file.h"
#include "core/io/state_dict.h"
#include "vision/image_model.h"
#include "vision/recognise.h"

namespace serpentine {
namespace {

constexpr const char* kConvertFooter =
    R"(Recognises vim, vmamba (both key layouts), efficient_vmamba, shuffle_mamba, plain_mamba, medmamba and
resnet (torchvision's names) by the names and shapes of their tensors. Writes DIR/config.yaml, whose
`model` is complete, and DIR/checkpoints/best.safetensors: a folder that other commands take for a
run. Position embeddings are resized when image_size is given. What did not match is listed, and the
exit code is then 1.
Examples:
  serpentine convert vim_t_midclstok_76p1acc.pth -o models/vim_tiny
  serpentine convert vim_t_midclstok_76p1acc.pth -o models/vim_384 image_size=[384]
  serpentine convert shuffle_base.pth -o models/shuffle class_token=first)";

struct ConvertOptions {
  std::string file, out;
  std::vector<std::string> overrides;
};

int run_convert(const ConvertOptions& options) {
  Recognised found = recognise(read_state_dict(options.file));
  std::cout << options.file << ": " << (found.size.empty() ? found.family : found.size) << "\n";
  for (const auto& note : found.notes) std::cout << "  " << note << "\n";

  std::vector<std::string> overrides;
  for (const auto& one : options.overrides) overrides.push_back("model." + one);
  const auto chosen = nlohmann::json::parse(found.options);
  const Config config =
      Config::parse(nlohmann::json{{"model", chosen}}.dump(1), options.file, overrides);
  const Packages packages = all_packages();
  const auto model =
      std::dynamic_pointer_cast<ImageModel>(packages.models.build(config.child("model")));
  if (!model) throw UsageError("type must be that of an image model");
  const LoadReport report =
      load_state_dict(*model, model->adapt(std::move(found.weights)), model->tolerated_keys());
  std::cout << report.text();

  const std::filesystem::path folder = options.out;
  std::filesystem::create_directories(folder / "checkpoints");
  const auto tensors = state_dict(*model);
  write_weights((folder / "checkpoints" / "best.safetensors").string(), tensors);
  write_atomically((folder / "config.yaml").string(), config.yaml());
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  std::cout << folder.string() << ": " << tensors.size() << " tensors, " << parameters
            << " parameters\n";
  return report.ok() ? 0 : 1;
}

}  // namespace

void add_convert_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("convert", "Recognise a checkpoint of an image model and convert it");
  command->footer(kConvertFooter);
  auto options = std::make_shared<ConvertOptions>();
  command->add_option("FILE", options->file, "Checkpoint: .pth, .pt, .bin, .ckpt or .safetensors")
      ->required();
  command->add_option("-o,--out", options->out, "Folder to write")->required();
  command
      ->add_option("OVERRIDES", options->overrides, "Options of the model that names cannot tell")
      ->type_name("KEY=VALUE");
  command->callback([&action, options] { action = [options] { return run_convert(*options); }; });
}

}  // namespace serpentine
