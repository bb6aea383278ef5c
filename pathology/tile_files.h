// Tile coordinates and features as HDF5, in the layouts of CLAM and TRIDENT.
//
// Both hold `coords` [T, 2], the corners in level-0 pixels, and describe them by attributes. They
// differ in `patch_size`: TRIDENT's counts pixels as the encoder sees them, CLAM's pixels of the
// level that is read (`patch_level`); all other attributes of both are always written.
#pragma once

#include <string>

#include "core/io/hdf5.h"
#include "pathology/slide.h"
#include "pathology/tiles.h"

namespace serpentine {

enum class TileLayout { kTrident, kClam };

/// What a file of coordinates or features says of its slide.
struct TileRecord {
  std::string name;        // of the slide
  std::string slide_path;  // "" when the file does not say
  int64_t width = 0, height = 0;
  double slide_mpp = 0;
  std::string mpp_source;
  TileGrid grid;
};

TileRecord record_of(const std::string& name, const Slide& slide, const TileGrid& grid);

/// The attributes of `coords`.
Hdf5Attributes tile_attributes(const TileRecord& record, TileLayout layout);

void write_coords(const std::string& path, const TileRecord& record, TileLayout layout);

/// Reads ours, CLAM's and TRIDENT's. Throws with file and cause.
TileRecord read_coords(const std::string& path);

/// 20 for 0.5 microns per pixel, as scanners count; 0 if unknown.
double magnification_of(double mpp);

}  // namespace serpentine
