// serpentine wsi: what a slide is, and what a model of bags says of it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/bag_ensemble.h"
#include "apps/command.h"
#include "apps/encoder.h"
#include "apps/slide_options.h"
#include "core/io/image.h"
#include "core/io/progress.h"
#include "pathology/slide_prediction.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter = R"(Examples:
  serpentine wsi info slide.svs
  serpentine wsi predict runs/lung slide.svs -o predictions/       label, heatmap, report
  serpentine wsi predict runs/crossval-lung slides/ -o predictions/   all folds averaged)";

struct WsiArguments {
  std::string run, slides, out = "predictions", features, thumbnail;
  SlideArguments options;
  EncoderOptions encoder;
  EmbedJob job;
  PredictionFiles files;
  bool tiles_given = false, again = false;
};

/// What the features that the model learnt from went through: encoder, stain, tiles.
void use_settings(WsiArguments& arguments, TileJob& tiling, const std::string& folder) {
  std::ifstream file(folder + "/settings.json");
  const auto settings = nlohmann::json::parse(file, nullptr, false);
  if (!settings.is_object()) {
    if (arguments.encoder.source.empty()) {
      throw UsageError("wsi predict: which encoder? " +
                       (folder.empty() ? std::string("The run does not say where its features are")
                                       : folder + "/settings.json is not there") +
                       "; give --encoder (and --mpp, --size), or --features FOLDER of `serpentine "
                       "embed-slides`");
    }
    return;
  }
  if (arguments.encoder.source.empty()) arguments.encoder.source = settings.at("encoder");
  arguments.encoder.precision = settings.value("precision", "fp32");
  arguments.job.stain = settings.value("stain", "");
  arguments.job.stain_target = settings.value("stain_target", "");
  if (settings.contains("tiling") && !arguments.tiles_given) tiling.use(settings["tiling"]);
}

double since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// One slide, from the file to its folder of results.
std::string predict_slide(const SlideFile& file, const WsiArguments& arguments,
                          const TileJob& tiling, const Encoder& encoder, BagEnsemble& ensemble) {
  const auto begin = std::chrono::steady_clock::now();
  const auto slide = open_slide(file.path, tiling.slide);
  const Tissue tissue = find_tissue(*slide, tiling.tissue);
  const TileGrid grid = plan_tiles(*slide, tissue, tiling.tile);
  if (grid.coords.size(0) == 0) throw std::runtime_error(file.path + ": no tissue was found");
  EmbedJob job = arguments.job;
  std::unique_ptr<Progress> bar;
  std::string stage;
  const auto show = [&](const std::string& what, int64_t done, int64_t all) {
    if (stage != what) {
      bar.reset();
      bar = std::make_unique<Progress>(file.name + " " + what, all);
      stage = what;
    }
    bar->update(done);
  };
  job.progress = [&](int64_t done, int64_t all) { show("tiles", done, all); };
  const EmbeddedTiles embedded = embed_tiles(*slide, grid, encoder.encode, job);
  SlidePrediction prediction = ensemble.predict(embedded.features, embedded.coords);
  prediction.name = file.name;
  prediction.encoder = encoder.name;
  prediction.grid = grid;
  prediction.grid.coords = embedded.coords;
  prediction.tiles_unreadable = embedded.unreadable;
  prediction.seconds = since(begin);
  PredictionFiles files = arguments.files;
  files.progress = show;
  const auto drawing = std::chrono::steady_clock::now();
  write_slide_prediction(arguments.out + "/" + file.name, *slide, tissue, prediction, files);
  bar.reset();
  char times[96];
  std::snprintf(times, sizeof times, " (%lld tiles in %.1f s, pictures in %.1f s)",
                static_cast<long long>(embedded.features.size(0)), prediction.seconds,
                since(drawing));
  return prediction.sentence() + times;
}

int run_predict(WsiArguments arguments) {
  TileJob tiling = arguments.options.finished();
  BagEnsemble ensemble(arguments.run, arguments.encoder.device);
  const std::string features =
      arguments.features.empty() ? ensemble.features_folder() : arguments.features;
  use_settings(arguments, tiling, features);
  const auto all = find_slides(arguments.slides);
  if (all.empty()) throw UsageError(arguments.slides + ": holds no slide");
  const Encoder encoder = open_encoder(arguments.encoder, tiling.tile.size);
  ensemble.check_width(encoder.width, encoder.name);
  arguments.job.stream.threads = tiling.threads;
  arguments.job.stream.ahead = std::max<int64_t>(2, tiling.threads + 1);
  int64_t failed = 0;
  for (const auto& file : own_share(all)) {
    std::string sentence;
    if (!arguments.again && fs::exists(arguments.out + "/" + file.name + "/prediction.json")) {
      std::cout << file.name << ": finished before" << std::endl;
      continue;
    }
    try {
      sentence = predict_slide(file, arguments, tiling, encoder, ensemble);
    } catch (const c10::Error& error) {
      sentence = "FAILED: " + std::string(error.what_without_backtrace());
      ++failed;
    } catch (const std::exception& error) {
      sentence = std::string("FAILED: ") + error.what();
      ++failed;
    }
    std::cout << file.name << ": " << sentence << std::endl;
  }
  std::cout << arguments.out << ": look at */report.html, or serpentine serve " << arguments.out
            << "\n";
  return failed > 0 ? 1 : 0;
}

int run_info(const WsiArguments& arguments) {
  const auto slide = open_slide(arguments.slides, arguments.options.finished().slide);
  std::printf("file       %s\nformat     %s\nsize       %lld x %lld pixels\n",
              slide->path().c_str(), slide->format().c_str(),
              static_cast<long long>(slide->width()), static_cast<long long>(slide->height()));
  std::printf("resolution %s\n", slide->mpp().value > 0
                                     ? (std::to_string(slide->mpp().value) +
                                        " microns per pixel, from " + slide->mpp().source)
                                           .c_str()
                                     : "unknown; give --default-mpp or --mpp-csv");
  for (size_t i = 0; i < slide->levels().size(); ++i) {
    const auto& level = slide->levels()[i];
    std::printf("level %zu    %lld x %lld, reduced by %.4g\n", i,
                static_cast<long long>(level.width), static_cast<long long>(level.height),
                level.downsample);
  }
  for (const auto& name : slide->associated_names()) std::printf("picture    %s\n", name.c_str());
  if (!slide->remark().empty()) std::printf("remark     %s\n", slide->remark().c_str());
  if (!arguments.thumbnail.empty()) {
    write_image(arguments.thumbnail, thumbnail(*slide, 1024));
    std::printf("thumbnail  %s\n", arguments.thumbnail.c_str());
  }
  return 0;
}

void add_predict(CLI::App& wsi, Action& action) {
  auto arguments = std::make_shared<WsiArguments>();
  arguments->options.job.threads = std::max(1U, std::thread::hardware_concurrency());
  auto* command = wsi.add_subcommand("predict", "Label, probability, heatmap and report of slides");
  command->footer(kFooter);
  command->add_option("RUN", arguments->run, "Run over bags, or a folder of `serpentine crossval`")
      ->required();
  command->add_option("SLIDES", arguments->slides, "A slide, or a folder of slides")->required();
  command->add_option("-o,--out", arguments->out, "Folder of the results, one a slide")
      ->capture_default_str();
  command->add_option("--features", arguments->features,
                      "Folder whose settings (encoder, tiles) hold; default: the run's");
  command->add_option("--encoder", arguments->encoder.source,
                      "Instead of the one in those settings");
  command->add_option("--device", arguments->encoder.device, "auto, cpu or cuda");
  command->add_option("--batch", arguments->job.stream.batch, "Tiles of a batch")
      ->check(CLI::Range(1, 65536));
  command->add_option("--readers", arguments->options.job.threads, "Threads that read tiles")
      ->check(CLI::Range(1, 256));
  command
      ->add_option("--heat-mpp", arguments->files.heat_mpp,
                   "Micrometres of the pyramid's pixel; 0: none")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  command->add_option("--opacity", arguments->files.style.opacity, "Of the heat over the slide")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--colours", arguments->files.style.map, "turbo or viridis")
      ->check(CLI::IsMember({"turbo", "viridis"}));
  command->add_option("--top", arguments->files.top, "Tiles on the sheet")
      ->check(CLI::Range(1, 400));
  command
      ->add_option("--above", arguments->files.threshold,
                   "Rank from which QuPath's tiles are classified")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("--again", arguments->again, "Also slides that are finished");
  add_mpp_options(*command, arguments->options);
  add_tile_options(*command, arguments->options);
  command->callback([&action, arguments, command] {
    arguments->tiles_given = command->count("--mpp") + command->count("--size") +
                                 command->count("--downsample") + command->count("--overlap") >
                             0;
    action = [arguments] { return run_predict(*arguments); };
  });
}

}  // namespace

void add_wsi_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("wsi", "Say what a slide is; predict slides");
  command->footer(kFooter);
  command->require_subcommand(1);
  add_predict(*command, action);
  auto arguments = std::make_shared<WsiArguments>();
  auto* info = command->add_subcommand("info", "Format, size, levels, resolution");
  info->footer(kFooter);
  info->add_option("SLIDE", arguments->slides, "A slide")->required();
  info->add_option("--thumbnail", arguments->thumbnail, "Write a thumbnail there");
  add_mpp_options(*info, arguments->options);
  info->callback([&action, arguments] { action = [arguments] { return run_info(*arguments); }; });
}

}  // namespace serpentine
