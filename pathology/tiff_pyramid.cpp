// Pyramidal OME-BigTIFF, tile by tile.
//
// The form: OME-TIFF specification 6, "sub-resolutions": the finest level is the first directory,
// the others are its SubIFDs, each half the size of the one before.
#include <fcntl.h>
#include <tiffio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "pathology/heatmap.h"

namespace serpentine {
namespace {

constexpr int64_t kTile = 512;

struct LevelSize {
  int64_t width, height;
  double scale;  // pixels of the finest level along one of this
};

std::vector<LevelSize> level_sizes(int64_t width, int64_t height) {
  std::vector<LevelSize> levels = {{width, height, 1}};
  while (std::max(levels.back().width, levels.back().height) > kTile) {
    const auto& last = levels.back();
    levels.push_back({std::max<int64_t>(1, last.width / 2), std::max<int64_t>(1, last.height / 2),
                      last.scale * 2});
  }
  return levels;
}

std::string ome_xml(int64_t width, int64_t height, double mpp, const std::string& name) {
  std::ostringstream xml;
  xml << R"(<?xml version="1.0" encoding="UTF-8"?>)"
      << R"(<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" )"
      << R"(xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation=)"
      << R"("http://www.openmicroscopy.org/Schemas/OME/2016-06 )"
      << R"(http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd">)"
      << "<Image ID=\"Image:0\" Name=\"" << name << "\"><Pixels ID=\"Pixels:0\" "
      << R"(DimensionOrder="XYCZT" Type="uint8" SizeX=")" << width << "\" SizeY=\"" << height
      << R"(" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true")";
  if (mpp > 0) {
    xml << " PhysicalSizeX=\"" << mpp << "\" PhysicalSizeXUnit=\"&#181;m\" PhysicalSizeY=\"" << mpp
        << "\" PhysicalSizeYUnit=\"&#181;m\"";
  }
  xml << R"(><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>)"
      << "</Pixels></Image></OME>";
  return xml.str();
}

void set_fields(TIFF* file, const LevelSize& level, bool first) {
  TIFFSetField(file, TIFFTAG_IMAGEWIDTH, static_cast<uint32_t>(level.width));
  TIFFSetField(file, TIFFTAG_IMAGELENGTH, static_cast<uint32_t>(level.height));
  TIFFSetField(file, TIFFTAG_TILEWIDTH, static_cast<uint32_t>(kTile));
  TIFFSetField(file, TIFFTAG_TILELENGTH, static_cast<uint32_t>(kTile));
  TIFFSetField(file, TIFFTAG_BITSPERSAMPLE, 8);
  TIFFSetField(file, TIFFTAG_SAMPLESPERPIXEL, 3);
  TIFFSetField(file, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
  TIFFSetField(file, TIFFTAG_COMPRESSION, COMPRESSION_JPEG);
  TIFFSetField(file, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_YCBCR);
  TIFFSetField(file, TIFFTAG_JPEGQUALITY, 85);
  TIFFSetField(file, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  if (!first) TIFFSetField(file, TIFFTAG_SUBFILETYPE, FILETYPE_REDUCEDIMAGE);
}

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw std::runtime_error(path + ": " + what +
                           (errno ? std::string(": ") + std::strerror(errno) : ""));
}

/// Removes what was begun unless the file was finished.
struct Temporary {
  explicit Temporary(const std::string& path) : name(path + ".part-" + std::to_string(getpid())) {}
  ~Temporary() {
    if (!name.empty()) unlink(name.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  void keep_as(const std::string& path) {
    const int file = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = file >= 0 && fsync(file) == 0;
    if (file >= 0) close(file);
    if (!synced || rename(name.c_str(), path.c_str()) != 0) fail(path, "cannot be finished");
    name.clear();
  }
  std::string name;
};

}  // namespace

void write_pyramid(const std::string& path, int64_t width, int64_t height, double mpp,
                   const std::string& name, const PartView& view,
                   const std::function<void(int64_t, int64_t)>& progress) {
  const auto levels = level_sizes(width, height);
  int64_t all = 0, done = 0;
  const auto tiles = [](int64_t n) { return (n + kTile - 1) / kTile; };
  for (const auto& level : levels) all += tiles(level.width) * tiles(level.height);
  Temporary temporary(path);
  errno = 0;
  std::unique_ptr<TIFF, void (*)(TIFF*)> file(TIFFOpen(temporary.name.c_str(), "w8"),
                                              [](TIFF* open) { TIFFClose(open); });
  if (!file) fail(path, "cannot be written");
  for (size_t i = 0; i < levels.size(); ++i) {
    const LevelSize& level = levels[i];
    set_fields(file.get(), level, i == 0);
    if (i == 0) {
      TIFFSetField(file.get(), TIFFTAG_IMAGEDESCRIPTION, ome_xml(width, height, mpp, name).c_str());
      TIFFSetField(file.get(), TIFFTAG_SOFTWARE, "serpentine");
      const std::vector<uint64_t> below(levels.size() - 1, 0);  // filled in as they are written
      if (!below.empty()) {
        TIFFSetField(file.get(), TIFFTAG_SUBIFD, static_cast<uint16_t>(below.size()), below.data());
      }
    }
    auto block = torch::full({kTile, kTile, 3}, 255, torch::kUInt8);
    for (int64_t y = 0; y < level.height; y += kTile) {
      for (int64_t x = 0; x < level.width; x += kTile) {
        const int64_t w = std::min(kTile, level.width - x), h = std::min(kTile, level.height - y);
        const auto scaled = [&](int64_t n) { return static_cast<double>(n) * level.scale; };
        block.fill_(255);
        block.slice(0, 0, h).slice(1, 0, w).copy_(
            view(scaled(x), scaled(y), scaled(w), scaled(h), w, h));
        errno = 0;
        if (TIFFWriteTile(file.get(), block.data_ptr(), static_cast<uint32_t>(x),
                          static_cast<uint32_t>(y), 0, 0) < 0) {
          fail(path, "cannot be written");
        }
        if (progress) progress(++done, all);
      }
    }
    errno = 0;
    if (TIFFWriteDirectory(file.get()) != 1) fail(path, "cannot be written");
  }
  file.reset();
  temporary.keep_as(path);
}

}  // namespace serpentine
