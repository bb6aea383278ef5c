// What an evaluation of an image classifier shows beside its metrics.
#pragma once

#include <string>

#include "apps/image_run.h"

namespace serpentine {

/// Writes report.csv (precision, recall, F1, AUC and support of each class), confusion.csv,
/// confusion.png, reliability.png, mistakes.csv (the surest wrong answers first) and mistakes.png
/// into `folder`, and prints the table. Pictures need OpenCV, the reliability plot gnuplot; what
/// cannot be drawn is said.
void report_images(const ImageScores& scores, const ImageDataset& images,
                   const std::vector<std::string>& classes, const std::string& folder);

/// A confusion matrix [K, K] (row: the true class) as a picture: shares of the row in colour,
/// counts as numbers where they fit.
torch::Tensor draw_confusion(const torch::Tensor& confusion,
                             const std::vector<std::string>& classes);

}  // namespace serpentine
