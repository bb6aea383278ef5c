// serpentine train: from a YAML file to a trained model.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "apps/training.h"
#include "core/dist/launch.h"

namespace serpentine {

std::vector<std::string> command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

namespace {

constexpr const char* kTrainFooter =
    R"(The run folder holds the resolved config.yaml, metrics.csv and metrics.jsonl, TensorBoard events,
checkpoints/, plots/, the exact command and versions. Ctrl-C or SIGTERM writes a checkpoint and says
how to go on; a run that went on ends with the same weights, bit for bit.
Examples:
  serpentine train configs/timeseries/etth1_96_s_mamba.yaml
  serpentine train configs/timeseries/custom_s_mamba.yaml data.path=my.csv trainer.epochs=5 --out runs/mine
  serpentine train --resume runs/mine
  serpentine train run.yaml --nproc 2        two processes share each batch; `torchrun --no-python
                                             --nproc-per-node 2 serpentine train run.yaml` does the same)";

struct TrainArguments {
  std::vector<std::string> words;  // CONFIG and overrides
  std::string out, resume;
  int64_t nproc = 1;
  bool dry_run = false;
};

/// This command line without --nproc, for the processes it starts.
std::vector<std::string> worker_arguments() {
  const std::vector<std::string> given = command_line();
  std::vector<std::string> all;
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] == "--nproc") {
      ++i;
    } else if (given[i].rfind("--nproc=", 0) != 0) {
      all.push_back(given[i]);
    }
  }
  all[0] = "/proc/self/exe";
  return all;
}

std::string not_an_override(const std::string& word, const TrainArguments& arguments,
                            const std::string& config) {
  const bool is_file =
      word.ends_with(".yaml") || word.ends_with(".yml") || std::filesystem::is_regular_file(word);
  if (!is_file)
    return "train: '" + word + "' is neither the YAML file nor an override KEY=VALUE, such as " +
           "trainer.epochs=5";
  if (!arguments.resume.empty())
    return "train: --resume takes the configuration of " + arguments.resume + "; leave '" + word +
           "' away";
  return "train: one file is trained at a time, '" + config + "' or '" + word +
         "'; overrides are KEY=VALUE, such as trainer.epochs=5, and a file goes on from another " +
         "that it names as `base`";
}

/// Throws where a folder holds no run, and says where one is.
void check_run_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  const auto is_run = [](const fs::path& path) {
    return fs::is_regular_file(path / "config.yaml");
  };
  if (is_run(folder)) return;
  std::string why = "there is no such folder";
  if (fs::is_directory(folder)) {
    why = "it holds no config.yaml";
    for (const auto& inside : fs::directory_iterator(folder)) {
      if (!is_run(inside.path())) continue;
      why += "; " + inside.path().string() + " is one";
      break;
    }
  } else if (fs::exists(folder)) {
    why = "it is a file; a run is the folder that `serpentine train --out` named, else runs/<name>";
  }
  throw UsageError("train: --resume: " + folder + " is no run folder: " + why);
}

TrainRequest request_of(const TrainArguments& arguments) {
  TrainRequest request;
  for (const auto& word : arguments.words) {
    // a path may hold '=', a key never holds '/'
    const size_t equals = word.find('=');
    const bool is_override = equals != std::string::npos && word.find('/') > equals;
    if (is_override) {
      request.overrides.push_back(word);
    } else if (request.config.empty() && arguments.resume.empty()) {
      request.config = word;
    } else {
      throw UsageError(not_an_override(word, arguments, request.config));
    }
  }
  if (!arguments.resume.empty()) {
    if (!arguments.out.empty())
      throw UsageError("train: --resume goes on in its own folder; leave --out away");
    check_run_folder(arguments.resume);
    request.resume = true;
    request.config = yaml_of(arguments.resume);
    request.out = arguments.resume;
    return request;
  }
  if (request.config.empty())
    throw UsageError("train: which YAML file? See `serpentine train --help`.");
  request.out = arguments.out;
  return request;
}

int run_train(const TrainArguments& arguments) {
  const TrainRequest request = request_of(arguments);
  const Packages packages = all_packages();
  if (arguments.dry_run) {
    RunPlan plan = read_plan(packages, request.config, request.overrides);
    const RunParts parts = build_parts(packages, plan);
    std::cout << plan.root.yaml() << "# " << describe(plan.options.model.type(), *parts.model)
              << "; " << parts.source->part(Part::kTrain)->size() << " training, "
              << parts.source->part(Part::kValidation)->size() << " validation, "
              << parts.source->part(Part::kTest)->size() << " test examples\n";
    for (const auto& note : parts.source->notes()) std::cout << "# note: " << note << "\n";
    return 0;
  }
  if (arguments.nproc > 1) {
    read_plan(packages, request.config,
              request.overrides);  // one report of errors, not one a process
    return launch(arguments.nproc, worker_arguments());
  }
  return train_run(packages, request).code;
}

}  // namespace

void add_train_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("train", "Train what a YAML file describes");
  command->footer(kTrainFooter);
  auto arguments = std::make_shared<TrainArguments>();
  command->add_option("CONFIG", arguments->words,
                      "YAML file, then overrides such as trainer.epochs=5");
  command->add_option("--out", arguments->out, "Run folder (default: runs/<name>)");
  command->add_option("--resume", arguments->resume, "Go on with the run in this folder");
  command->add_option("--nproc", arguments->nproc, "Processes that share the work on this machine")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  command->add_flag("--dry-run", arguments->dry_run,
                    "Check everything, print the resolved YAML, do not train");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_train(*arguments); }; });
}

}  // namespace serpentine
