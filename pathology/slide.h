// Whole slides: one interface over scanner formats, tiled TIFF and ordinary pictures.
//
// A place on a slide is given in pixels of level 0, (0, 0) top left. Pictures are uint8 RGB
// [height, width, 3] (core/io/image.h); what lies outside a slide, or was never scanned, is white.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

struct SlideLevel {
  int64_t width = 0, height = 0;  // pixels
  double downsample = 1;          // level-0 pixels along one pixel of this level
};

/// The side of a level-0 pixel, and which rule found it; 0 when no rule did.
struct MicronsPerPixel {
  double value = 0;
  std::string source = "unknown";
};

struct SlideOptions {
  std::map<std::string, double> mpp_of;  // microns per pixel by file name or stem (from a CSV)
  double default_mpp = 0;                // for slides that no rule helps; 0: leave it unknown

  /// What mpp_of says of this file; 0 when it does not name it.
  double given_mpp(const std::string& path) const;
};

class Slide {
 public:
  virtual ~Slide() = default;
  const std::string& path() const { return path_; }
  /// "openslide 3.4.1 aperio", "tiff", "picture".
  const std::string& format() const { return format_; }
  int64_t width() const { return levels_.front().width; }
  int64_t height() const { return levels_.front().height; }
  const std::vector<SlideLevel>& levels() const { return levels_; }
  const MicronsPerPixel& mpp() const { return mpp_; }
  const std::map<std::string, std::string>& properties() const { return properties_; }
  /// Something a reader of the report should know: a JPEG under the name of a slide. Often empty.
  const std::string& remark() const { return remark_; }

  /// The coarsest level that still is as fine as `downsample`.
  int64_t level_for(double downsample) const;

  /// `width` x `height` pixels of a level, from the level-0 place (x, y) on. Thread-safe. Throws
  /// std::runtime_error "FILE: why" when that part of the file is damaged; other parts stay
  /// readable.
  virtual torch::Tensor read(int64_t x, int64_t y, int64_t level, int64_t width,
                             int64_t height) const = 0;
  /// Label, macro photograph, thumbnail: what the file holds beside the scan.
  virtual std::vector<std::string> associated_names() const { return {}; }
  virtual torch::Tensor associated(const std::string& name) const;

 protected:
  /// Finds the resolution in properties_, then in the options.
  void find_mpp(const SlideOptions& options);

  std::string path_, format_, remark_;
  std::vector<SlideLevel> levels_;
  MicronsPerPixel mpp_;
  std::map<std::string, std::string> properties_;
};

/// Opens by content, never by name. Throws std::runtime_error "FILE: why".
std::shared_ptr<Slide> open_slide(const std::string& path, const SlideOptions& options = {});

/// A part of level 0 scaled to [out_height, out_width, 3], read from the best level in pieces of
/// bounded size. Pieces that are damaged get the colour `damaged`. Thread-safe.
torch::Tensor read_view(const Slide& slide, double x, double y, double width, double height,
                        int64_t out_width, int64_t out_height,
                        std::array<uint8_t, 3> damaged = {255, 255, 255});

/// The whole slide, at most `side` pixels wide and high.
torch::Tensor thumbnail(const Slide& slide, int64_t side);

/// Microns per pixel by file name from a CSV with the columns `slide` (or wsi, filename) and `mpp`.
std::map<std::string, double> read_mpp_csv(const std::string& path);

/// A slide file and the name its results get.
struct SlideFile {
  std::string path, name;
};

/// Slides below a folder (or one file), sorted by name. The name is the file's stem; slides of one
/// stem get their folders and, if still needed, their ending before it, so that none overwrites
/// another's results. A folder of DICOM files counts as one slide.
std::vector<SlideFile> find_slides(const std::string& folder);

/// What reads the slides of scanners: "OpenSlide 3.4.1", or "" and how to get it.
std::string slide_library();

}  // namespace serpentine
