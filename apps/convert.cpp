// serpentine convert: a published checkpoint of an image model becomes a model folder.
#include <filesystem>
#include <fstream>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/packages.h"
#include "core/io/atomic_file.h"
#include "core/io/state_dict.h"
#include "vision/image_model.h"
#include "vision/image_source.h"
#include "vision/recognise.h"

namespace serpentine {
namespace {

constexpr const char* kConvertFooter =
    R"(Recognises vim, vmamba (both key layouts), efficient_vmamba, shuffle_mamba, plain_mamba, medmamba and
resnet (torchvision's names) by the names and shapes of their tensors. Writes DIR/config.yaml, whose
`model` is complete, and DIR/checkpoints/best.safetensors: a folder that other commands take for a
run, with DIR/data.json: pictures as ImageNet's are prepared (crop ratio 0.875, bicubic, its mean
and deviation) and the names of the classes (--classes), else their numbers. Position embeddings are resized when image_size is given. What did not match is listed, and the
exit code is then 1.
Examples:
  serpentine convert vim_t_midclstok_76p1acc.pth -o models/vim_tiny
  serpentine convert vim_t_midclstok_76p1acc.pth -o models/vim_tiny --classes imagenet.txt
  serpentine convert vim_t_midclstok_76p1acc.pth -o models/vim_384 image_size=[384]
  serpentine convert shuffle_base.pth -o models/shuffle class_token=first)";

struct ConvertOptions {
  std::string file, out, classes;
  std::vector<std::string> overrides;
};

/// The names in `file`, one a line, or numbers.
std::vector<std::string> class_names(const std::string& file, int64_t count) {
  std::vector<std::string> names;
  if (file.empty()) {
    for (int64_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
    return names;
  }
  std::ifstream text(file);
  if (!text.good()) throw UsageError(file + ": cannot be read");
  for (std::string line; std::getline(text, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (static_cast<int64_t>(names.size()) != count) {
    throw UsageError(file + ": holds " + std::to_string(names.size()) + " names, the model has " +
                     std::to_string(count) + " classes");
  }
  return names;
}

/// What pictures a checkpoint was trained on, as far as its shapes and the published recipes say.
ImageSchema schema_of(const nlohmann::json& chosen, const ConvertOptions& options) {
  nlohmann::json sizes = nlohmann::json::object();
  std::vector<std::string> overrides;
  for (const char* key : {"classes", "channels", "image_size"}) {
    if (chosen.contains(key)) sizes[key] = chosen.at(key);
    for (const auto& one : options.overrides) {
      if (one.rfind(std::string(key) + "=", 0) == 0) overrides.push_back("model." + one);
    }
  }
  const auto known = Config::parse(nlohmann::json{{"model", sizes}}.dump(), options.file, overrides)
                         .child("model")
                         .read<ImageModelOptions>();
  ImageSchema schema;
  schema.classes = class_names(options.classes, known.classes);
  schema.view.height = known.height();
  schema.view.width = known.width();
  schema.view.channels = known.channels;
  schema.view.bicubic = true;
  const bool colours = known.channels == 3;
  const auto planes = static_cast<size_t>(known.channels);
  schema.view.mean = colours ? std::vector<double>{0.485, 0.456, 0.406} : std::vector(planes, 0.5);
  schema.view.deviation =
      colours ? std::vector<double>{0.229, 0.224, 0.225} : std::vector(planes, 0.5);
  return schema;
}

int run_convert(const ConvertOptions& options) {
  Recognised found = recognise(read_state_dict(options.file));
  std::cout << options.file << ": " << (found.size.empty() ? found.family : found.size) << "\n";
  for (const auto& note : found.notes) std::cout << "  " << note << "\n";

  std::vector<std::string> overrides;
  for (const auto& one : options.overrides) overrides.push_back("model." + one);
  const auto chosen = nlohmann::json::parse(found.options);
  const Config config =
      Config::parse(nlohmann::json{{"model", chosen}}.dump(1), options.file, overrides);
  const ImageSchema schema = schema_of(chosen, options);
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
  write_atomically((folder / "data.json").string(), schema.to_json().dump(1) + "\n");
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
  command->add_option("--classes", options->classes, "Text file: a class name a line");
  command
      ->add_option("OVERRIDES", options->overrides, "Options of the model that names cannot tell")
      ->type_name("KEY=VALUE");
  command->callback([&action, options] { action = [options] { return run_convert(*options); }; });
}

}  // namespace serpentine
