// Opening by content, the chain of rules for microns per pixel, views of any size.
#include "pathology/slide.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"
#include "pathology/slide_formats.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr double kFinest = 0.01, kCoarsest = 50;  // microns per pixel that a scan may have

double number(const std::map<std::string, std::string>& properties, const std::string& key) {
  const auto found = properties.find(key);
  return found == properties.end() ? 0 : std::strtod(found->second.c_str(), nullptr);
}

bool plausible(double mpp) { return mpp >= kFinest && mpp <= kCoarsest; }

/// The mean over x and y of a pair of properties; scanners give both.
double pair_of(const std::map<std::string, std::string>& properties, const std::string& x,
               const std::string& y) {
  const double first = number(properties, x), second = number(properties, y);
  return second > 0 ? (first + second) / 2 : first;
}

double from_tiff_tags(const std::map<std::string, std::string>& properties) {
  const double per_unit = pair_of(properties, "tiff.XResolution", "tiff.YResolution");
  const auto unit = properties.find("tiff.ResolutionUnit");
  if (per_unit <= 0 || unit == properties.end()) return 0;
  return unit->second == "centimeter" ? 1e4 / per_unit
         : unit->second == "inch"     ? 25400 / per_unit
                                      : 0;
}

enum class Content { kTiff, kPicture, kDicom, kOther };

Content content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened: " + std::strerror(errno));
  std::array<char, 132> head{};
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  if (file.gcount() == 0) throw std::runtime_error(path + ": the file is empty");
  const auto begins = [&](const char* bytes, size_t n) {
    return std::memcmp(head.data(), bytes, n) == 0;
  };
  if (begins("II*\0", 4) || begins("MM\0*", 4) || begins("II+\0", 4) || begins("MM\0+", 4)) {
    return Content::kTiff;
  }
  const bool webp = begins("RIFF", 4) && std::memcmp(head.data() + 8, "WEBP", 4) == 0;
  const bool pnm = head[0] == 'P' && head[1] >= '1' && head[1] <= '7' &&
                   std::isspace(static_cast<unsigned char>(head[2])) != 0;
  if (begins("\xff\xd8\xff", 3) || begins("\x89PNG", 4) || begins("BM", 2) || webp || pnm)
    return Content::kPicture;
  if (std::memcmp(head.data() + 128, "DICM", 4) == 0) return Content::kDicom;
  return Content::kOther;
}

bool is_dicom_name(const fs::path& path) { return path.extension() == ".dcm"; }

/// A folder of DICOM files is opened through its largest file, which holds part of level 0.
std::string largest_dicom(const std::string& folder) {
  std::string best;
  uintmax_t size = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (is_dicom_name(entry.path()) && (best.empty() || entry.file_size() > size)) {
      best = entry.path().string();
      size = entry.file_size();
    }
  }
  if (best.empty()) throw std::runtime_error(folder + ": a folder without DICOM files");
  return best;
}

bool named_like_slide(const std::string& path) {
  const std::string end = fs::path(path).extension().string();
  return end == ".svs" || end == ".ndpi" || end == ".mrxs" || end == ".scn" || end == ".vms" ||
         end == ".bif";
}

}  // namespace

double SlideOptions::given_mpp(const std::string& path) const {
  const fs::path file(path);
  for (const auto& key : {file.filename().string(), file.stem().string()}) {
    const auto found = mpp_of.find(key);
    if (found != mpp_of.end()) return found->second;
  }
  return 0;
}

void Slide::find_mpp(const SlideOptions& options) {
  if (const double given = options.given_mpp(path_); given > 0) {
    mpp_ = {given, "CSV"};
    return;
  }
  // what stands nearest to the scanner's own word comes first
  const std::pair<double, const char*> rules[] = {
      {pair_of(properties_, "openslide.mpp-x", "openslide.mpp-y"), "openslide.mpp-x"},
      {number(properties_, "aperio.MPP"), "aperio.MPP"},
      {pair_of(properties_, "ome.PhysicalSizeX", "ome.PhysicalSizeY"), "OME PhysicalSizeX"},
      {from_tiff_tags(properties_), "TIFF resolution tags"},
      {10 / std::max(1e-9, number(properties_, "openslide.objective-power")), "objective power"},
      {10 / std::max(1e-9, number(properties_, "aperio.AppMag")), "objective power"},
      {options.default_mpp, "default"},
  };
  for (const auto& [value, source] : rules) {
    if (plausible(value)) {
      mpp_ = {value, source};
      return;
    }
  }
}

int64_t Slide::level_for(double downsample) const {
  int64_t best = 0;
  for (size_t level = 0; level < levels_.size(); ++level) {
    // scanners round the size of a level: 4.0005 serves a wish for 4
    if (levels_[level].downsample <= downsample * 1.01) best = static_cast<int64_t>(level);
  }
  return best;
}

torch::Tensor Slide::associated(const std::string& name) const {
  throw std::runtime_error(path_ + ": holds no picture called '" + name + "'");
}

std::shared_ptr<Slide> open_slide(const std::string& path, const SlideOptions& options) {
  const std::string file = fs::is_directory(path) ? largest_dicom(path) : path;
  const Content content = content_of(file);
  if (auto slide = open_with_openslide(file, options)) return slide;
  const std::string library = openslide_version();
  switch (content) {
    case Content::kTiff:
      if (libtiff_available()) return open_with_libtiff(file, options);
      return open_as_picture(file, options);
    case Content::kDicom:
      throw std::runtime_error(
          file + ": DICOM slides need OpenSlide 4 (here: " + (library.empty() ? "none" : library) +
          "); `pip install openslide-bin` has it, SERPENTINE_OPENSLIDE_LIBRARY names the file");
    case Content::kPicture:
      return open_as_picture(file, options);
    case Content::kOther:
      break;
  }
  if (named_like_slide(file) && library.empty()) {
    throw std::runtime_error(file + ": " + slide_library());
  }
  throw std::runtime_error(
      file +
      ": is no slide; slides are TIFF and its kin (SVS, NDPI, SCN, BIF), MRXS, VMS, DICOM, or "
      "a picture (JPEG, PNG, BMP, WebP, PNM)");
}

torch::Tensor read_view(const Slide& slide, double x, double y, double width, double height,
                        int64_t out_width, int64_t out_height, std::array<uint8_t, 3> damaged) {
  constexpr int64_t kPieceOfView = 1 << 24;  // pixels: 48 MB at a time
  constexpr int64_t kLeastPiece = 16;        // pixels of the view, when a part is damaged
  const double scale =
      std::max(width / static_cast<double>(out_width), height / static_cast<double>(out_height));
  const int64_t level = slide.level_for(scale);
  const double downsample = slide.levels()[static_cast<size_t>(level)].downsample;
  const auto pixels = [&](double extent) {
    return std::max<int64_t>(1, std::llround(extent / downsample));
  };
  const int64_t columns = pixels(width), rows = pixels(height);
  if (columns * rows <= kPieceOfView) {
    try {
      auto picture = slide.read(std::llround(x), std::llround(y), level, columns, rows);
      if (columns == out_width && rows == out_height) return picture;
      const bool shrinks = out_width <= columns && out_height <= rows;
      return resize_image(picture, out_height, out_width,
                          shrinks ? Resampling::kArea : Resampling::kLinear);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {  // halves show which part it is
      if (std::max(out_width, out_height) <= kLeastPiece) {
        return torch::tensor({damaged[0], damaged[1], damaged[2]}, torch::kUInt8)
            .expand({out_height, out_width, 3})
            .contiguous();
      }
    }
  }
  const bool wide = out_height == 1 || (out_width >= out_height && out_width > 1);
  const int64_t whole = wide ? out_width : out_height, half = whole / 2;
  TORCH_CHECK(half > 0, slide.path(), ": a view of one pixel would read the whole slide");
  const double share = static_cast<double>(half) / static_cast<double>(whole);
  if (wide) {
    return torch::cat({read_view(slide, x, y, width * share, height, half, out_height, damaged),
                       read_view(slide, x + width * share, y, width * (1 - share), height,
                                 whole - half, out_height, damaged)},
                      1);
  }
  return torch::cat({read_view(slide, x, y, width, height * share, out_width, half, damaged),
                     read_view(slide, x, y + height * share, width, height * (1 - share), out_width,
                               whole - half, damaged)},
                    0);
}

torch::Tensor thumbnail(const Slide& slide, int64_t side) {
  const auto width = static_cast<double>(slide.width()),
             height = static_cast<double>(slide.height());
  const double scale = std::min(1.0, static_cast<double>(side) / std::max(width, height));
  const auto pixels = [&](double n) { return std::max<int64_t>(1, std::llround(n * scale)); };
  return read_view(slide, 0, 0, width, height, pixels(width), pixels(height));
}

std::string slide_library() {
  const std::string version = openslide_version();
  return version.empty() ? "the formats of scanners need OpenSlide, which is missing here: apt-get "
                           "install libopenslide0, and a build with -DSERPENTINE_OPENSLIDE=ON"
                         : "OpenSlide " + version;
}

}  // namespace serpentine
