// serpentine crossval: every fold of a run over bags, one after another, and their table.
#include <filesystem>
#include <iostream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/apply_folds.h"
#include "apps/bag_results.h"
#include "apps/command.h"
#include "apps/fold_record.h"
#include "apps/trained.h"
#include "apps/training.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/json_file.h"
#include "pathology/cross_validation.h"

namespace serpentine {
namespace {

constexpr const char* kCrossvalFooter =
    R"(Each fold is a run of its own in OUT/fold_<k>, with predictions of its validation and test bags and
the temperature that calibrates them. OUT holds summary.csv, summary.md, the splits as CLAM writes
them, and the predictions of all folds together. Folds that are finished are kept, so the same command
goes on after an interruption; one that differs from crossval.json in any key is refused.
Examples:
  serpentine crossval configs/pathology/tcga_lung_mamba_mil.yaml --folds 10 --out runs/lung
  serpentine crossval run.yaml --folds 5 trainer.epochs=20 data.splits.seed=1
  serpentine crossval run.yaml --out runs/lung --apply new.csv --apply-features new/)";

struct CrossvalArguments {
  std::vector<std::string> words;  // CONFIG and overrides
  std::string out, apply, apply_features;
  int64_t folds = 0, bootstrap = 1000;
};

std::string fold_folder(const std::string& out, int64_t fold) {
  return out + "/fold_" + std::to_string(fold);
}

void copy_split(const std::string& from, const std::string& to, int64_t fold) {
  const std::string stem = "/splits_" + std::to_string(fold);
  for (const char* kind : {".csv", "_bool.csv", "_descriptor.csv"})
    std::filesystem::copy_file(from + stem + kind, to + stem + kind,
                               std::filesystem::copy_options::overwrite_existing);
}

FoldResult read_fold(const std::string& out, int64_t fold, bool& survival) {
  const std::string folder = fold_folder(out, fold);
  const auto mark = read_json(calibration_file(folder));
  TORCH_CHECK(mark.is_object() && mark.contains("temperature"), calibration_file(folder),
              ": is damaged; remove it to repeat the end of this fold");
  survival = mark.at("survival").get<bool>();
  FoldResult result;
  result.fold = fold;
  result.temperature = mark.at("temperature").get<double>();
  result.test = read_predictions(folder + "/test_predictions.csv", survival);
  result.metrics = fold_metrics(result.test, survival, result.temperature);
  return result;
}

void split_words(const CrossvalArguments& arguments, TrainRequest& request) {
  for (const auto& word : arguments.words) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos && word.find('/') > equals) {
      request.overrides.push_back(word);
    } else if (request.config.empty()) {
      request.config = word;
    } else {
      throw UsageError("crossval: '" + word + "' is neither the YAML file nor KEY=VALUE");
    }
  }
  if (request.config.empty()) throw UsageError("crossval: which YAML file?");
}

int64_t folds_of(const CrossvalArguments& arguments, const RunPlan& plan) {
  if (plan.options.data.type() != "bags")
    throw UsageError("crossval: data.type must be bags, got " + plan.options.data.type());
  if (arguments.folds > 0) return arguments.folds;
  return plan.options.data.read_typed<BagSourceOptions>(BagSourceOptions{}).splits.folds;
}

int run_crossval(const CrossvalArguments& arguments) {
  TrainRequest base;
  split_words(arguments, base);
  const Packages packages = all_packages();
  const RunPlan plan = read_plan(packages, base.config, base.overrides);
  const int64_t folds = folds_of(arguments, plan);
  const std::string scheme =
      plan.options.data.read_typed<BagSourceOptions>(BagSourceOptions{}).splits.scheme;
  const std::string stem = std::filesystem::path(base.config).stem().string();
  const std::string out =
      arguments.out.empty()
          ? "runs/crossval-" + (plan.options.name.empty() ? stem : plan.options.name)
          : arguments.out;
  keep_configuration(packages, out, plan, folds);
  make_folder(out + "/splits");
  for (int64_t fold = 0; fold < folds; ++fold) {
    const std::string folder = fold_folder(out, fold);
    if (std::filesystem::exists(calibration_file(folder))) {
      std::cout << "fold " << fold << "     finished before" << std::endl;
      continue;
    }
    TrainRequest request = base;
    request.overrides.push_back("data.splits.fold=" + std::to_string(fold));
    if (scheme == "kfold")
      request.overrides.push_back("data.splits.folds=" + std::to_string(folds));
    const TrainResult result = train_run(packages, fold_request(std::move(request), folder));
    if (result.code != 0) return result.code;
    copy_split(folder, out + "/splits", fold);
  }
  std::vector<FoldResult> results;
  bool survival = false;
  for (int64_t fold = 0; fold < folds; ++fold) results.push_back(read_fold(out, fold, survival));
  const SummaryTable table = summarize(results, survival, arguments.bootstrap);
  write_atomically(out + "/summary.csv", table.csv());
  write_atomically(out + "/summary.md", table.markdown());
  write_predictions(out + "/predictions.csv", ensemble(results, survival), survival, 1);
  std::cout << table.markdown();
  if (std::filesystem::exists(out + "/fold_0/left_out.csv")) {
    const int64_t bags = read_csv(out + "/fold_0/left_out.csv", {.header = "yes"}).rows();
    std::cout << bags << (bags == 1 ? " bag of the table is" : " bags of the table are")
              << " left out; why stands in " << out << "/fold_0/left_out.csv\n";
  }
  if (survival) std::cout << draw_survival(results, out + "/survival") << "\n";
  if (!arguments.apply.empty()) {
    const int64_t bags = apply_folds(packages, out, folds, arguments.apply,
                                     arguments.apply_features, out + "/applied.csv");
    std::cout << out << "/applied.csv: " << bags << " bags\n";
  }
  std::cout << out << "\n";
  return 0;
}

}  // namespace

void add_crossval_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("crossval", "Train every fold of a run over bags");
  command->footer(kCrossvalFooter);
  auto arguments = std::make_shared<CrossvalArguments>();
  command->add_option("CONFIG", arguments->words,
                      "YAML file, then overrides such as trainer.epochs=5");
  command->add_option("--folds", arguments->folds, "Folds (default: data.splits.folds)")
      ->check(CLI::Range(int64_t{2}, int64_t{1000}));
  command->add_option("--out", arguments->out, "Folder (default: runs/crossval-<name>)");
  command->add_option("--bootstrap", arguments->bootstrap, "Resamples of the pooled intervals")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}))
      ->capture_default_str();
  command->add_option("--apply", arguments->apply,
                      "Table of further bags: the mean of all folds to OUT/applied.csv");
  command->add_option("--apply-features", arguments->apply_features, "Folder of their features");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_crossval(*arguments); }; });
}

}  // namespace serpentine
