// A finished segmentation run, and predicting files with several of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/packages.h"
#include "segmentation/part_rules.h"
#include "segmentation/predict.h"

namespace serpentine {

struct SegmentRun {
  std::string folder;
  std::shared_ptr<Model> model;  // with the best weights, in evaluation mode
  SegmentationPlan plan;
  std::vector<std::string> held_out;  // cases of its validation part
  PartRules rules;                    // chosen by the cross-validation that the run belongs to
};

/// The run folders of a list in which a folder of a cross-validation stands for its folds.
std::vector<std::string> run_folders(const std::vector<std::string>& given);

/// Throws with what the folder lacks, or when it is no segmentation run.
SegmentRun open_segment_run(const Packages& packages, const std::string& folder);

struct PredictFiles {
  std::string out;
  PredictOptions options;
  std::string device = "auto", precision = "fp32";
  bool largest = false, fill_holes = false;  // of every label, instead of the runs' rules
  bool keep_parts = false;                   // no rules at all
  bool overwrite = false;
  std::string dicom_seg;  // folder of NAME.dcm, a DICOM-SEG of each DICOM series; "": none
};

/// The rules that predictions get: those asked for, else those that all runs agree on.
PartRules rules_for(const std::vector<SegmentRun>& runs, const PredictFiles& how);

/// Predicts every case into out/NAME.nii.gz or NAME.png; labels that are there already are kept,
/// and serve for a DICOM-SEG that is not. Cases that cannot be read are reported and left out;
/// returns how many.
int64_t predict_files(const std::vector<SegmentRun>& runs, const std::vector<CaseFiles>& cases,
                      const PredictFiles& how);

}  // namespace serpentine
