#include "apps/image_report.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

#include <torch/torch.h>

#include "apps/class_table.h"
#include "apps/figures.h"
#include "apps/trained.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/image.h"
#include "core/io/plot.h"
#include "core/train/class_metrics.h"

namespace serpentine {
namespace {

constexpr int64_t kShown = 40;  // pictures of the grid

void draw_reliability(const torch::Tensor& bins, const std::string& folder) {
  Panel panel;
  Curve ideal{"as sure as right", {0, 1}, {0, 1}, Ink::kPast, false};
  Curve found{"this model", {}, {}, Ink::kFirst, true};
  for (int64_t i = 0; i < bins.size(0); ++i) {
    const double count = bins[i][0].item<double>();
    if (count == 0) continue;
    found.x.push_back(bins[i][1].item<double>() / count);
    found.y.push_back(bins[i][2].item<double>() / count);
  }
  panel.curves = {ideal, found};
  Figure figure;
  char title[96];
  std::snprintf(title, sizeof title, "Reliability, calibration error %.2f %%",
                100 * calibration_error(bins));
  figure.title = title;
  figure.x_label = "probability of the answer";
  figure.y_label = "share of right answers";
  figure.panels = {panel};
  draw(figure, folder + "/reliability");
}

void show_mistakes(const ImageScores& scores, const ImageDataset& images,
                   const std::vector<std::string>& classes, const std::string& folder) {
  const auto [chance, guess] = scores.probabilities.max(1);
  const auto wrong = guess.ne(scores.targets).nonzero().squeeze(1);
  const auto order = wrong.index_select(
      0, std::get<1>(chance.index_select(0, wrong).sort(/*stable=*/true, 0, /*descending=*/true)));
  std::string csv = "path,true,answer,probability\n";
  std::vector<torch::Tensor> pictures;
  std::vector<std::string> captions;
  for (int64_t i = 0; i < order.size(0); ++i) {
    const int64_t at = order[i].item<int64_t>(), example = scores.index[at].item<int64_t>();
    const auto& truth = classes[static_cast<size_t>(scores.targets[at].item<int64_t>())];
    const auto& answer = classes[static_cast<size_t>(guess[at].item<int64_t>())];
    char number[24];
    std::snprintf(number, sizeof number, ",%.6g\n", chance[at].item<double>());
    csv += csv_cell(images.name(example)) + "," + csv_cell(truth) + "," + csv_cell(answer) + number;
    if (i < kShown && images_available()) {
      pictures.push_back(images.picture(example));
      captions.push_back(truth.substr(0, 11) + " > " + answer.substr(0, 11));
    }
  }
  write_atomically(folder + "/mistakes.csv", csv);
  if (pictures.empty()) return;
  write_image(folder + "/mistakes.png", contact_sheet(pictures, captions, 8));
  std::cout << folder << "/mistakes.png\n";
}

}  // namespace

torch::Tensor draw_confusion(const torch::Tensor& confusion,
                             const std::vector<std::string>& classes) {
  const int64_t count = confusion.size(0);
  const int64_t cell = std::clamp<int64_t>(900 / count, 4, 64);
  const bool named = cell >= 14, numbered = cell >= 30;
  const int64_t left = named ? 150 : 20, top = named ? 150 : 20;
  auto sheet =
      torch::full({top + cell * count + 10, left + cell * count + 10, 3}, 255, torch::kUInt8);
  const auto share = confusion / confusion.sum(1, true).clamp_min(1);
  const auto colours = colour_map(0.08 + 0.84 * share, "viridis");
  const auto large = colours.repeat_interleave(cell, 0).repeat_interleave(cell, 1);
  sheet.slice(0, top, top + cell * count).slice(1, left, left + cell * count).copy_(large);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t y = top + row * cell, x = left + row * cell;
    if (named) {
      const std::string name = classes[static_cast<size_t>(row)].substr(0, 18);
      draw_text(sheet, 4, y + cell / 2 + 4, name, {30, 30, 30}, 0.4);
      // columns: the name runs upwards, drawn on a strip that is then turned
      auto strip = torch::full({cell, top - 8, 3}, 255, torch::kUInt8);
      draw_text(strip, 2, cell / 2 + 4, name, {30, 30, 30}, 0.4);
      const auto turned = strip.flip({1}).transpose(0, 1);
      sheet.slice(0, 4, top - 4).slice(1, x, x + cell).copy_(turned);
    }
    for (int64_t column = 0; numbered && column < count; ++column) {
      const int64_t number = confusion[row][column].item<int64_t>();
      if (number == 0) continue;
      const bool bright = share[row][column].item<double>() > 0.6;
      const std::string text = std::to_string(number);
      draw_text(sheet, left + column * cell + cell / 2 - 4 * static_cast<int64_t>(text.size()),
                y + cell / 2 + 4, text, bright ? Colour{0, 0, 0} : Colour{255, 255, 255}, 0.4);
    }
  }
  if (named) {
    draw_text(sheet, 4, top - 6, "true", {120, 120, 120}, 0.4);
    draw_text(sheet, left - 60, 14, "answer", {120, 120, 120}, 0.4);
  }
  return sheet;
}

void report_images(const ImageScores& scores, const ImageDataset& images,
                   const std::vector<std::string>& classes, const std::string& folder) {
  make_folder(folder);
  const auto known = scores.targets.ge(0).nonzero().squeeze(1);
  const ImageScores judged = {scores.probabilities.index_select(0, known),
                              scores.index.index_select(0, known),
                              scores.targets.index_select(0, known)};
  const auto confusion = confusion_matrix(judged.probabilities, judged.targets);
  write_class_table(confusion, roc_auc_of_classes(judged.probabilities, judged.targets), classes,
                    "pictures", folder);
  std::cout << folder << "/report.csv\n" << folder << "/confusion.csv\n";
  if (images_available()) {
    write_image(folder + "/confusion.png", draw_confusion(confusion, classes));
    std::cout << folder << "/confusion.png\n";
  }
  draw_reliability(calibration_bins(judged.probabilities, judged.targets), folder);
  show_mistakes(judged, images, classes, folder);
}

}  // namespace serpentine
