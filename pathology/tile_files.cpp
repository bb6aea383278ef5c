#include "pathology/tile_files.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

double number(const Hdf5Attributes& attributes, const std::string& key, double fallback) {
  const auto found = attributes.find(key);
  if (found == attributes.end()) return fallback;
  if (const auto* whole = std::get_if<int64_t>(&found->second)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&found->second)) return *real;
  if (const auto* several = std::get_if<std::vector<int64_t>>(&found->second)) {
    return several->empty() ? fallback : static_cast<double>(several->front());
  }
  if (const auto* several = std::get_if<std::vector<double>>(&found->second)) {
    return several->empty() ? fallback : several->front();
  }
  return fallback;
}

int64_t whole(const Hdf5Attributes& attributes, const std::string& key, int64_t fallback) {
  return std::llround(number(attributes, key, static_cast<double>(fallback)));
}

std::string text(const Hdf5Attributes& attributes, const std::string& key) {
  const auto found = attributes.find(key);
  if (found == attributes.end()) return "";
  const auto* value = std::get_if<std::string>(&found->second);
  return value ? *value : "";
}

}  // namespace

double magnification_of(double mpp) {
  if (mpp <= 0) return 0;
  static constexpr double kUsual[] = {1.25, 2.5, 5, 10, 20, 40, 60, 80};
  const double exact = 10 / mpp;
  for (const double usual : kUsual) {
    if (std::abs(exact / usual - 1) < 0.15) return usual;
  }
  return exact;
}

TileRecord record_of(const std::string& name, const Slide& slide, const TileGrid& grid) {
  return {name,
          std::filesystem::absolute(slide.path()).string(),
          slide.width(),
          slide.height(),
          slide.mpp().value,
          slide.mpp().source,
          grid};
}

Hdf5Attributes tile_attributes(const TileRecord& record, TileLayout layout) {
  const TileGrid& grid = record.grid;
  const double downsample =
      static_cast<double>(grid.size_level0) / static_cast<double>(grid.size_read);
  const auto level_pixels = [&](int64_t level0) {
    return std::llround(static_cast<double>(level0) / downsample);
  };
  const std::string folder = std::filesystem::path(record.slide_path).parent_path().string();
  return {
      {"name", record.name},
      {"patch_size", layout == TileLayout::kClam ? grid.size_read : grid.size},
      // CLAM
      {"patch_level", grid.level},
      {"downsample", std::vector<double>{downsample, downsample}},
      {"level_dim", std::vector<int64_t>{level_pixels(record.width), level_pixels(record.height)}},
      {"downsampled_level_dim",
       std::vector<int64_t>{level_pixels(record.width), level_pixels(record.height)}},
      {"save_path", folder},
      // TRIDENT
      {"patch_size_level0", grid.size_level0},
      {"level0_magnification", magnification_of(record.slide_mpp)},
      {"target_magnification", magnification_of(grid.mpp)},
      {"overlap", grid.overlap},
      {"level0_width", record.width},
      {"level0_height", record.height},
      {"savetodir", folder},
      // ours
      {"tile_size", grid.size},
      {"tile_mpp", grid.mpp},
      {"step_level0", grid.step_level0},
      {"slide_mpp", record.slide_mpp},
      {"slide_mpp_source", record.mpp_source},
      {"slide_path", record.slide_path},
  };
}

void write_coords(const std::string& path, const TileRecord& record, TileLayout layout) {
  Hdf5Writer file(path);
  file.write("coords", record.grid.coords);
  file.set_attributes("coords", tile_attributes(record, layout));
  file.finish();
}

TileRecord read_coords(const std::string& path) {
  const Hdf5Reader file(path);
  SERPENTINE_CHECK(file.has("coords"), path, "holds no array 'coords'");
  TileRecord record;
  TileGrid& grid = record.grid;
  grid.coords = file.read_as("coords", torch::kLong);
  SERPENTINE_CHECK(grid.coords.dim() == 2 && grid.coords.size(1) == 2, path,
                   "coords must be [T, 2], got ", grid.coords.sizes());
  const Hdf5Attributes all = file.attributes("coords");
  record.name = text(all, "name");
  if (record.name.empty()) record.name = std::filesystem::path(path).stem().string();
  record.slide_path = text(all, "slide_path");
  record.width = whole(all, "level0_width", 0);
  record.height = whole(all, "level0_height", 0);
  record.slide_mpp = number(all, "slide_mpp", 0);
  record.mpp_source = text(all, "slide_mpp_source");
  const double downsample = number(all, "downsample", 1);
  const int64_t patch = whole(all, "patch_size", 256);
  grid.size = whole(all, "tile_size", patch);
  grid.overlap = whole(all, "overlap", 0);
  // TRIDENT says how large a tile is on level 0, CLAM how much its level is reduced
  grid.size_level0 =
      whole(all, "patch_size_level0", std::llround(static_cast<double>(patch) * downsample));
  grid.step_level0 =
      whole(all, "step_level0",
            grid.size_level0 * (grid.size - grid.overlap) / std::max<int64_t>(1, grid.size));
  grid.level = whole(all, "patch_level", 0);
  grid.size_read = all.count("downsample")
                       ? std::llround(static_cast<double>(grid.size_level0) / downsample)
                       : grid.size_level0;
  grid.mpp = number(all, "tile_mpp", 0);
  return record;
}

}  // namespace serpentine
