#include "apps/demo_pathology.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <random>
#include <thread>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/predict_slides.h"
#include "apps/training.h"
#include "core/io/atomic_file.h"
#include "core/io/progress.h"
#include "pathology/colour_encoder.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBags = 800, kTilesOfBag = 8, kNuclei = 41;  // the feature that counts nuclei

/// Bags of tiles drawn from one slide. A bag's label says whether any of its tiles is among the
/// twelfth with the most nuclei; which tile it is, the model must find out.
void write_bags(const std::string& folder, const EmbeddedTiles& tiles) {
  std::mt19937_64 draw(1);
  const auto nuclei = tiles.features.select(1, kNuclei);
  const double limit = torch::quantile(nuclei, 11.0 / 12).item<double>();
  const auto count = static_cast<uint64_t>(tiles.features.size(0));
  std::string table = "slide_id,case_id,label\n";
  for (int64_t bag = 0; bag < kBags; ++bag) {
    std::vector<int64_t> rows;
    while (static_cast<int64_t>(rows.size()) < kTilesOfBag) {
      const auto row = static_cast<int64_t>(draw() % count);
      if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
    }
    const auto index = torch::tensor(rows, torch::kLong);
    const bool rich = nuclei.index_select(0, index).max().item<double>() > limit;
    const std::string name = "bag" + std::to_string(bag);
    Hdf5Writer file(folder + "/h5_files/" + name + ".h5");
    file.write("features", tiles.features.index_select(0, index));
    file.write("coords", tiles.coords.index_select(0, index));
    file.finish();
    table += name + "," + name + "," + (rich ? "many nuclei" : "few nuclei") + "\n";
  }
  write_atomically(folder + "/labels.csv", table);
}

}  // namespace

int run_pathology_demo(const std::string& root, const std::string& out,
                       const std::vector<std::string>& overrides) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string folder = out + "/pathology", slides = root + "/data/samples/slides";
  fs::remove_all(folder);
  fs::create_directories(folder + "/features/h5_files");
  const auto threads = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));

  std::cout << "\n== Tissue and tiles\n";
  TileJob tiling;
  tiling.out = folder + "/tiles";
  tiling.tile.size = 112;
  tiling.tile.overlap = 28;
  tiling.threads = threads;
  open_tile_folder(tiling);
  const SlideFile file = find_slides(slides).front();
  const SlideReport report = tile_slide(file, tiling);
  std::cout << file.name << ": " << report.sentence() << "\n";
  if (report.outcome != SlideReport::Outcome::kDone) return 1;

  std::cout << "\n== Features, and bags with labels\n";
  EmbedJob job;
  job.out = folder + "/features";
  job.encoder = "colour";
  job.tiling = tiling.settings();
  job.stream.threads = threads;
  open_feature_folder(job);
  const TileRecord record = read_coords(tiling.out + "/coords/" + file.name + ".h5");
  const auto slide = open_slide(file.path);
  write_bags(job.out, embed_tiles(*slide, record.grid, colour_features, job));
  std::printf("%lld bags of %lld tiles; a label says whether any of them is rich in nuclei\n",
              static_cast<long long>(kBags), static_cast<long long>(kTilesOfBag));

  std::cout << "\n== MambaMIL learns from the bags' labels alone\n";
  TrainRequest request;
  request.config = root + "/configs/demo/pathology.yaml";
  request.overrides = {"data.path=" + job.out + "/labels.csv", "data.features=" + job.out};
  request.overrides.insert(request.overrides.end(), overrides.begin(), overrides.end());
  request.out = folder + "/run";
  request.replace = true;
  const TrainResult trained = train_run(all_packages(), request);
  if (trained.code != 0) return trained.code;

  std::cout << "\n== The slide: label, heatmap, report\n";
  PredictRequest predict;
  predict.run = request.out;
  predict.slides = file.path;
  predict.out = folder + "/predictions";
  predict.files.heat_mpp = 1;
  predict.options.job.threads = threads;
  const int code = predict_slides(predict);
  const std::string results = predict.out + "/" + file.name;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "\nTook %s. Look at\n  %s/report.html\n  %s/overlay.png\n  %s/pictures/%s.png\nand try\n"
      "  serpentine serve %s\n",
      format_seconds(seconds).c_str(), results.c_str(), results.c_str(), tiling.out.c_str(),
      file.name.c_str(), predict.out.c_str());
  return code;
}

}  // namespace serpentine
