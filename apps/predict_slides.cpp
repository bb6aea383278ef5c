#include "apps/predict_slides.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>

#include "apps/bag_ensemble.h"
#include "apps/command.h"
#include "apps/slide_pace.h"
#include "core/io/atomic_file.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Says where the command line departs from what the model learnt from.
void tell_other(const char* option, const std::string& now, const std::string& learnt) {
  if (now != learnt) {
    std::cout << "note       " << option << " " << now
              << ", but the model learnt from features with " << learnt << std::endl;
  }
}

void tell_other_settings(const PredictRequest& request, const TileJob& tiling, const Json& learnt) {
  const std::string& source = request.encoder.source;
  const std::string encoder =
      source == "colour" ? source : fs::absolute(source).lexically_normal().string();
  tell_other("--encoder", encoder, learnt.value("encoder", encoder));
  const auto side = [](int64_t pixels) {
    return pixels > 0 ? std::to_string(pixels) : "tiles as they are";
  };
  tell_other("--input-size", side(request.encoder.input_size),
             side(learnt.value("input_size", int64_t{0})));
  if (!learnt.contains("tiling")) return;
  const Json now = tiling.settings();
  for (const auto& option : request.given) {
    const Json::json_pointer at(place_of_tile_option(option));
    tell_other(option.c_str(), now.value(at, Json()).dump(),
               learnt["tiling"].value(at, Json()).dump());
  }
}

/// What the features that the model learnt from went through: encoder, stain, tiles. The command
/// line wins, and is told where it departs.
void use_settings(PredictRequest& request, TileJob& tiling, const std::string& folder) {
  const auto settings = read_json(folder + "/settings.json");
  if (!settings.is_object()) {
    if (request.encoder.source.empty()) {
      throw UsageError("wsi predict: which encoder? " +
                       (folder.empty() ? std::string("The run does not say where its features are")
                                       : folder + "/settings.json is not there") +
                       "; give --encoder (and --mpp, --size), or --features FOLDER of `serpentine "
                       "embed-slides`");
    }
    return;
  }
  if (request.encoder.source.empty()) request.encoder.source = settings.at("encoder");
  request.encoder.precision = settings.value("precision", "fp32");
  request.job.stain = settings.value("stain", "");
  request.job.stain_target = settings.value("stain_target", "");
  if (!request.input_given) request.encoder.input_size = settings.value("input_size", int64_t{0});
  if (settings.contains("tiling")) {
    tiling.use(settings["tiling"]);
    request.options.lay_over(tiling, request.given);
  }
  tell_other_settings(request, tiling, settings);
}

double since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Everything that decides what is said of a slide and how it is drawn.
Json inputs_of(const PredictRequest& request, const TileJob& tiling, const Encoder& encoder,
               const BagEnsemble& ensemble) {
  Json tiles = tiling.settings();
  tiles.erase("layout");
  tiles.erase("read");
  return {{"run", ensemble.identity()},
          {"encoder", encoder.name},
          {"input_size", request.encoder.input_size},
          {"precision", request.encoder.precision},
          {"stain", {request.job.stain, request.job.stain_target}},
          {"tiles", tiles},
          {"pictures",
           {request.heat, request.files.heat_mpp, request.files.style.opacity,
            request.files.style.map, request.files.top, request.files.threshold}}};
}

/// The same with what the options say of this slide.
Json inputs_of_slide(Json inputs, const SlideFile& file, const TileJob& tiling) {
  inputs["slide"] = fs::absolute(file.path).lexically_normal().string();
  inputs["resolution"] = {tiling.slide.given_mpp(file.path), tiling.slide.default_mpp};
  return inputs;
}

/// "" when the slide was predicted from the same; "-" when it was not predicted; else what differs.
std::string changed_inputs(const std::string& folder, const Json& now) {
  if (!fs::exists(folder + "/prediction.json")) return "-";
  Json old = read_json(folder + "/inputs.json");
  if (!old.is_object()) old = Json::object();
  if (old == now) return "";
  std::string keys;
  for (const auto& [key, value] : now.items()) {
    if (!old.contains(key) || old[key] != value) keys += (keys.empty() ? "" : ", ") + key;
  }
  return keys;
}

/// One slide, from the file to its folder of results.
std::string predict_slide(const SlideFile& file, const std::string& left,
                          const PredictRequest& request, const TileJob& tiling,
                          const Encoder& encoder, BagEnsemble& ensemble, const Json& inputs) {
  const auto begin = std::chrono::steady_clock::now();
  const auto slide = open_slide(file.path, tiling.slide);
  const Tissue tissue = find_tissue(*slide, tiling.tissue);
  const TileGrid grid = plan_tiles(*slide, tissue, tiling.tile);
  if (grid.coords.size(0) == 0) throw std::runtime_error(file.path + ": no tissue was found");
  EmbedJob job = request.job;
  job.min_sharpness =
      tiling.read ? tiling.min_sharpness : 0;  // as the tiles that the model learnt from
  std::unique_ptr<Progress> bar;
  std::string stage;
  const auto show = [&](const std::string& what, int64_t done, int64_t all) {
    if (stage != what) {
      bar.reset();
      bar = std::make_unique<Progress>(file.name + " " + what + left, all);
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
  PredictionFiles files = request.files;
  files.progress = show;
  const auto drawing = std::chrono::steady_clock::now();
  const std::string folder = request.out + "/" + file.name;
  fs::remove(folder + "/inputs.json");  // written last: without it the slide is predicted again
  write_slide_prediction(folder, *slide, tissue, prediction, files);
  write_atomically(folder + "/inputs.json", inputs.dump(1) + "\n");
  bar.reset();
  char times[96];
  std::snprintf(times, sizeof times, " (%lld tiles in %.1f s, pictures in %.1f s)",
                static_cast<long long>(embedded.features.size(0)), prediction.seconds,
                since(drawing));
  return prediction.sentence() + times;
}

}  // namespace

int predict_slides(PredictRequest request) {
  TileJob tiling = request.options.finished();
  BagEnsemble ensemble(request.run, request.encoder.device, request.heat);
  if (!ensemble.note().empty()) std::cout << "note       " << ensemble.note() << std::endl;
  const std::string features =
      request.features.empty() ? ensemble.features_folder() : request.features;
  use_settings(request, tiling, features);
  const auto all = find_slides(request.slides);
  if (all.empty()) throw UsageError(request.slides + ": holds no slide");
  request.options.tell_unmatched(all);
  const Encoder encoder = open_encoder(request.encoder, tiling.tile.size);
  ensemble.check_width(encoder.width, encoder.name);
  request.job.stream.threads = tiling.threads;
  request.job.stream.ahead = std::max<int64_t>(2, tiling.threads + 1);
  const Json inputs = inputs_of(request, tiling, encoder, ensemble);
  int64_t failed = 0;
  const auto slides = own_share(all);
  SlidePace pace(slides);
  for (const auto& file : slides) {
    std::string sentence;
    pace.begin();
    const Json own = inputs_of_slide(inputs, file, tiling);
    const std::string differs = changed_inputs(request.out + "/" + file.name, own);
    if (!request.again && differs.empty()) {
      std::cout << file.name << ": finished before" << std::endl;
      pace.end(file, false);
      continue;
    }
    if (!request.again && differs != "-")
      std::cout << file.name << ": predicted anew, other " << differs << " than before"
                << std::endl;
    try {
      sentence = predict_slide(file, pace.left(), request, tiling, encoder, ensemble, own);
    } catch (const c10::Error& error) {
      sentence = "FAILED: " + std::string(error.what_without_backtrace());
      ++failed;
    } catch (const std::exception& error) {
      sentence = std::string("FAILED: ") + error.what();
      ++failed;
    }
    pace.end(file, true);
    std::cout << file.name << ": " << sentence << std::endl;
  }
  std::cout << request.out << ": look at */report.html, or serpentine serve " << request.out
            << "\n";
  return failed > 0 ? 1 : 0;
}

}  // namespace serpentine
