#include "segmentation/evaluation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/progress.h"
#include "segmentation/case_group.h"
#include "segmentation/draw.h"
#include "segmentation/file_error.h"
#include "segmentation/predict.h"
#include "segmentation/volume.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> files_of(const std::string& folder) {
  std::map<std::string, std::string> found;
  TORCH_CHECK(fs::is_directory(folder), folder, ": there is no such folder");
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!is_image_path(entry.path())) continue;
    found[case_name(entry.path())] = entry.path().string();
  }
  return found;
}

/// The truth of a prediction: the same name, or one of the usual endings behind it.
std::string partner(const std::map<std::string, std::string>& files, const std::string& name) {
  for (const char* suffix : label_endings()) {
    const auto found = files.find(name + suffix);
    if (found != files.end()) return found->second;
  }
  return "";
}

/// The name that a prediction of this truth would have.
std::string name_of_truth(const std::string& truth) {
  for (const std::string ending : label_endings()) {
    if (!ending.empty() && truth.size() > ending.size() && truth.ends_with(ending))
      return truth.substr(0, truth.size() - ending.size());
  }
  return truth;
}

/// Adds what is not zero in labels, int32 without gaps.
void add_values(const torch::Tensor& labels, std::set<int64_t>& values) {
  const auto* data = labels.const_data_ptr<int32_t>();
  int32_t last = 0;
  for (int64_t i = 0; i < labels.numel(); ++i) {
    if (data[i] == last || data[i] == 0) continue;
    last = data[i];
    values.insert(last);
  }
}

std::string some_of(const std::set<int64_t>& values) {
  std::string text;
  size_t said = 0;
  for (const int64_t value : values) {
    if (said++ == 5) return text + ", ...";
    text += (text.empty() ? "" : ", ") + std::to_string(value);
  }
  return text;
}

torch::Tensor mask_of(const torch::Tensor& labels, const std::vector<int64_t>& values) {
  auto mask = labels.eq(values.at(0));
  for (size_t i = 1; i < values.size(); ++i) mask = mask | labels.eq(values[i]);
  return mask;
}

struct Pair {
  torch::Tensor guess, truth;
  Spacing spacing{};
};

Pair read_pair(const CasePair& one, const EvaluationOptions& options) {
  const Volume place = read_volume(one.truth);
  Pair pair;
  pair.spacing = place.spacing;
  pair.truth = read_labels(one.truth, place, options.label_scale);
  pair.guess = read_prediction(one.guess, place, options.label_scale);
  if (options.ignore >= 0) {
    const auto away = pair.truth.eq(options.ignore);
    pair.truth.masked_fill_(away, 0);
    pair.guess.masked_fill_(away, 0);
  }
  return pair;
}

std::string number(double value, const char* format = "%.6g") {
  if (!std::isfinite(value)) return "";
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// Values of one metric over cases that have one.
std::vector<double> column(const Evaluation& all, size_t k, size_t metric) {
  std::vector<double> values;
  for (const auto& one : all.cases) {
    const double value = metric_values(one.classes[k])[metric];
    if (std::isfinite(value)) values.push_back(value);
  }
  return values;
}

struct Spread {
  double mean = std::nan(""), deviation = std::nan(""), median = std::nan("");
};

Spread spread_of(std::vector<double> values) {
  Spread found;
  if (values.empty()) return found;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  double sum = 0, square = 0;
  for (const double value : values) sum += value;
  found.mean = sum / count;
  for (const double value : values) square += (value - found.mean) * (value - found.mean);
  found.deviation = values.size() > 1 ? std::sqrt(square / (count - 1)) : 0;
  const size_t half = values.size() / 2;
  found.median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return found;
}

std::string cases_csv(const Evaluation& all, const EvaluationOptions& options) {
  std::string text = "case,class";
  for (const auto& name : metric_names(options.metrics)) text += "," + name;
  text += "\n";
  for (const auto& one : all.cases) {
    for (size_t k = 0; k < all.class_names.size(); ++k) {
      text += csv_cell(one.name) + "," + csv_cell(all.class_names[k]);
      for (const double value : metric_values(one.classes[k])) text += "," + number(value);
      text += "\n";
    }
  }
  const std::string nothing(metric_names(options.metrics).size(), ',');
  for (const auto& name : all.missing) {
    for (const auto& class_name : all.class_names)
      text += csv_cell(name) + "," + csv_cell(class_name) + nothing + "\n";
  }
  return text;
}

std::string classes_csv(const Evaluation& all, const EvaluationOptions& options) {
  std::string text = "class,metric,cases,mean,deviation,median\n";
  const auto names = metric_names(options.metrics);
  for (size_t k = 0; k < all.class_names.size(); ++k) {
    for (size_t m = 0; m < names.size(); ++m) {
      const auto values = column(all, k, m);
      const auto spread = spread_of(values);
      text += csv_cell(all.class_names[k]) + "," + names[m] + "," + std::to_string(values.size()) +
              "," + number(spread.mean) + "," + number(spread.deviation) + "," +
              number(spread.median) + "\n";
    }
  }
  return text;
}

std::string image_of(const std::string& folder, const std::string& name) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto own = case_name(entry.path());
    if ((own == name || own == name + "_0000") && is_image_path(entry.path()))
      return entry.path().string();
  }
  return "";
}

/// Pages of the worst cases and their contact sheet. What an image spoils is noted, not thrown.
void draw_cases(const Evaluation& all, const EvaluationOptions& options, const std::string& folder,
                WrittenEvaluation& written) {
  std::vector<const CaseScores*> order;
  for (const auto& one : all.cases)
    if (!one.image.empty()) order.push_back(&one);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return (std::isfinite(a->mean_dice) ? a->mean_dice : 2) <
           (std::isfinite(b->mean_dice) ? b->mean_dice : 2);
  });
  std::vector<SheetEntry> sheet;
  for (const auto* one : order) {
    if (static_cast<int64_t>(sheet.size()) >= options.worst) break;
    try {
      const Volume image = read_volume(one->image);
      const auto pair = read_pair(*one, options);
      const std::array<int64_t, 3> size = {pair.truth.size(0), pair.truth.size(1),
                                           pair.truth.size(2)};
      TORCH_CHECK(image.size() == size, one->image, ": has the size ", size_text(image.size()),
                  ", its truth ", size_text(size));
      char title[160];
      std::snprintf(title, sizeof title, "%s: mean Dice %.4f", one->name.c_str(), one->mean_dice);
      const auto pages = write_case_pages(folder, one->name, title, image, pair.guess, pair.truth);
      written.files.insert(written.files.end(), pages.begin(), pages.end());
      sheet.push_back({title, worst_slice(image, pair.guess, pair.truth)});
    } catch (const std::exception& error) {
      written.notes.push_back(one->name + ": has no pictures; " + reason_of(error));
    }
  }
  if (sheet.empty()) return;
  write_sheet(folder + "/worst.png", sheet);
  written.files.push_back(folder + "/worst.png");
}

}  // namespace

Evaluation evaluate_pairs(const std::vector<CasePair>& pairs, const EvaluationOptions& options) {
  Evaluation all;
  for (const auto& [name, values] : options.classes) {
    all.class_names.push_back(name);
    all.class_values.push_back(values);
  }
  if (options.classes.empty()) {
    std::set<int64_t> seen;
    for (const auto& one : pairs) {
      try {
        add_values(read_pair(one, options).truth, seen);
      } catch (const std::exception&) {
        continue;  // reported below
      }
    }
    for (const int64_t value : seen) {
      if (value <= 0) continue;
      all.class_names.push_back(std::to_string(value));
      all.class_values.push_back({value});
    }
  }
  Progress progress("evaluating", static_cast<int64_t>(pairs.size()));
  int64_t done = 0;
  std::set<int64_t> predicted, real;
  for (const auto& files : pairs) {
    CaseScores one{files, {}, 0};
    try {
      const auto pair = read_pair(one, options);
      add_values(pair.guess, predicted);
      add_values(pair.truth, real);
      double sum = 0, count = 0;
      for (const auto& values : all.class_values) {
        one.classes.push_back(mask_metrics(mask_of(pair.guess, values), mask_of(pair.truth, values),
                                           pair.spacing, options.metrics));
        if (!std::isfinite(one.classes.back().dice)) continue;
        sum += one.classes.back().dice;
        count += 1;
      }
      one.mean_dice = count > 0 ? sum / count : std::nan("");
      all.cases.push_back(std::move(one));
    } catch (const std::exception& error) {
      all.notes.push_back(files.name + ": left out; " + reason_of(error));
    }
    progress.update(++done);
  }
  progress.finish();
  TORCH_CHECK(!all.cases.empty(), "no case could be evaluated",
              all.notes.empty() ? "" : "; " + all.notes[0]);
  const auto common = [&](int64_t value) { return real.count(value) > 0; };
  if (!predicted.empty() && !real.empty() &&
      std::none_of(predicted.begin(), predicted.end(), common))
    all.warnings.push_back("predictions and truths share no value but 0: predictions hold " +
                           some_of(predicted) + ", truths " + some_of(real));
  return all;
}

Evaluation evaluate_folders(const std::string& guesses, const std::string& truths,
                            const EvaluationOptions& options) {
  const auto predicted = files_of(guesses), real = files_of(truths);
  std::vector<std::string> notes;
  std::vector<CasePair> pairs;
  std::set<std::string> used;
  for (const auto& [name, file] : predicted) {
    const auto truth = partner(real, name);
    if (truth.empty()) {
      notes.push_back(name + ": left out, there is no truth in " + truths);
    } else {
      used.insert(truth);
      pairs.push_back(
          {name, file, truth, options.images.empty() ? "" : image_of(options.images, name)});
    }
  }
  TORCH_CHECK(!pairs.empty(), guesses, ": holds no prediction with a truth in ", truths,
              notes.empty() ? "" : "; " + notes[0]);
  Evaluation all = evaluate_pairs(pairs, options);
  all.notes.insert(all.notes.begin(), notes.begin(), notes.end());
  for (const auto& [name, file] : real) {
    const auto own = name_of_truth(name);
    if (used.count(file) == 0 && predicted.count(own) == 0) all.missing.push_back(own);
  }
  return all;
}

std::string summary_text(const Evaluation& all, const EvaluationOptions& /*options*/) {
  constexpr std::pair<size_t, const char*> kShown[] = {{0, "Dice"}, {4, "HD95 mm"}, {6, "ASSD mm"}};
  std::vector<std::vector<std::string>> cells;
  size_t width = 16;
  char line[200];
  for (size_t k = 0; k < all.class_names.size(); ++k) {
    cells.emplace_back();
    for (const auto& [metric, title] : kShown) {
      const auto values = column(all, k, metric);
      const auto spread = spread_of(values);
      std::snprintf(line, sizeof line, "%7.4f +- %5.3f", spread.mean, spread.deviation);
      std::string cell = values.empty() ? "-" : line;
      // an undefined figure must not drop out of a mean unseen
      if (values.size() != all.cases.size()) cell += " of " + std::to_string(values.size());
      width = std::max(width, cell.size());
      cells.back().push_back(std::move(cell));
    }
  }
  std::snprintf(line, sizeof line, "%-18s %6s", "class", "cases");
  std::string text = line;
  for (const auto& [metric, title] : kShown) {
    std::snprintf(line, sizeof line, " %*s", static_cast<int>(width), title);
    text += line;
  }
  text += "\n";
  for (size_t k = 0; k < all.class_names.size(); ++k) {
    std::snprintf(line, sizeof line, "%-18s %6zu", all.class_names[k].c_str(), all.cases.size());
    text += line;
    for (const auto& cell : cells[k]) text += " " + std::string(width - cell.size(), ' ') + cell;
    text += "\n";
  }
  if (!all.missing.empty()) text += "missing " + std::to_string(all.missing.size()) + "\n";
  return text;
}

WrittenEvaluation write_evaluation(const Evaluation& all, const EvaluationOptions& options,
                                   const std::string& folder) {
  fs::create_directories(folder);
  WrittenEvaluation written;
  const auto keep = [&](const std::string& name, const std::string& text) {
    write_atomically(folder + "/" + name, text);
    written.files.push_back(folder + "/" + name);
  };
  keep("cases.csv", cases_csv(all, options));
  keep("classes.csv", classes_csv(all, options));
  for (const auto& [metric, name] : {std::pair<size_t, const char*>{0, "dice"}, {4, "hd95"}}) {
    std::vector<BoxGroup> groups;
    for (size_t k = 0; k < all.class_names.size(); ++k)
      groups.push_back({all.class_names[k], column(all, k, metric)});
    keep(std::string(name) + ".svg",
         box_plot_svg(metric == 0 ? "Dice" : "95 % Hausdorff distance (mm)", groups));
  }
  draw_cases(all, options, folder, written);
  return written;
}

}  // namespace serpentine
