#include "apps/segment_crossval.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <set>

#include <torch/torch.h>

#include "apps/command.h"
#include "apps/fold_record.h"
#include "apps/trained.h"
#include "apps/training.h"
#include "core/io/atomic_file.h"
#include "segmentation/folds.h"
#include "segmentation/patch_source.h"
#include "segmentation/plan.h"

namespace serpentine {
namespace {

/// The folds share one plan, or their outputs could not be averaged; made once, kept beside them.
std::string shared_plan(const PatchSourceOptions& data, const std::string& out) {
  if (!data.plan.empty()) return data.plan;
  const std::string file = out + "/plan.yaml";
  if (std::filesystem::exists(file)) return file;
  CaseList list = find_cases(data.path, {data.images, data.labels});
  const auto fingerprint = take_fingerprint(list);
  write_atomically(file, plan_yaml(make_plan(list, fingerprint, plan_options(data))));
  return file;
}

/// Trains a fold, goes on with it, or finds it finished. Returns what train_run() does.
int train_fold(const Packages& packages, const SegmentCrossval& wanted, const std::string& plan,
               int64_t fold, const std::string& folder) {
  const std::string mark = folder + "/finished";
  if (std::filesystem::exists(mark)) {
    std::cout << "fold " << fold << "     finished before" << std::endl;
    return 0;
  }
  std::cout << "\n== fold " << fold << std::endl;
  TrainRequest request;
  request.config = wanted.config;
  // the last weights, as nnU-Net's: an epoch chosen by the cases held out would flatter the report
  request.overrides = {"trainer.restore_best=false", "checkpoint.best=false"};
  request.overrides.insert(request.overrides.end(), wanted.overrides.begin(),
                           wanted.overrides.end());
  request.overrides.push_back("data.fold=" + std::to_string(fold));
  request.overrides.push_back("data.plan=" + plan);
  const auto result = train_run(packages, fold_request(std::move(request), folder));
  if (result.code == 0) write_atomically(mark, "");
  return result.code;
}

std::vector<CaseFiles> named_cases(const std::vector<CaseFiles>& cases,
                                   const std::vector<std::string>& names) {
  std::vector<CaseFiles> chosen;
  for (const auto& one : cases)
    if (std::find(names.begin(), names.end(), one.name) != names.end()) chosen.push_back(one);
  return chosen;
}

/// Says what was left out: of the data already, or of `due`, which a fold each was to judge.
/// Returns how many.
int64_t say_left_out(const CaseList& list, const std::set<std::string>& due,
                     const std::vector<CasePair>& judged) {
  for (const auto& note : list.notes) std::cerr << note << "\n";
  std::vector<std::string> absent;
  for (const auto& name : due) {
    const bool found = std::any_of(judged.begin(), judged.end(),
                                   [&](const auto& pair) { return pair.name == name; });
    if (!found) absent.push_back(name);
  }
  for (const auto& name : absent)
    std::cerr << name << ": left out, no fold has a prediction of it\n";
  const auto count = static_cast<int64_t>(list.notes.size() + absent.size());
  if (count > 0) {
    std::cerr << count << " of " << due.size() + list.notes.size()
              << " cases were left out of the cross-validation" << std::endl;
  }
  return count;
}

PatchSourceOptions data_of(const Packages& packages, const SegmentCrossval& wanted) {
  const RunPlan plan = read_plan(packages, wanted.config, wanted.overrides);
  if (plan.options.data.type() != "segmentation")
    throw UsageError(wanted.config + ": data.type must be segmentation, got " +
                     plan.options.data.type());
  return plan.options.data.read_typed<PatchSourceOptions>();
}

}  // namespace

void use_plan_classes(EvaluationOptions& options, const SegmentationPlan& plan) {
  options.label_scale = plan.label_scale;
  options.ignore = plan.ignore;
  options.classes.clear();
  for (const auto& one : plan.foreground()) options.classes.emplace_back(one.name, one.values);
}

int report_evaluation(const Evaluation& found, const EvaluationOptions& options,
                      const std::string& out) {
  for (const auto& note : found.notes) std::cerr << note << "\n";
  for (const auto& name : found.missing)
    std::cerr << name << ": is missing, there is no prediction of it\n";
  for (const auto& warning : found.warnings) std::cerr << warning << "\n";
  std::cout << summary_text(found, options);
  bool complete = found.notes.empty() && found.missing.empty();
  if (!out.empty()) {
    const auto written = write_evaluation(found, options, out);
    for (const auto& file : written.files) std::cout << file << "\n";
    for (const auto& note : written.notes) std::cerr << note << "\n";
    complete = complete && written.notes.empty();
  }
  return complete ? 0 : 1;
}

int run_segment_crossval(const SegmentCrossval& wanted) {
  const Packages packages = all_packages();
  const auto data = data_of(packages, wanted);
  const CaseList list = find_cases(data.path, {data.images, data.labels});
  for (const auto& one : list.cases) {  // before anything is trained
    TORCH_CHECK(one.split != "test" && one.split != "validation", data.path,
                ": the data name their own ", one.split, " cases, so that every fold would be ",
                "the same; train once with `serpentine train`");
  }
  std::set<std::string> due;
  for (int64_t fold = 0; fold < data.folds; ++fold) {
    const auto split = split_cases(list, data.folds, fold, data.validation, data.seed);
    TORCH_CHECK(!split.validation.empty(), data.path, ": fold ", fold, " of ", data.folds,
                " holds no case; there are ", list.cases.size(), " cases. Give fewer data.folds");
    for (const auto& one : split.validation) due.insert(one.name);
  }
  keep_configuration(packages, wanted.out, read_plan(packages, wanted.config, wanted.overrides),
                     data.folds);
  make_folder(wanted.out);
  const std::string plan = shared_plan(data, wanted.out);
  PredictFiles how = wanted.predict;
  how.out = wanted.out + "/held_out";
  how.keep_parts = true;  // the rules are chosen on these
  std::vector<CasePair> pairs;
  int64_t failed = 0;
  for (int64_t fold = 0; fold < data.folds; ++fold) {
    const std::string folder = wanted.out + "/fold_" + std::to_string(fold);
    const int code = train_fold(packages, wanted, plan, fold, folder);
    if (code != 0) return code;
    const auto run = open_segment_run(packages, folder);
    const auto held = named_cases(list.cases, run.held_out);
    failed += predict_files({run}, held, how);
    for (const auto& one : held) {
      const auto guess = how.out + "/" + one.name + result_ending(one.images[0]);
      if (std::filesystem::exists(guess))
        pairs.push_back({one.name, guess, one.label, one.images[0]});
    }
  }
  std::sort(pairs.begin(), pairs.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto chosen_plan = read_plan_file(plan);
  EvaluationOptions options = wanted.evaluation;
  use_plan_classes(options, chosen_plan);
  std::cout << "\n== every case by the fold that has not seen it" << std::endl;
  failed += say_left_out(list, due, pairs);
  const int code =
      report_evaluation(evaluate_pairs(pairs, options), options, wanted.out + "/report");
  const auto choice = choose_rules(pairs, chosen_plan);
  std::cout << "\n== rules on connected parts\n" << choice.table;
  write_atomically(wanted.out + "/postprocess.txt", choice.table);
  for (int64_t fold = 0; fold < data.folds; ++fold)
    write_rules(wanted.out + "/fold_" + std::to_string(fold), choice.rules);
  std::cout << "\nThe folds together label new cases:\n  serpentine segment predict " << wanted.out
            << " new_cases/ -o predicted\n";
  return failed > 0 ? 1 : code;
}

}  // namespace serpentine
