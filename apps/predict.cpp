// serpentine predict: the classes of pictures, as tables and to look at.
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/image_run.h"
#include "apps/trained.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/image.h"

namespace serpentine {
namespace {

constexpr const char* kPredictFooter =
    R"(Writes predictions.csv, predictions.json and sheet.png, the pictures with their class.
A picture that cannot be read is named on stderr and left out of the tables.
Examples:
  serpentine predict runs/flowers photos/ --top 5
  serpentine predict runs/flowers a.jpg b.png --out answers
  serpentine predict runs/fashion --split test        a part of the run's own data)";

struct PredictArguments {
  std::string run, split, out, device = "auto";
  std::vector<std::string> images;
  int64_t top = 1, batch = 64, sheet = 48;
};

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

struct Ranked {
  torch::Tensor chances, classes;  // [n, top], the most probable first
};

void write_tables(const PredictArguments& arguments, const ImageRun& run,
                  const ImageDataset& images, const ImageScores& scores, const Ranked& ranked) {
  std::string csv = "path";
  for (int64_t k = 1; k <= ranked.classes.size(1); ++k)
    csv += ",class_" + std::to_string(k) + ",probability_" + std::to_string(k);
  csv += "\n";
  nlohmann::json json = nlohmann::json::array();
  for (int64_t i = 0; i < scores.index.size(0); ++i) {
    const std::string name = images.name(scores.index[i].item<int64_t>());
    nlohmann::json guesses = nlohmann::json::array();
    csv += csv_cell(name);
    for (int64_t k = 0; k < ranked.classes.size(1); ++k) {
      const auto& category =
          run.schema.classes[static_cast<size_t>(ranked.classes[i][k].item<int64_t>())];
      const double chance = ranked.chances[i][k].item<double>();
      csv += "," + csv_cell(category) + "," + number(chance);
      guesses.push_back({{"class", category}, {"probability", chance}});
    }
    csv += "\n";
    json.push_back({{"path", name}, {"predictions", guesses}});
  }
  write_atomically(arguments.out + "/predictions.csv", csv);
  write_atomically(arguments.out + "/predictions.json", json.dump(1) + "\n");
}

void draw_sheet(const PredictArguments& arguments, const ImageRun& run, const ImageDataset& images,
                const ImageScores& scores, const Ranked& ranked) {
  std::vector<torch::Tensor> pictures;
  std::vector<std::string> captions;
  for (int64_t i = 0; i < std::min(arguments.sheet, scores.index.size(0)); ++i) {
    pictures.push_back(images.picture(scores.index[i].item<int64_t>()));
    char share[16];
    std::snprintf(share, sizeof share, " %.0f %%", 100 * ranked.chances[i][0].item<double>());
    captions.push_back(
        run.schema.classes[static_cast<size_t>(ranked.classes[i][0].item<int64_t>())].substr(0,
                                                                                             16) +
        share);
  }
  const std::string path = arguments.out + "/sheet.png";
  write_image(path, contact_sheet(pictures, captions, 8));
  std::cout << path << "\n";
}

int run_predict(PredictArguments arguments) {
  if (arguments.images.empty() == arguments.split.empty())
    throw UsageError("predict: give pictures or --split, one of the two");
  const Packages packages = all_packages();
  const ImageRun run = open_image_run(packages, arguments.run, arguments.device);
  std::shared_ptr<const ImageDataset> images;
  if (arguments.split.empty()) {
    images = picture_files(run, arguments.images);
  } else {
    images = part_of_run(packages, run, arguments.split);
  }
  const ImageScores scores = score_images(run, *images, arguments.batch);
  const int64_t top = std::min(arguments.top, scores.probabilities.size(1));
  const auto [chances, classes] = scores.probabilities.topk(top, 1);
  if (arguments.out.empty()) arguments.out = arguments.run + "/predictions";
  make_folder(arguments.out);
  write_tables(arguments, run, *images, scores, {chances, classes});
  std::cout << arguments.out << "/predictions.csv\n" << arguments.out << "/predictions.json\n";
  if (images_available() && arguments.sheet > 0)
    draw_sheet(arguments, run, *images, scores, {chances, classes});
  const int64_t missing = images->size() - scores.index.size(0);
  std::cout << scores.index.size(0) << " pictures"
            << (missing > 0 ? ", " + std::to_string(missing) + " could not be read" : "") << "\n";
  return 0;
}

}  // namespace

void add_predict_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("predict", "The classes of pictures");
  command->footer(kPredictFooter);
  auto arguments = std::make_shared<PredictArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training on images")->required();
  command->add_option("IMAGES", arguments->images, "Pictures, or folders of them");
  command->add_option("--split", arguments->split, "Instead: a part of the run's own data")
      ->check(CLI::IsMember({"train", "validation", "test"}));
  command->add_option("--top", arguments->top, "Classes of a picture, the most probable first")
      ->check(CLI::Range(int64_t{1}, int64_t{1000000}))
      ->capture_default_str();
  command->add_option("--out", arguments->out, "Folder of the results (default: RUN/predictions)");
  command->add_option("--batch", arguments->batch, "Pictures that the model sees at once")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  command->add_option("--sheet", arguments->sheet, "Pictures of sheet.png at most; 0: no sheet")
      ->check(CLI::Range(int64_t{0}, int64_t{2000}))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "auto, cpu or cuda");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_predict(*arguments); }; });
}

}  // namespace serpentine
