#include "apps/class_table.h"

#include <algorithm>
#include <cstdio>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/train/class_metrics.h"

namespace serpentine {
namespace {

constexpr int64_t kTableRows = 40;  // of the printed table

/// Four digits, or a dash where a class gives nothing to divide by.
std::string share_text(double value) {
  if (value != value) return "-";
  char text[24];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

}  // namespace

void write_class_table(const torch::Tensor& confusion, const torch::Tensor& areas,
                       const std::vector<std::string>& classes, const std::string& things,
                       const std::string& folder) {
  const ClassReport report = class_report(confusion);
  std::string csv = "class,precision,recall,f1,auc,support\n";
  size_t width = 5;
  for (const auto& name : classes) width = std::max(width, std::min<size_t>(name.size(), 32));
  std::printf("%-*s %9s %9s %9s %9s %8s\n", static_cast<int>(width), "class", "precision", "recall",
              "F1", "AUC", things.c_str());
  for (int64_t k = 0; k < confusion.size(0); ++k) {
    const auto value = [k](const torch::Tensor& column) { return column[k].item<double>(); };
    const auto& name = classes[static_cast<size_t>(k)];
    char line[160];
    std::snprintf(line, sizeof line, ",%.6g,%.6g,%.6g,%.6g,%.0f\n", value(report.precision),
                  value(report.recall), value(report.f1), value(areas), value(report.support));
    csv += csv_cell(name) + line;
    if (k < kTableRows) {
      std::printf("%-*s %9s %9s %9s %9s %8.0f\n", static_cast<int>(width),
                  name.substr(0, 32).c_str(), share_text(value(report.precision)).c_str(),
                  share_text(value(report.recall)).c_str(), share_text(value(report.f1)).c_str(),
                  share_text(value(areas)).c_str(), value(report.support));
    }
  }
  write_atomically(folder + "/report.csv", csv);
  std::string table = "true";
  for (const auto& name : classes) table += "," + csv_cell(name);
  for (int64_t row = 0; row < confusion.size(0); ++row) {
    table += "\n" + csv_cell(classes[static_cast<size_t>(row)]);
    for (int64_t column = 0; column < confusion.size(1); ++column)
      table += "," + std::to_string(confusion[row][column].item<int64_t>());
  }
  write_atomically(folder + "/confusion.csv", table + "\n");
}

}  // namespace serpentine
