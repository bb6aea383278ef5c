// serpentine parity: does our model give what the original gave? For users who port a checkpoint.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/parity.h"
#include "apps/run.h"
#include "core/io/safetensors.h"

namespace serpentine {
namespace {

constexpr const char* kParityFooter =
    R"(IO.safetensors holds what the original read and gave, in evaluation mode:
  input            what the model reads, batch first
  input.NAME       a named input, as input.marks [B, L, M] (x_mark is understood as well)
  output           what it gave; output.noX: the same without input X, or with use_X: false
  cotangent        a tensor like output; grad.NAME is then the gradient of sum(output x cotangent)
  anything else    an intermediate tensor, compared if our model leaves one of that name
Errors are relative to the largest magnitude of the recorded tensor; the default tolerance is 2e-5
forward and 1e-4 for gradients. The model comes from a YAML file (only `model:` is read), a run
folder, or a config.json with the argument names of the S-Mamba and iTransformer programs.
Exit code 1 when a tensor is beyond the tolerance.
Examples:
  serpentine parity model.yaml --weights original.pth --io recorded.safetensors
  serpentine parity tests/golden/apps/s_mamba/config.json \
      --weights tests/golden/apps/s_mamba/weights.safetensors --io tests/golden/apps/s_mamba/io.safetensors
  serpentine parity runs/mine --io mine.safetensors --record    writes output, trace and gradients)";

struct ParityArguments {
  std::string model, weights, io;
  std::vector<std::string> overrides;
  double tolerance = 0;
  bool record = false;
};

const char* verdict(const ParityRow& row) {
  if (row.verdict == ParityVerdict::kNotCompared)
    return "not compared: the model leaves no such tensor";
  return row.verdict == ParityVerdict::kClose ? "ok" : "BEYOND";
}

int print(const std::vector<ParityRow>& rows) {
  int64_t beyond = 0, compared = 0;
  size_t width = 6;
  for (const auto& row : rows) width = std::max(width, row.name.size());
  std::printf("%-*s  %10s  %10s  %10s\n", static_cast<int>(width), "tensor", "max error",
              "rms error", "tolerance");
  for (const auto& row : rows) {
    if (row.verdict == ParityVerdict::kNotCompared) {
      std::printf("%-*s  %s\n", static_cast<int>(width), row.name.c_str(), verdict(row));
      continue;
    }
    ++compared;
    beyond += row.verdict == ParityVerdict::kBeyond;
    std::printf("%-*s  %10.2e  %10.2e  %10.0e  %s%s\n", static_cast<int>(width), row.name.c_str(),
                row.max_error, row.rms_error, row.tolerance, verdict(row),
                row.note.empty() ? "" : (": " + row.note).c_str());
  }
  std::printf("%lld tensors compared, %lld beyond the tolerance\n",
              static_cast<long long>(compared), static_cast<long long>(beyond));
  return beyond > 0 || compared == 0 ? 1 : 0;
}

int run_parity(const ParityArguments& arguments) {
  const Packages packages = all_packages();
  const ParityModel model(packages, arguments.model, arguments.weights, arguments.overrides);
  if (!model.report.empty()) std::cout << model.report;
  SafeTensors recorded;
  const bool fresh = arguments.record && !std::filesystem::exists(arguments.io);
  if (fresh) {
    recorded.tensors = model.example_inputs();
  } else {
    recorded = read_safetensors(arguments.io);
  }
  if (arguments.record) {
    const StateDict tensors = record_parity(model, recorded.tensors, arguments.io, fresh);
    write_safetensors(arguments.io, tensors, recorded.metadata);
    std::cout << arguments.io << ": " << tensors.size() << " tensors recorded\n";
    return 0;
  }
  return print(compare_parity(model, recorded.tensors, arguments.tolerance, arguments.io));
}

}  // namespace

void add_parity_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("parity", "Compare a model with a recording of the original");
  command->footer(kParityFooter);
  auto arguments = std::make_shared<ParityArguments>();
  command->add_option("RUN_OR_YAML", arguments->model, "Run folder, YAML or config.json")
      ->required();
  command->add_option("OVERRIDES", arguments->overrides, "Overrides, as model.use_norm=false")
      ->type_name("KEY=VALUE");
  command->add_option("--weights", arguments->weights,
                      "Checkpoint; of a run its best weights by default");
  command->add_option("--io", arguments->io, "Recording (.safetensors)")->required();
  command
      ->add_option("--tolerance", arguments->tolerance,
                   "For every tensor, in place of the defaults")
      ->check(CLI::PositiveNumber);
  command->add_flag("--record", arguments->record,
                    "Write our output beside the inputs that IO holds");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_parity(*arguments); }; });
}

}  // namespace serpentine
