#include "pathology/embed_job.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include <torch/csrc/api/include/torch/serialize.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/image.h"
#include "core/io/json_file.h"
#include "core/io/safetensors.h"
#include "pathology/slide_lock.h"
#include "pathology/stain.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string path_of(const EmbedJob& job, const std::string& format, const std::string& name) {
  // CLAM's folders, which readers of features know
  const std::string folder = format == "safetensors" ? "" : format + "_files/";
  return job.out + "/" + folder + name + "." + format;
}

/// Pixels of at most 48 tiles spread over the slide.
StainFit fit_stain(const Slide& slide, const TileGrid& grid, const StainNormaliser& stain) {
  const int64_t tiles = grid.coords.size(0), step = std::max<int64_t>(1, tiles / 48);
  std::vector<torch::Tensor> pixels;
  const auto at = grid.coords.accessor<int64_t, 2>();
  for (int64_t i = 0; i < tiles; i += step) {
    TileState state{};
    const auto tile = read_tile(slide, grid, at[i][0], at[i][1], state);
    if (state != TileState::kUnreadable) {
      pixels.push_back(tile.slice(0, 0, grid.size, 2).slice(1, 0, grid.size, 2).reshape({-1, 3}));
    }
  }
  return pixels.empty() ? StainFit{} : stain.fit(torch::cat(pixels));
}

std::unique_ptr<StainNormaliser> stain_of(const EmbedJob& job) {
  if (job.stain.empty()) return nullptr;
  auto stain = std::make_unique<StainNormaliser>(job.stain);
  if (!job.stain_target.empty()) {
    const StainFit target = stain->fit(read_image(job.stain_target).view({-1, 3}));
    if (!target.defined()) {
      throw std::runtime_error(job.stain_target + ": too little of the picture is stained");
    }
    stain->set_target(target);
  }
  return stain;
}

void write_features(const EmbedJob& job, TileRecord record, const EmbeddedTiles& made) {
  record.grid.coords = made.coords;
  const auto stored = [&](const torch::Tensor& of) { return job.half ? of.to(torch::kHalf) : of; };
  const auto values = stored(made.features);
  for (const auto& format : job.formats) {
    const std::string path = path_of(job, format, record.name);
    if (format == "h5") {
      Hdf5Writer file(path);
      file.write("features", values);
      file.write("coords", made.coords);
      if (made.copies.defined()) file.write("augmented", stored(made.copies));
      file.set_attributes("coords", tile_attributes(record, TileLayout::kTrident));
      file.set_attributes("features", {{"encoder", job.encoder},
                                       {"name", record.name},
                                       {"stain", job.stain.empty() ? "none" : job.stain},
                                       {"savetodir", fs::path(path).parent_path().string()}});
      file.finish();
    } else if (format == "safetensors") {
      StateDict tensors = {{"features", values.contiguous()}, {"coords", made.coords}};
      if (made.copies.defined())
        tensors.emplace_back("augmented", stored(made.copies).contiguous());
      write_safetensors(path, tensors,
                        {{"encoder", job.encoder},
                         {"slide_path", record.slide_path},
                         {"tile_size_level0", std::to_string(record.grid.size_level0)}});
    } else {
      const auto bytes = torch::pickle_save(values.contiguous());
      write_atomically(path, std::string(bytes.begin(), bytes.end()));
    }
  }
}

}  // namespace

Json EmbedJob::settings() const {
  Json all = {{"encoder", encoder},
              {"stain", stain},
              {"stain_target", stain_target},
              {"half", half},
              {"precision", precision}};
  // absent: as in folders that know neither
  if (input_size > 0) all["input_size"] = input_size;
  if (augment.copies > 0) {
    all["augment"] = {{"copies", augment.copies}, {"seed", augment.seed}, {"stain", augment.stain}};
  }
  if (!tiling.is_null()) all["tiling"] = tiling;
  return all;
}

int64_t embed_memory(const TileGrid& grid, const EmbedJob& job, int64_t width) {
  const int64_t several = job.formats.size() > 1 || job.half ? 2 : 1;
  return TileStream::memory(grid, job.stream) +
         grid.coords.size(0) * width * 4 * (1 + several) * (1 + job.augment.copies);
}

EmbeddedTiles embed_tiles(const Slide& slide, const TileGrid& grid, const TileEncoder& encoder,
                          const EmbedJob& job) {
  const torch::NoGradGuard no_grad;
  const auto stain = stain_of(job);
  StainFit fit;
  if (stain) fit = fit_stain(slide, grid, *stain);
  EmbeddedTiles made;
  const int64_t tiles = grid.coords.size(0);
  std::vector<torch::Tensor> features;
  std::vector<std::vector<torch::Tensor>> copies(static_cast<size_t>(job.augment.copies));
  std::vector<int64_t> kept;
  const std::string name = fs::path(slide.path()).stem().string();
  TileStreamOptions options = job.stream;
  options.sharpness = job.min_sharpness > 0;
  TileStream stream(slide, grid, options);
  while (auto batch = stream.next()) {
    std::vector<int64_t> sound;
    for (size_t i = 0; i < batch->states.size(); ++i) {
      if (batch->states[i] == TileState::kUnreadable) {
        ++made.unreadable;
      } else if (options.sharpness && batch->sharpness[i] < job.min_sharpness) {
        ++made.blurred;
      } else {
        sound.push_back(static_cast<int64_t>(i));
        kept.push_back(batch->first + static_cast<int64_t>(i));
      }
    }
    if (!sound.empty()) {
      auto pictures = sound.size() == batch->states.size()
                          ? batch->pictures
                          : batch->pictures.index_select(0, torch::tensor(sound, torch::kLong));
      if (stain) pictures = stain->apply(pictures, fit);
      features.push_back(encoder(pictures));
      const auto corners = grid.coords.narrow(0, batch->first, batch->pictures.size(0))
                               .index_select(0, torch::tensor(sound, torch::kLong));
      for (size_t copy = 0; copy < copies.size(); ++copy)
        copies[copy].push_back(encoder(
            augmented_tiles(pictures, corners, name, static_cast<int64_t>(copy), job.augment)));
    }
    if (job.progress) job.progress(batch->first + batch->pictures.size(0), tiles);
  }
  if (features.empty())
    throw std::runtime_error(slide.path() + ": no tile can be read, or all are blurred");
  made.features = torch::cat(features);
  made.coords = grid.coords.index_select(0, torch::tensor(kept, torch::kLong));
  bool finite = made.features.isfinite().all().item<bool>();
  if (!copies.empty()) {
    std::vector<torch::Tensor> all;
    for (auto& parts : copies) {
      all.push_back(torch::cat(parts));
      parts.clear();
    }
    made.copies = torch::stack(all);
    finite = finite && made.copies.isfinite().all().item<bool>();
  }
  TORCH_CHECK(finite, slide.path(),
              ": the encoder gave features that are not finite (NaN or infinite)");
  return made;
}

SlideReport embed_slide(const SlideFile& file, const TileRecord& record, const TileEncoder& encoder,
                        const EmbedJob& job) {
  const std::string path = job.out + "/reports/" + file.name + ".json";
  std::string holder;
  SlideReport report;
  const auto lock = SlideLock::take(job.out + "/locks/" + file.name + ".lock", holder);
  if (!lock) {
    report.outcome = SlideReport::Outcome::kBusy;
    report.content = {{"reason", holder}};
    return report;
  }
  const Json before = read_json(path);
  const bool same_tiles =
      std::abs(before.is_object() ? before.value("mpp", record.slide_mpp) - record.slide_mpp
                                  : 0.0) < 1e-9;
  const bool whole = std::all_of(job.formats.begin(), job.formats.end(), [&](const auto& format) {
    return fs::exists(path_of(job, format, file.name));
  });
  if (!job.again && same_tiles && whole && before.is_object() &&
      before.value("outcome", "") == "done") {
    report.outcome = SlideReport::Outcome::kSkipped;
    report.content = before;
    return report;
  }
  if (!same_tiles) forget_features(job, file.name);  // should this fail, no old ones may stay
  const auto begin = std::chrono::steady_clock::now();
  Json& content = report.content;
  content = {
      {"name", file.name}, {"path", fs::absolute(file.path).string()}, {"encoder", job.encoder}};
  const auto failed = [&](const std::string& why) {
    content["outcome"] = "failed";
    content["reason"] = why;
  };
  try {
    const auto slide = open_slide(file.path, job.slide);
    if (record.width > 0 && (slide->width() != record.width || slide->height() != record.height)) {
      throw std::runtime_error(file.path + ": is another file than the one that was tiled, " +
                               std::to_string(slide->width()) + " x " +
                               std::to_string(slide->height()) + " pixels instead of " +
                               std::to_string(record.width) + " x " +
                               std::to_string(record.height));
    }
    TileRecord own = record;
    own.name = file.name;
    own.slide_path = fs::absolute(file.path).string();
    const EmbeddedTiles made = embed_tiles(*slide, record.grid, encoder, job);
    write_features(job, own, made);
    content["mpp"] = record.slide_mpp;
    content["tiles"] = made.features.size(0);
    content["features"] = made.features.size(1);
    content["tiles_unreadable"] = made.unreadable;
    content["outcome"] = "done";
    report.outcome = SlideReport::Outcome::kDone;
  } catch (const c10::Error& error) {
    failed(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    failed("there was not enough memory; a smaller --batch needs less");
  } catch (const std::exception& error) {
    failed(error.what());
  }
  content["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  write_atomically(path, content.dump(1) + "\n");
  return report;
}

void forget_features(const EmbedJob& job, const std::string& name) {
  std::error_code gone;
  for (const char* format : {"h5", "pt", "safetensors"})
    fs::remove(path_of(job, format, name), gone);
  fs::remove(job.out + "/reports/" + name + ".json", gone);
}

void open_feature_folder(const EmbedJob& job) {
  std::vector<std::string> folders = {"reports", "locks"};
  for (const auto& format : job.formats) {
    if (format != "safetensors") folders.push_back(format + "_files");
  }
  for (const auto& folder : folders) {
    std::error_code error;
    fs::create_directories(job.out + "/" + folder, error);
    if (error) {
      throw std::runtime_error(job.out + "/" + folder + ": cannot be made: " + error.message());
    }
  }
  const std::string path = job.out + "/settings.json";
  const Json before = read_json(path), now = job.settings();
  if (before.is_object() && before != now && !job.again) {
    throw std::runtime_error(job.out + ": holds features of other settings (" + path +
                             "); choose another folder, or make them again with --again");
  }
  write_atomically(path, now.dump(1) + "\n");
}

}  // namespace serpentine
