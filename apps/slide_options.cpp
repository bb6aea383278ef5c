#include "apps/slide_options.h"

#include <CLI/CLI.hpp>

#include "core/dist/process_group.h"

namespace serpentine {

TileJob SlideArguments::finished() const {
  TileJob all = job;
  if (!mpp_csv.empty()) all.slide.mpp_of = read_mpp_csv(mpp_csv);
  all.layout = layout == "clam" ? TileLayout::kClam : TileLayout::kTrident;
  all.read = !no_read;
  all.tissue.reject_pen = !keep_pen;
  return all;
}

void add_mpp_options(CLI::App& command, SlideArguments& arguments) {
  command.add_option("--mpp-csv", arguments.mpp_csv,
                     "CSV with the columns slide and mpp; wins over what the files say");
  command.add_option("--default-mpp", arguments.job.slide.default_mpp,
                     "Microns per pixel of slides that do not say theirs");
}

void add_tile_options(CLI::App& command, SlideArguments& arguments) {
  TileJob& job = arguments.job;
  command.add_option("--mpp", job.tile.mpp, "Microns per pixel of the tiles")
      ->capture_default_str();
  command.add_option("--downsample", job.tile.downsample,
                     "Instead of --mpp: level-0 pixels along a tile's pixel");
  command.add_option("--size", job.tile.size, "Pixels of a tile's side")->capture_default_str();
  command.add_option("--overlap", job.tile.overlap, "Pixels that neighbours share");
  command.add_option("--min-tissue", job.tile.min_tissue, "Least share of tissue in a tile")
      ->capture_default_str();
  command.add_option("--tissue", job.tissue.method, "otsu, entropy or fixed")
      ->check(CLI::IsMember({"otsu", "entropy", "fixed"}))
      ->capture_default_str();
  command.add_option("--threshold", job.tissue.threshold, "Saturation of 255, for --tissue fixed");
  command.add_option("--tissue-mpp", job.tissue.mpp, "Micrometres of a pixel of the mask");
  command.add_option("--min-area", job.tissue.min_area,
                     "Least piece of tissue, square micrometres");
  command.add_option("--min-hole", job.tissue.min_hole, "Least hole that stays one");
  command.add_flag("--keep-pen", arguments.keep_pen, "Do not leave out felt pens");
  command.add_option("--min-sharpness", job.min_sharpness,
                     "Drop tiles whose Laplacian varies less (see quality.csv)");
  command.add_flag("--no-read", arguments.no_read,
                   "Only plan: do not read each tile for damage and blur");
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
