#include "apps/cloud_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/class_table.h"
#include "apps/image_report.h"
#include "apps/trained.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/image.h"
#include "core/io/progress.h"
#include "core/train/class_metrics.h"
#include "pointcloud/draw_cloud.h"
#include "pointcloud/point_order.h"

namespace serpentine {
namespace {

constexpr int64_t kCloudsShown = 120, kPointsShown = 1024;
constexpr double kSpacing = 2.3;  // of clouds of radius 1
constexpr std::array<uint8_t, 3> kRight = {89, 161, 79}, kWrong = {225, 87, 89};

std::string word_of(const std::vector<std::string>& classes, const torch::Tensor& number) {
  return classes.at(static_cast<size_t>(number.item<int64_t>()));
}

/// The clouds to show, ascending by class: at most kCloudsShown, wrong ones first, then evenly.
std::vector<int64_t> shown_clouds(const torch::Tensor& wrong, const torch::Tensor& targets) {
  const int64_t count = targets.size(0);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < count; ++i)
    if (wrong[i].item<bool>()) rows.push_back(i);
  rows.resize(std::min<size_t>(rows.size(), kCloudsShown / 2));
  std::vector<int64_t> others;
  for (int64_t i = 0; i < count; ++i)
    if (!wrong[i].item<bool>()) others.push_back(i);
  const auto room = std::min<int64_t>(kCloudsShown - static_cast<int64_t>(rows.size()),
                                      static_cast<int64_t>(others.size()));
  for (int64_t i = 0; i < room; ++i)
    rows.push_back(others[static_cast<size_t>(i * static_cast<int64_t>(others.size()) / room)]);
  std::sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    const auto class_a = targets[a].item<int64_t>(), class_b = targets[b].item<int64_t>();
    return class_a != class_b ? class_a < class_b : a < b;
  });
  return rows;
}

/// The traversal of each cloud as a line of its own.
torch::Tensor walk_of(const torch::Tensor& points, const std::string& order, int64_t first) {
  const auto walk = point_walk(points.unsqueeze(0), order, {})[0] + first;
  return torch::cat({walk, torch::full({1}, -1, torch::kLong)});
}

CloudScene gallery(const CloudScores& scores, const CloudDataset& clouds,
                   const std::vector<std::string>& classes, const std::string& order) {
  const auto guess = scores.probabilities.argmax(1), wrong = guess.ne(scores.targets);
  const auto rows = shown_clouds(wrong, scores.targets);
  const auto columns = std::max<int64_t>(
      1, static_cast<int64_t>(std::ceil(std::sqrt(1.6 * static_cast<double>(rows.size())))));
  CloudScene scene;
  std::vector<torch::Tensor> points, truth, answer, error, height, walk;
  int64_t first = 0, place = 0;
  for (const int64_t row : rows) {
    const auto all = clouds.get(row).input;
    const auto some = all.narrow(0, 0, std::min(kPointsShown, all.size(0)));
    const int64_t count = some.size(0);
    const double x = kSpacing * static_cast<double>(place % columns),
                 y = -kSpacing * static_cast<double>(place / columns);
    points.push_back(some.to(torch::kDouble) + torch::tensor({x, y, 0.0}, torch::kDouble));
    truth.push_back(scores.targets[row].expand({count}));
    answer.push_back(guess[row].expand({count}));
    error.push_back(wrong[row].to(torch::kLong).expand({count}));
    height.push_back(some.select(1, 2));
    walk.push_back(walk_of(some, order, first));
    if (wrong[row].item<bool>()) {
      scene.marks.push_back(
          {{x - 0.9, y - 1.05, 0.0},
           word_of(classes, scores.targets[row]) + " > " + word_of(classes, guess[row])});
    }
    first += count;
    ++place;
  }
  const auto right = torch::tensor({kRight[0], kRight[1], kRight[2]}, torch::kByte),
             not_right = torch::tensor({kWrong[0], kWrong[1], kWrong[2]}, torch::kByte);
  scene.points = torch::cat(points);
  scene.layers = {{"class", class_colours(torch::cat(truth)), class_keys(classes)},
                  {"answer", class_colours(torch::cat(answer)), class_keys(classes)},
                  {"right or wrong",
                   torch::where(torch::cat(error).unsqueeze(1).to(torch::kBool), not_right, right),
                   {{"right", kRight}, {"wrong: class > answer", kWrong}}},
                  {"height", ramp_colours(torch::cat(height))}};
  scene.walk = torch::cat(walk);
  return scene;
}

void write_mistakes(const CloudScores& scores, const CloudDataset& clouds,
                    const std::vector<std::string>& classes, const std::string& folder) {
  const auto [chance, guess] = scores.probabilities.max(1);
  const auto wrong = guess.ne(scores.targets).nonzero().squeeze(1);
  const auto order = wrong.index_select(
      0, std::get<1>(chance.index_select(0, wrong).sort(/*stable=*/true, 0, /*descending=*/true)));
  std::string csv = "cloud,true,answer,probability\n";
  for (int64_t i = 0; i < order.size(0); ++i) {
    const int64_t row = order[i].item<int64_t>();
    char number[24];
    std::snprintf(number, sizeof number, ",%.6g\n", chance[row].item<double>());
    csv += csv_cell(clouds.name(row)) + "," + csv_cell(word_of(classes, scores.targets[row])) +
           "," + csv_cell(word_of(classes, guess[row])) + number;
  }
  write_atomically(folder + "/mistakes.csv", csv);
}

}  // namespace

CloudScores score_clouds(Model& model, const CloudTask& task, const CloudDataset& clouds,
                         int64_t batch_size, torch::Device device) {
  std::vector<torch::Tensor> chance, targets;
  Progress progress("clouds", clouds.size());
  for (int64_t first = 0; first < clouds.size(); first += batch_size) {
    std::vector<int64_t> rows;
    for (int64_t i = first; i < std::min(first + batch_size, clouds.size()); ++i) rows.push_back(i);
    const Batch batch = clouds.get_batch(rows).to(device);
    chance.push_back(task.vote(model, batch).to(torch::kCPU));
    targets.push_back(batch.target.to(torch::kCPU));
    progress.update(first + static_cast<int64_t>(rows.size()));
  }
  progress.finish();
  return {torch::cat(chance), torch::cat(targets)};
}

void report_clouds(const CloudScores& scores, const CloudDataset& clouds,
                   const std::vector<std::string>& classes, const std::string& order,
                   const std::string& folder) {
  make_folder(folder);
  const auto confusion = confusion_matrix(scores.probabilities, scores.targets);
  write_class_table(confusion, roc_auc_of_classes(scores.probabilities, scores.targets), classes,
                    "clouds", folder);
  write_mistakes(scores, clouds, classes, folder);
  CloudScene scene = gallery(scores, clouds, classes, order);
  write_atomically(folder + "/clouds.html", cloud_page("clouds and answers", scene));
  for (const char* file : {"report.csv", "confusion.csv", "mistakes.csv", "clouds.html"})
    std::cout << folder << "/" << file << "\n";
  if (!images_available()) return;
  write_image(folder + "/confusion.png", draw_confusion(confusion, classes));
  const auto traversal = scene.walk;
  const CloudView above = {0, -0.5, 1.35, 1600, 1000};
  scene.walk = torch::Tensor();
  write_image(folder + "/answers.png", cloud_picture(scene, 1, above));
  scene.walk = traversal;
  write_image(folder + "/traversal.png", cloud_picture(scene, 3, above));
  for (const char* file : {"confusion.png", "answers.png", "traversal.png"})
    std::cout << folder << "/" << file << "\n";
}

std::map<std::string, double> evaluate_clouds(const RunPlan& plan, const RunParts& parts,
                                              const CloudDataset& clouds, CloudTask& task,
                                              const std::string& folder) {
  const auto& trainer = plan.options.fit.trainer;
  const torch::Device device = pick_device(trainer.device);
  torch::manual_seed(trainer.seed);  // votes vary by chance
  parts.model->to(device);
  parts.model->eval();
  const int64_t batch =
      trainer.evaluation_batch > 0 ? trainer.evaluation_batch : plan.options.fit.loader.batch_size;
  const CloudScores scores = score_clouds(*parts.model, task, clouds, batch, device);
  task.add(scores.probabilities, scores.targets);
  if (!folder.empty()) {
    const auto classes = parts.source->description()["classes"].get<std::vector<std::string>>();
    report_clouds(scores, clouds, classes, "hilbert", folder);
  }
  return task.metrics();
}

}  // namespace serpentine
