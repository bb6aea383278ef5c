// serpentine export: a trained image model as ONNX.
#include <iostream>
#include <set>
#include <string>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/image_run.h"
#include "core/export/export_onnx.h"
#include "core/io/atomic_file.h"

namespace serpentine {
namespace {

constexpr const char* kExportFooter =
    R"(The file is an opset-17 model for pictures of one size and a fixed batch: input "input"
[B, C, H, W], normalised as data.json says, output "output" [B, classes]: logits. The scan is the
standard operator Scan; nothing else is needed to run it. The model's classes and the numbers of the
normalisation stand in the metadata.
Example:
  serpentine export runs/flowers -o flowers.onnx)";

struct ExportArguments {
  std::string run, out;
  int64_t batch = 1, size = 0;
};

int run_export(const ExportArguments& arguments) {
  if (!arguments.out.ends_with(".onnx"))
    throw UsageError("export: --out must end in .onnx, got '" + arguments.out + "'");
  const ImageRun run = open_image_run(all_packages(), arguments.run, "cpu");
  for (auto& parameter : run.model->parameters()) parameter.requires_grad_(false);
  const auto& view = run.schema.view;
  const int64_t height = arguments.size > 0 ? arguments.size : view.height;
  const int64_t width = arguments.size > 0 ? arguments.size : view.width;
  torch::manual_seed(0);
  const auto example = torch::randn({arguments.batch, view.channels, height, width});
  const auto forward = [&](const torch::Tensor& images) {
    Batch batch;
    batch.input = images;
    return run.model->forward(batch);
  };
  const OnnxExport made = export_onnx(
      forward, example, {{"model", run.model_type}, {"data", run.schema.to_json().dump()}});
  write_atomically(arguments.out, made.bytes);
  std::cout << arguments.out << ": " << made.bytes.size() << " bytes;";
  for (const auto& [name, count] : made.operators) std::cout << " " << name << " " << count;
  std::cout << "\n";
  const std::set<std::string> compared = {"resnet", "vmamba", "medmamba", "vim",
                                          "efficient_vmamba"};
  if (compared.count(run.model_type) == 0) {
    std::cout << "note  files of " << run.model_type << " have not been compared with our outputs: "
              << "compare with `serpentine predict` before you use this one\n";
  }
  return 0;
}

}  // namespace

void add_export_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("export", "A trained image model as ONNX");
  command->footer(kExportFooter);
  auto arguments = std::make_shared<ExportArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training on images")->required();
  command->add_option("-o,--out", arguments->out, "File: NAME.onnx")->required();
  command->add_option("--batch", arguments->batch, "Pictures at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command->add_option("--size", arguments->size, "Side of the pictures (default: the run's)")
      ->check(CLI::Range(int64_t{1}, int64_t{16384}));
  command->callback(
      [&action, arguments] { action = [arguments] { return run_export(*arguments); }; });
}

}  // namespace serpentine
