#include "pathology/tiff_file.h"

#include <tiffio.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <stdexcept>

#include <torch/torch.h>

namespace serpentine {
namespace {

constexpr int64_t kKeptBytes = 64 << 20;
constexpr int64_t kLargestBlock = 1 << 30;  // bytes; a strip may be the whole picture

/// What libtiff said last on this thread.
thread_local std::string said;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void remember(const char*, const char* format, va_list arguments) {
  std::array<char, 300> text{};
  std::vsnprintf(text.data(), text.size(), format, arguments);
  said = text.data();
}

thread_local bool warned = false;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void notice(const char*, const char*, va_list) { warned = true; }

template <class Number>
Number tag(TIFF* file, uint32_t name, Number fallback) {
  Number value = fallback;
  return TIFFGetField(file, name, &value) == 1 ? value : fallback;
}

std::string text_tag(TIFF* file, uint32_t name) {
  const char* value = nullptr;
  return TIFFGetField(file, name, &value) == 1 && value ? value : "";
}

/// The number after `key` in a description: "MPP = 0.499" or PhysicalSizeX="0.25".
std::string after(const std::string& text, const std::string& key) {
  const auto at = text.find(key);
  if (at == std::string::npos) return "";
  const auto begin = text.find_first_of("0123456789", at + key.size());
  if (begin == std::string::npos || begin > at + key.size() + 4) return "";
  return text.substr(begin, text.find_first_not_of("0123456789.eE+-", begin) - begin);
}

TiffPicture describe(TIFF* file) {
  TiffPicture picture;
  picture.offset = TIFFCurrentDirOffset(file);
  picture.width = tag<uint32_t>(file, TIFFTAG_IMAGEWIDTH, 0);
  picture.height = tag<uint32_t>(file, TIFFTAG_IMAGELENGTH, 0);
  picture.tiled = TIFFIsTiled(file) != 0;
  if (picture.tiled) {
    picture.block_width = tag<uint32_t>(file, TIFFTAG_TILEWIDTH, 0);
    picture.block_height = tag<uint32_t>(file, TIFFTAG_TILELENGTH, 0);
  } else {
    picture.block_width = picture.width;
    picture.block_height =
        std::min<int64_t>(picture.height, tag<uint32_t>(file, TIFFTAG_ROWSPERSTRIP, UINT32_MAX));
  }
  uint16_t bits = 1, samples = 1, layout = PLANARCONFIG_CONTIG, photometric = 0, codec = 1;
  TIFFGetFieldDefaulted(file, TIFFTAG_BITSPERSAMPLE, &bits);
  TIFFGetFieldDefaulted(file, TIFFTAG_SAMPLESPERPIXEL, &samples);
  TIFFGetFieldDefaulted(file, TIFFTAG_PLANARCONFIG, &layout);
  TIFFGetFieldDefaulted(file, TIFFTAG_COMPRESSION, &codec);
  TIFFGetField(file, TIFFTAG_PHOTOMETRIC, &photometric);
  picture.rgb8 = bits == 8 && samples == 3 && layout == PLANARCONFIG_CONTIG &&
                 (photometric == PHOTOMETRIC_RGB ||
                  (photometric == PHOTOMETRIC_YCBCR && codec == COMPRESSION_JPEG));
  const uint64_t* sizes = nullptr;
  picture.whole =
      picture.tiled && TIFFIsCODECConfigured(codec) == 1 &&
      TIFFGetField(file, TIFFTAG_TILEBYTECOUNTS, &sizes) == 1 && sizes &&
      std::find(sizes, sizes + TIFFNumberOfTiles(file), 0U) == sizes + TIFFNumberOfTiles(file);
  picture.description = text_tag(file, TIFFTAG_IMAGEDESCRIPTION);
  return picture;
}

}  // namespace

struct TiffFile::Handle {
  explicit Handle(const std::string& path) {
    said.clear();
    // OpenCV reads TIFF through the same library and sets handlers of its own
    TIFFSetErrorHandler(remember);
    TIFFSetWarningHandler(notice);
    file = TIFFOpen(path.c_str(), "rm");
    if (!file) {
      throw std::runtime_error(path + ": not a readable TIFF" + (said.empty() ? "" : ": " + said));
    }
  }
  ~Handle() { TIFFClose(file); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  void go_to(uint64_t offset) {
    if (here == offset) return;
    here = 0;
    if (TIFFSetSubDirectory(file, offset) != 1) throw std::runtime_error(said);
    here = offset;
    uint16_t codec = 1;
    TIFFGetField(file, TIFFTAG_COMPRESSION, &codec);
    if (codec == COMPRESSION_JPEG) TIFFSetField(file, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  }

  TIFF* file = nullptr;
  uint64_t here = 0;
};

TiffFile::TiffFile(const std::string& path, bool strict) : path_(path), strict_(strict) {
  list_pictures();
}

TiffFile::~TiffFile() = default;

void TiffFile::list_pictures() {
  auto handle = take();
  TIFF* file = handle->file;
  std::vector<uint64_t> below;
  do {
    const TiffPicture picture = describe(file);
    if (picture.width > 0 && picture.height > 0 && picture.block_width > 0 &&
        picture.block_height > 0) {
      pictures_.push_back(picture);
    }
    if (TIFFCurrentDirectory(file) > 0) continue;
    uint16_t count = 0;
    const uint64_t* offsets = nullptr;
    if (TIFFGetField(file, TIFFTAG_SUBIFD, &count, &offsets) == 1) {
      below.assign(offsets, offsets + count);
    }
    const std::string description = text_tag(file, TIFFTAG_IMAGEDESCRIPTION);
    properties_["tiff.ImageDescription"] = description;
    const auto resolution = [&](uint32_t name) {
      return std::to_string(static_cast<double>(tag<float>(file, name, 0)));
    };
    properties_["tiff.XResolution"] = resolution(TIFFTAG_XRESOLUTION);
    properties_["tiff.YResolution"] = resolution(TIFFTAG_YRESOLUTION);
    const auto unit = tag<uint16_t>(file, TIFFTAG_RESOLUTIONUNIT, RESUNIT_INCH);
    properties_["tiff.ResolutionUnit"] = unit == RESUNIT_CENTIMETER ? "centimeter"
                                         : unit == RESUNIT_INCH     ? "inch"
                                                                    : "none";
    const std::pair<const char*, const char*> found[] = {{"aperio.MPP", "MPP ="},
                                                         {"aperio.AppMag", "AppMag ="},
                                                         {"ome.PhysicalSizeX", "PhysicalSizeX="},
                                                         {"ome.PhysicalSizeY", "PhysicalSizeY="}};
    for (const auto& [name, key] : found) {
      const std::string value = after(description, key);
      if (!value.empty()) properties_[name] = value;
    }
  } while (TIFFReadDirectory(file) == 1);
  for (const uint64_t offset : below) {
    if (TIFFSetSubDirectory(file, offset) == 1) pictures_.push_back(describe(file));
  }
  if (pictures_.empty()) throw std::runtime_error(path_ + ": a TIFF without a picture");
  for (const auto& picture : pictures_) {
    if (picture.block_width * picture.block_height > kLargestBlock / 4) {
      throw std::runtime_error(path_ + ": its strips or tiles have " +
                               std::to_string(picture.block_width) + " x " +
                               std::to_string(picture.block_height) +
                               " pixels, too many to read in parts; convert it to a tiled TIFF");
    }
  }
}

std::unique_ptr<TiffFile::Handle> TiffFile::take() const {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto handle = std::move(idle_.back());
      idle_.pop_back();
      return handle;
    }
  }
  return std::make_unique<Handle>(path_);
}

void TiffFile::give(std::unique_ptr<Handle> handle) const {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(handle));
}

torch::Tensor TiffFile::block(size_t picture, int64_t column, int64_t row) const {
  const uint64_t key = (static_cast<uint64_t>(picture) << 56U) |
                       (static_cast<uint64_t>(row) << 28U) | static_cast<uint64_t>(column);
  {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      kept_.splice(kept_.begin(), kept_, found->second);
      return kept_.front().block;
    }
  }
  auto handle = take();
  torch::Tensor decoded;
  try {
    decoded = decode(*handle, pictures_.at(picture), column, row);
  } catch (const std::exception& error) {
    throw std::runtime_error(path_ + ": " + error.what());
  }
  give(std::move(handle));
  const std::lock_guard lock(mutex_);
  if (places_.count(key) == 0) {
    kept_.push_front({key, decoded});
    places_[key] = kept_.begin();
    kept_bytes_ += decoded.numel();
  }
  while (kept_bytes_ > kKeptBytes && kept_.size() > 1) {
    kept_bytes_ -= kept_.back().block.numel();
    places_.erase(kept_.back().key);
    kept_.pop_back();
  }
  return decoded;
}

torch::Tensor TiffFile::decode(Handle& handle, const TiffPicture& picture, int64_t column,
                               int64_t row) const {
  handle.go_to(picture.offset);
  TIFF* file = handle.file;
  const auto x = static_cast<uint32_t>(column * picture.block_width);
  const auto y = static_cast<uint32_t>(row * picture.block_height);
  const uint32_t index =
      picture.tiled ? TIFFComputeTile(file, x, y, 0, 0) : TIFFComputeStrip(file, y, 0);
  const int64_t rows = picture.tiled
                           ? picture.block_height
                           : std::min<int64_t>(picture.block_height, picture.height - int64_t{y});
  auto out = torch::full({picture.block_height, picture.block_width, 3}, 255, torch::kUInt8);
  if (TIFFGetStrileByteCount(file, index) == 0) return out;  // never scanned
  const auto fail = [&] {
    throw std::runtime_error("the block at (" + std::to_string(x) + ", " + std::to_string(y) +
                             ") cannot be decoded" + (said.empty() ? "" : ": " + said));
  };
  said.clear();
  warned = false;
  TIFFSetErrorHandler(remember);
  TIFFSetWarningHandler(notice);
  if (picture.rgb8) {
    const auto bytes = static_cast<tmsize_t>(rows * picture.block_width * 3);
    const tmsize_t got = picture.tiled ? TIFFReadEncodedTile(file, index, out.data_ptr(), bytes)
                                       : TIFFReadEncodedStrip(file, index, out.data_ptr(), bytes);
    if (got < bytes || (strict_ && warned)) fail();
    return out;
  }
  std::vector<uint32_t> raster(static_cast<size_t>(picture.block_width * picture.block_height));
  const int read = picture.tiled ? TIFFReadRGBATile(file, x, y, raster.data())
                                 : TIFFReadRGBAStrip(file, y, raster.data());
  if (read != 1) fail();
  auto* to = out.data_ptr<uint8_t>();
  for (int64_t r = 0; r < rows; ++r) {  // libtiff begins with the lowest row
    const uint32_t* from = raster.data() + (rows - 1 - r) * picture.block_width;
    for (int64_t c = 0; c < picture.block_width; ++c) {
      *to++ = static_cast<uint8_t>(TIFFGetR(from[c]));
      *to++ = static_cast<uint8_t>(TIFFGetG(from[c]));
      *to++ = static_cast<uint8_t>(TIFFGetB(from[c]));
    }
  }
  return out;
}

}  // namespace serpentine
