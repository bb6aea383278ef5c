// Tiling of one slide into a folder that several processes may share, and the folder's reports.
//
//   coords/NAME.h5          corners of the tiles (pathology/tile_files.h)
//   contours/NAME.geojson   outlines of the tissue, for QuPath
//   pictures/NAME.png       overview with tissue, ink and tiles
//   bad_regions/NAME.geojson  where the file is damaged, when it is
//   reports/NAME.json       everything found; its presence says that the slide is finished
//   quality.csv             one row a slide       quarantine.csv  slides that failed, and why
//   locks/                  of the slides that are being worked on
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "pathology/slide.h"
#include "pathology/tile_files.h"
#include "pathology/tiles.h"
#include "pathology/tissue.h"

namespace serpentine {

struct TileJob {
  std::string out;
  SlideOptions slide;
  TissueOptions tissue;
  TileOptions tile;
  TileLayout layout = TileLayout::kTrident;
  bool read = true;          // every tile once: finds damage and blur
  double min_sharpness = 0;  // tiles below are dropped; needs `read`
  int64_t threads = 2;
  bool again = false;  // also what is finished
  /// Called with tiles done and all tiles of a slide.
  std::function<void(int64_t, int64_t)> progress;

  /// The options that decide the result, to be compared with those of a folder.
  nlohmann::json settings() const;
  /// Takes the options from such settings. Throws where one is missing.
  void use(const nlohmann::json& settings);
};

/// What became of a slide.
struct SlideReport {
  enum class Outcome { kDone, kNoTissue, kFailed, kSkipped, kBusy };
  Outcome outcome = Outcome::kFailed;
  nlohmann::json content;  // as in reports/NAME.json
  std::string sentence() const;
};

/// Never throws for what is wrong with the slide; throws when the folder cannot be written.
SlideReport tile_slide(const SlideFile& file, const TileJob& job);

/// Makes the folders. Throws std::runtime_error when the folder was made with other settings.
void open_tile_folder(const TileJob& job);

/// Writes quality.csv and quarantine.csv from all reports; returns how many slides failed.
int64_t summarise_tiles(const std::string& folder);

/// The overview with outline of the tissue, ink tinted, tiles as squares: blue ones are kept,
/// orange ones blurred, red ones unreadable. `marks`: 0 kept, 1 blurred, 2 unreadable, 3 coarser.
torch::Tensor tile_picture(const Tissue& tissue, const TileGrid& grid,
                           const std::vector<uint8_t>& marks);

}  // namespace serpentine
