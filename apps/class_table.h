// How a classifier did on each class: a table on the screen and as CSV.
#pragma once

#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Prints precision, recall, F1, AUC and the number of `things` ("pictures") of each class, and
/// writes them to `folder`/report.csv, the confusion matrix [K, K] (row: the true class) to
/// confusion.csv. areas: AUC of each class, float64 [K].
void write_class_table(const torch::Tensor& confusion, const torch::Tensor& areas,
                       const std::vector<std::string>& classes, const std::string& things,
                       const std::string& folder);

}  // namespace serpentine
