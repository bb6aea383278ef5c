#include "pathology/tile_job.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "core/io/image.h"
#include "core/io/json_file.h"
#include "pathology/slide_lock.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint8_t kKept = 0, kBlurred = 1, kUnreadable = 2, kCoarser = 3;

std::string in_folder(const TileJob& job, const char* folder, const std::string& name,
                      const char* ending) {
  return job.out + "/" + folder + "/" + name + ending;
}

/// What reading every tile showed.
struct Inspection {
  std::vector<uint8_t> marks;  // one a tile
  std::vector<double> sharpness;
};

Inspection inspect(const Slide& slide, const TileGrid& grid, const TileJob& job) {
  Inspection found;
  const int64_t tiles = grid.coords.size(0);
  found.marks.assign(static_cast<size_t>(tiles), kKept);
  if (!job.read) return found;
  TileStream stream(slide, grid, {job.threads, 8, 4 * job.threads, true, /*pictures=*/false});
  while (const auto batch = stream.next()) {
    for (size_t i = 0; i < batch->states.size(); ++i) {
      auto& mark = found.marks[static_cast<size_t>(batch->first) + i];
      if (batch->states[i] == TileState::kUnreadable) {
        mark = kUnreadable;
      } else if (batch->sharpness[i] < job.min_sharpness) {
        mark = kBlurred;
      } else if (batch->states[i] == TileState::kCoarser) {
        mark = kCoarser;
      }
      if (mark != kUnreadable) found.sharpness.push_back(batch->sharpness[i]);
    }
    if (job.progress)
      job.progress(batch->first + static_cast<int64_t>(batch->states.size()), tiles);
  }
  return found;
}

Json bad_regions(const TileGrid& grid, const std::vector<uint8_t>& marks) {
  auto features = Json::array();
  const auto at = grid.coords.accessor<int64_t, 2>();
  for (size_t i = 0; i < marks.size(); ++i) {
    if (marks[i] != kUnreadable && marks[i] != kCoarser) continue;
    const auto tile = static_cast<int64_t>(i);
    const int64_t x = at[tile][0], y = at[tile][1], s = grid.size_level0;
    features.push_back(
        {{"type", "Feature"},
         {"geometry",
          {{"type", "Polygon"},
           {"coordinates", {{{x, y}, {x + s, y}, {x + s, y + s}, {x, y + s}, {x, y}}}}}},
         {"properties",
          {{"objectType", "annotation"},
           {"classification",
            {{"name", marks[i] == kUnreadable ? "Unreadable" : "Read from a coarser level"},
             {"color", {207, 34, 46}}}}}}});
  }
  return {{"type", "FeatureCollection"}, {"features", features}};
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

int64_t count(const std::vector<uint8_t>& marks, uint8_t mark) {
  return std::count(marks.begin(), marks.end(), mark);
}

void describe_slide(const Slide& slide, Json& report) {
  report["format"] = slide.format();
  report["width"] = slide.width();
  report["height"] = slide.height();
  report["mpp"] = slide.mpp().value;
  report["mpp_source"] = slide.mpp().source;
  if (!slide.remark().empty()) report["remark"] = slide.remark();
  auto levels = Json::array();
  for (const auto& level : slide.levels()) {
    levels.push_back(
        {{"width", level.width}, {"height", level.height}, {"downsample", level.downsample}});
  }
  report["levels"] = levels;
}

/// The tiles that are kept, after everything about them was written down.
void tile_opened(const std::string& name, const Slide& slide, const TileJob& job, Json& report) {
  const Tissue tissue = find_tissue(slide, job.tissue);
  report["tissue_fraction"] = tissue.fraction();
  report["tissue_pieces"] = tissue.contours.size();
  report["tissue_threshold"] = tissue.threshold;
  report["pen_fraction"] = tissue.pen_fraction();
  report["dark_background"] = tissue.dark_background;
  TileGrid grid = plan_tiles(slide, tissue, job.tile);
  const Inspection seen = inspect(slide, grid, job);
  const int64_t bad = count(seen.marks, kUnreadable), coarser = count(seen.marks, kCoarser);
  report["tiles_planned"] = grid.coords.size(0);
  report["tiles_unreadable"] = bad;
  report["tiles_coarser"] = coarser;
  report["tiles_blurred"] = count(seen.marks, kBlurred);
  if (job.read) {
    report["sharpness"] = {{"low", quantile(seen.sharpness, 0.1)},
                           {"median", quantile(seen.sharpness, 0.5)},
                           {"high", quantile(seen.sharpness, 0.9)}};
  }
  write_atomically(in_folder(job, "contours", name, ".geojson"), tissue_geojson(tissue).dump());
  write_image(in_folder(job, "pictures", name, ".png"), tile_picture(tissue, grid, seen.marks));
  if (bad + coarser > 0) {
    write_atomically(in_folder(job, "bad_regions", name, ".geojson"),
                     bad_regions(grid, seen.marks).dump());
  }
  std::vector<int64_t> kept;
  for (size_t i = 0; i < seen.marks.size(); ++i) {
    if (seen.marks[i] == kKept || seen.marks[i] == kCoarser)
      kept.push_back(static_cast<int64_t>(i));
  }
  grid.coords = grid.coords.index_select(0, torch::tensor(kept, torch::kLong));
  report["tiles"] = kept.size();
  report["tile"] = {{"size", grid.size},
                    {"size_level0", grid.size_level0},
                    {"level", grid.level},
                    {"mpp", grid.mpp}};
  if (kept.empty()) {
    const bool planned = !seen.marks.empty();
    report["outcome"] = bad > 0 ? "failed" : "no tissue";
    report["reason"] = bad > 0   ? "no tile with tissue can be read"
                       : planned ? "every tile is blurred (--min-sharpness)"
                                 : "no tissue was found";
    return;
  }
  write_coords(in_folder(job, "coords", name, ".h5"), record_of(name, slide, grid), job.layout);
  report["outcome"] = "done";
}

/// A resolution that the options give and that the finished slide was not tiled with.
bool resolution_corrected(const SlideFile& file, const SlideOptions& options, const Json& before) {
  const double mpp = before.value("mpp", 0.0);
  if (const double given = options.given_mpp(file.path); given > 0)
    return std::abs(given - mpp) > 1e-9 * given;
  const std::string source = before.value("mpp_source", "");
  return options.default_mpp > 0 && (source == "default" || source == "unknown") &&
         std::abs(options.default_mpp - mpp) > 1e-9 * options.default_mpp;
}

SlideReport::Outcome outcome_of(const Json& report) {
  const std::string word = report.value("outcome", "failed");
  return word == "done"        ? SlideReport::Outcome::kDone
         : word == "no tissue" ? SlideReport::Outcome::kNoTissue
                               : SlideReport::Outcome::kFailed;
}

}  // namespace

Json TileJob::settings() const {
  return {{"tissue",
           {{"method", tissue.method},
            {"threshold", tissue.threshold},
            {"mpp", tissue.mpp},
            {"min_area", tissue.min_area},
            {"min_hole", tissue.min_hole},
            {"close", tissue.close},
            {"reject_pen", tissue.reject_pen}}},
          {"tile",
           {{"mpp", tile.downsample > 0 ? 0 : tile.mpp},
            {"downsample", tile.downsample},
            {"size", tile.size},
            {"overlap", tile.overlap},
            {"min_tissue", tile.min_tissue}}},
          {"layout", layout == TileLayout::kClam ? "clam" : "trident"},
          {"read", read},
          {"min_sharpness", min_sharpness}};
}

void TileJob::use(const Json& settings) {
  const Json &t = settings.at("tissue"), &g = settings.at("tile");
  tissue = {t.at("method"),   t.at("threshold"), t.at("mpp"),       t.at("min_area"),
            t.at("min_hole"), t.at("close"),     t.at("reject_pen")};
  tile = {g.at("mpp"), g.at("downsample"), g.at("size"), g.at("overlap"), g.at("min_tissue")};
  layout = settings.at("layout") == "clam" ? TileLayout::kClam : TileLayout::kTrident;
  read = settings.at("read");
  min_sharpness = settings.at("min_sharpness");
}

std::string SlideReport::sentence() const {
  const auto number = [&](const char* key) {
    return std::to_string(content.value(key, int64_t{0}));
  };
  switch (outcome) {
    case Outcome::kSkipped:
      return "finished before";
    case Outcome::kBusy:
      return "left to " + content.value("reason", "another process");
    case Outcome::kFailed:
      return "FAILED: " + content.value("reason", "");
    case Outcome::kNoTissue:
      return content.value("reason", "");
    case Outcome::kDone:
      break;
  }
  std::string text = number("tiles") + " tiles";
  if (content.value("tiles_unreadable", 0) > 0)
    text += ", " + number("tiles_unreadable") + " unreadable";
  if (content.value("tiles_coarser", 0) > 0)
    text += ", " + number("tiles_coarser") + " from a coarser level";
  if (content.value("tiles_blurred", 0) > 0) text += ", " + number("tiles_blurred") + " blurred";
  if (content.contains("mpp_before")) {
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "; made anew at %.6g microns per pixel instead of %.6g",
                  content.value("mpp", 0.0), content.value("mpp_before", 0.0));
    text += numbers;
  }
  if (content.contains("remark")) text += "; " + content["remark"].get<std::string>();
  return text;
}

SlideReport tile_slide(const SlideFile& file, const TileJob& job) {
  const std::string path = in_folder(job, "reports", file.name, ".json");
  std::string holder;
  const auto lock = SlideLock::take(in_folder(job, "locks", file.name, ".lock"), holder);
  SlideReport report;
  if (!lock) {
    report.outcome = SlideReport::Outcome::kBusy;
    report.content = {{"reason", holder}};
    return report;
  }
  const Json before = read_json(path);
  // a slide that failed is tried again: its file may have been replaced
  const bool finished = before.is_object() && before.value("outcome", "failed") != "failed";
  if (!job.again && finished && !resolution_corrected(file, job.slide, before)) {
    report.outcome = SlideReport::Outcome::kSkipped;
    report.content = before;
    return report;
  }
  const auto begin = std::chrono::steady_clock::now();
  Json& content = report.content;
  content = {{"name", file.name}, {"path", fs::absolute(file.path).string()}};
  if (!job.again && finished) content["mpp_before"] = before.value("mpp", 0.0);
  std::error_code gone;  // tiles of an earlier resolution must not outlive a failure
  fs::remove(in_folder(job, "coords", file.name, ".h5"), gone);
  std::shared_ptr<Slide> slide;
  try {
    slide = open_slide(file.path, job.slide);
    describe_slide(*slide, content);
    tile_opened(file.name, *slide, job, content);
  } catch (const std::bad_alloc&) {
    content["outcome"] = "failed";
    content["reason"] = "there was not enough memory";
  } catch (const c10::Error& error) {
    content["outcome"] = "failed";
    content["reason"] = error.what_without_backtrace();
  } catch (const std::exception& error) {
    content["outcome"] = "failed";
    content["reason"] = error.what();
  }
  content["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  report.outcome = outcome_of(content);
  write_atomically(path, content.dump(1) + "\n");
  return report;
}

void open_tile_folder(const TileJob& job) {
  for (const char* folder : {"coords", "contours", "pictures", "bad_regions", "reports", "locks"}) {
    std::error_code error;
    fs::create_directories(job.out + "/" + folder, error);
    if (error) {
      throw std::runtime_error(job.out + "/" + folder + ": cannot be made: " + error.message());
    }
  }
  const std::string path = job.out + "/settings.json";
  const Json before = read_json(path), now = job.settings();
  if (before.is_object() && before != now && !job.again) {
    throw std::runtime_error(job.out + ": was made with other settings (" + path +
                             "); choose another folder, or make it again with --again");
  }
  write_atomically(path, now.dump(1) + "\n");
}

}  // namespace serpentine
