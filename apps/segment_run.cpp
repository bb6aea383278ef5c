#include "apps/segment_run.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/measure.h"
#include "apps/model_file.h"
#include "apps/trained.h"
#include "core/check.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/precision.h"
#include "core/train/trainer.h"
#include "segmentation/dicom.h"
#include "segmentation/dicom_seg.h"
#include "segmentation/file_error.h"
#include "segmentation/seg_file.h"

namespace serpentine {
namespace {

void say_memory(const std::string& name, const PredictMemory& memory) {
  const auto bytes = [](int64_t count) { return amount(static_cast<double>(count), "B"); };
  std::cout << name << ": " << memory.windows << " windows; memory beside the network "
            << bytes(memory.total()) << " (image " << bytes(memory.image) << ", sums "
            << bytes(memory.sums) << ", windows " << bytes(memory.windows_now) << ", slab "
            << bytes(memory.slab) << ", labels " << bytes(memory.labels) << "; preparing "
            << bytes(memory.preparing);
  if (memory.rules > 0) std::cout << ", rules " << bytes(memory.rules);
  std::cout << ")" << std::endl;
}

struct Predictor {
  std::vector<std::shared_ptr<Model>> models;
  const SegmentationPlan& plan;
  torch::Device device;
  PartRules rules;
  const PredictFiles& how;
};

torch::Tensor predicted_labels(const Predictor& with, const std::string& name, Volume& volume) {
  PredictOptions options = with.how.options;
  auto memory = predict_memory(with.plan, volume, options);
  const auto size = volume.size();
  memory.rules = rules_memory(size[0] * size[1] * size[2], with.rules);
  say_memory(name, memory);
  Progress progress(name, memory.windows);
  options.progress = [&](int64_t done, int64_t) { progress.update(done); };
  torch::Tensor labels;
  {
    const Autocast autocast(with.device.type(), apply_precision(with.how.precision));
    labels = predict_volume(with.models, with.plan, volume, with.device, options);
  }
  apply_rules(labels, with.rules);
  progress.finish();
  return labels;
}

/// Writes what is not there yet of a case. False where it has no DICOM-SEG though one was wanted.
bool label_case(const Predictor& with, const CaseFiles& one) {
  const auto& how = with.how;
  const std::string file = how.out + "/" + one.name + result_ending(one.images.at(0));
  std::string seg = how.dicom_seg.empty() ? "" : how.dicom_seg + "/" + one.name + ".dcm";
  bool complete = true;
  const auto without_seg = [&](const std::string& why) {
    std::cerr << one.name << ": no DICOM-SEG; " << why << std::endl;
    seg.clear();
    complete = false;
  };
  if (!seg.empty() && !is_dicom_path(one.images[0])) without_seg(one.images[0] + " is not DICOM");
  const auto there = [&](const std::string& path) {
    return !how.overwrite && std::filesystem::exists(path);
  };
  if (there(file) && (seg.empty() || there(seg))) {
    std::cout << file << ": is there already\n";
    return complete;
  }
  const auto begin = std::chrono::steady_clock::now();
  Volume volume = read_channels(one.images);
  torch::Tensor labels;
  if (there(file)) {
    labels = read_prediction(file, volume, with.plan.label_scale);
  } else {
    labels = predicted_labels(with, one.name, volume);
    write_prediction(file, labels, with.plan, volume);
  }
  if (!seg.empty() && !there(seg)) {
    try {
      write_dicom_seg(seg, labels, volume, with.plan.foreground());
    } catch (const std::exception& error) {
      without_seg(reason_of(error));
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::cout << file << (seg.empty() ? "" : ", " + seg) << "  " << format_seconds(took.count())
            << std::endl;
  return complete;
}

}  // namespace

SegmentRun open_segment_run(const Packages& packages, const std::string& folder) {
  if (!std::filesystem::is_directory(folder))
    throw UsageError("there is no run folder '" + folder + "'; `serpentine train` makes one");
  SegmentRun run;
  run.folder = folder;
  const Config config = Config::load(yaml_of(folder)).child("model");
  run.model = packages.models.build(config);
  const std::string weights = weights_of_run(folder);
  const LoadReport fit =
      load_state_dict(*run.model, read_weights(weights), run.model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(folder), "\n", fit.text());
  run.model->eval();
  const std::string path = folder + "/data.json";
  const auto json = read_json(path);
  TORCH_CHECK(!json.is_null(), path, ": cannot be read; it holds the plan of the run");
  TORCH_CHECK(json.is_object() && json.value("kind", "") == "segmentation", path,
              ": is not of a segmentation run");
  run.plan = Config::parse(json.at("plan").get<std::string>(), path).read<SegmentationPlan>();
  check_plan(run.plan, path);
  run.held_out = json.value("held_out", std::vector<std::string>{});
  run.rules = read_rules(folder);
  return run;
}

std::vector<std::string> run_folders(const std::vector<std::string>& given) {
  std::vector<std::string> folders;
  for (const auto& folder : given) {
    const auto fold = [&](int64_t k) { return folder + "/fold_" + std::to_string(k); };
    if (std::filesystem::exists(folder + "/config.yaml") ||
        !std::filesystem::is_directory(fold(0))) {
      folders.push_back(folder);
      continue;
    }
    for (int64_t k = 0; std::filesystem::is_directory(fold(k)); ++k) folders.push_back(fold(k));
  }
  return folders;
}

PartRules rules_for(const std::vector<SegmentRun>& runs, const PredictFiles& how) {
  PartRules rules;
  if (how.keep_parts) return rules;
  const auto values = written_values(runs.at(0).plan);
  if (how.largest) rules.largest = values;
  if (how.fill_holes) rules.fill_holes = values;
  if (!rules.none()) return rules;
  for (const auto& run : runs) {
    TORCH_CHECK(run.rules == runs[0].rules, run.folder, " was given the rules '",
                rules_text(run.rules), "', ", runs[0].folder, " '", rules_text(runs[0].rules),
                "'; say which with --largest, --fill-holes or --keep-parts");
  }
  return runs[0].rules;
}

int64_t predict_files(const std::vector<SegmentRun>& runs, const std::vector<CaseFiles>& cases,
                      const PredictFiles& how) {
  const auto& plan = runs.at(0).plan;
  for (const auto& run : runs) {
    TORCH_CHECK(plan_yaml(run.plan) == plan_yaml(plan), run.folder, " has another plan than ",
                runs[0].folder, "; only runs of one plan predict together");
  }
  const auto device = pick_device(how.device);
  std::vector<std::shared_ptr<Model>> models;
  for (const auto& run : runs) {
    run.model->to(device);
    models.push_back(run.model);
  }
  if (!how.dicom_seg.empty()) {
    check_dicom_seg();
    make_folder(how.dicom_seg);
  }
  make_folder(how.out);
  const Predictor predictor{models, plan, device, rules_for(runs, how), how};
  if (!predictor.rules.none()) std::cout << "rules: " << rules_text(predictor.rules) << "\n";
  int64_t failed = 0;
  for (const auto& one : cases) {
    try {
      if (!label_case(predictor, one)) ++failed;
    } catch (const std::exception& error) {
      std::cerr << one.name << ": left out; " << reason_of(error) << std::endl;
      ++failed;
    }
  }
  return failed;
}

}  // namespace serpentine
