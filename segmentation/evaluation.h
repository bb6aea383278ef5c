// A folder of predictions against a folder of truths: tables, pictures, a page.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "segmentation/metrics.h"

namespace serpentine {

struct EvaluationOptions {
  MetricOptions metrics;
  std::vector<std::pair<std::string, std::vector<int64_t>>>
      classes;             // name, values; empty: all seen
  std::string images;      // folder of the images, for overlays; "": none are drawn
  int64_t worst = 6;       // cases on the contact sheet and as pages
  double label_scale = 0;  // truths are divided by it, and predictions that are written so
  int64_t ignore = -1;     // truth value that does not count
};

/// Files of one case; image: "" or what overlays are drawn on.
struct CasePair {
  std::string name, guess, truth, image;
};

struct CaseScores : CasePair {
  std::vector<MaskMetrics> classes;
  double mean_dice = 0;  // over the classes where it is defined
};

struct Evaluation {
  std::vector<std::string> class_names;
  std::vector<std::vector<int64_t>> class_values;
  std::vector<CaseScores> cases;      // sorted by name
  std::vector<std::string> notes;     // cases that were left out, and why
  std::vector<std::string> missing;   // truths, by name, of which there is no prediction
  std::vector<std::string> warnings;  // what all cases together look wrong by
};

/// Throws when no pair can be read.
Evaluation evaluate_pairs(const std::vector<CasePair>& pairs, const EvaluationOptions& options);

/// Pairs files by name; a truth without a prediction is missing.
Evaluation evaluate_folders(const std::string& guesses, const std::string& truths,
                            const EvaluationOptions& options);

struct WrittenEvaluation {
  std::vector<std::string> files;
  std::vector<std::string> notes;  // cases whose pictures could not be drawn, and why
};
/// cases.csv (missing cases with empty figures), classes.csv, dice.svg, hd95.svg; with images also
/// overlays/, worst.png and pages.
WrittenEvaluation write_evaluation(const Evaluation& evaluation, const EvaluationOptions& options,
                                   const std::string& folder);

/// "class  cases  dice 0.891 +- 0.02 ..." a line a class; a mean over fewer cases says "of N". Then
/// how many are missing.
std::string summary_text(const Evaluation& evaluation, const EvaluationOptions& options);

}  // namespace serpentine
