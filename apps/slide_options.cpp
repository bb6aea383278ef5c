#include "apps/slide_options.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "core/dist/process_group.h"

namespace serpentine {
namespace {

/// Where an option of tiles stands in TileJob::settings().
constexpr std::pair<const char*, const char*> kPlaces[] = {
    {"--mpp", "/tile/mpp"},
    {"--downsample", "/tile/downsample"},
    {"--size", "/tile/size"},
    {"--overlap", "/tile/overlap"},
    {"--min-tissue", "/tile/min_tissue"},
    {"--tissue", "/tissue/method"},
    {"--threshold", "/tissue/threshold"},
    {"--tissue-mpp", "/tissue/mpp"},
    {"--min-area", "/tissue/min_area"},
    {"--min-hole", "/tissue/min_hole"},
    {"--keep-pen", "/tissue/reject_pen"},
    {"--min-sharpness", "/min_sharpness"},
};

}  // namespace

TileJob SlideArguments::finished() const {
  TileJob all = job;
  if (!mpp_csv.empty()) all.slide.mpp_of = read_mpp_csv(mpp_csv);
  all.layout = layout == "clam" ? TileLayout::kClam : TileLayout::kTrident;
  all.read = !no_read;
  all.tissue.reject_pen = !keep_pen;
  if (all.tile.overlap >= all.tile.size) {
    throw UsageError("--overlap " + std::to_string(all.tile.overlap) +
                     " must be below the tile's --size " + std::to_string(all.tile.size));
  }
  return all;
}

void SlideArguments::tell_unmatched(const std::vector<SlideFile>& slides) const {
  if (mpp_csv.empty()) return;
  const SlideOptions named = finished().slide;
  for (const auto& slide : slides) {
    if (named.given_mpp(slide.path) > 0) return;
  }
  std::cerr << mpp_csv << ": names none of the " << slides.size() << " slides"
            << (named.mpp_of.empty() ? "" : " (it has '" + named.mpp_of.begin()->first + "'")
            << (named.mpp_of.empty() || slides.empty()
                    ? ""
                    : ", a slide is '" +
                          std::filesystem::path(slides.front().path).filename().string() + "')")
            << std::endl;
}

void add_mpp_options(CLI::App& command, SlideArguments& arguments) {
  command.add_option("--mpp-csv", arguments.mpp_csv,
                     "CSV with the columns slide and mpp; wins over what the files say");
  command
      .add_option("--default-mpp", arguments.job.slide.default_mpp,
                  "Microns per pixel of slides that do not say theirs")
      ->check(CLI::Range(0.01, 50.0));
}

void add_tile_options(CLI::App& command, SlideArguments& arguments) {
  TileJob& job = arguments.job;
  command.add_option("--mpp", job.tile.mpp, "Microns per pixel of the tiles")
      ->check(CLI::Range(0.01, 1000.0))
      ->capture_default_str();
  command
      .add_option("--downsample", job.tile.downsample,
                  "Instead of --mpp: level-0 pixels along a tile's pixel")
      ->check(CLI::Range(0.01, 10000.0));
  command.add_option("--size", job.tile.size, "Pixels of a tile's side")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command.add_option("--overlap", job.tile.overlap, "Pixels that neighbours share")
      ->check(CLI::Range(0, 65536));
  command.add_option("--min-tissue", job.tile.min_tissue, "Least share of tissue in a tile")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--tissue", job.tissue.method, "otsu, entropy or fixed")
      ->check(CLI::IsMember({"otsu", "entropy", "fixed"}))
      ->capture_default_str();
  command.add_option("--threshold", job.tissue.threshold, "Saturation of 255, for --tissue fixed")
      ->check(CLI::Range(0.0, 255.0));
  command.add_option("--tissue-mpp", job.tissue.mpp, "Micrometres of a pixel of the mask")
      ->check(CLI::Range(0.1, 1000.0));
  command
      .add_option("--min-area", job.tissue.min_area, "Least piece of tissue, square micrometres")
      ->check(CLI::Range(0.0, 1e12));
  command.add_option("--min-hole", job.tissue.min_hole, "Least hole that stays one")
      ->check(CLI::Range(0.0, 1e12));
  command.add_flag("--keep-pen", arguments.keep_pen, "Do not leave out felt pens");
  command
      .add_option("--min-sharpness", job.min_sharpness,
                  "Drop tiles whose Laplacian varies less (see quality.csv)")
      ->check(CLI::Range(0.0, 1e9));
}

void add_read_option(CLI::App& command, SlideArguments& arguments) {
  command.add_flag("--no-read", arguments.no_read,
                   "Only plan: do not read each tile for damage and blur");
}

std::vector<std::string> given_tile_options(const CLI::App& command) {
  std::vector<std::string> given;
  for (const auto& [name, place] : kPlaces) {
    if (command.count(name) > 0) given.emplace_back(name);
  }
  return given;
}

std::string place_of_tile_option(const std::string& option) {
  for (const auto& [name, place] : kPlaces) {
    if (option == name) return place;
  }
  throw std::out_of_range(option);
}

void SlideArguments::lay_over(TileJob& settings, const std::vector<std::string>& given) const {
  auto all = settings.settings();
  const auto own = finished().settings();
  for (const auto& [name, place] : kPlaces) {
    if (std::find(given.begin(), given.end(), name) == given.end()) continue;
    const nlohmann::json::json_pointer at(place);
    all[at] = own[at];
    if (std::string_view(name) == "--mpp") all["tile"]["downsample"] = own["tile"]["downsample"];
  }
  settings.use(all);
}

std::vector<SlideFile> own_share(const std::vector<SlideFile>& slides) {
  const World world = world_from_environment();
  std::vector<SlideFile> mine;
  for (size_t i = 0; i < slides.size(); ++i) {
    if (static_cast<int64_t>(i) % world.size == world.rank) mine.push_back(slides[i]);
  }
  return mine;
}

}  // namespace serpentine
